"""Search: against all sentences there are, greedy against beam, batches, length, repeats, the order of states."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.language.search import BeamConfig, GreedyConfig, beam, greedy, search, select_rows
from mmfusion.language.vocab import BOS, EOS, PAD, UNK
from mmfusion.types import Stepper

FORBIDDEN = {PAD, BOS, UNK}


class Tables:
    """A stepper whose log p depends on the clip and on every word so far, through a state that is their hash."""

    def __init__(self, num_words=6, sharpness=1.5):
        self.num_words, self.sharpness = num_words, sharpness
        self.rows_stepped = 0

    def start(self, given):
        return {"clip": (given.clone(), torch.zeros(len(given), 1, dtype=torch.int64))}

    def step(self, words, state):
        clip, past = state["clip"]
        self.rows_stepped += len(words)
        past = (past * 31 + words[:, None] + 1) % 1_000_003
        table = [
            torch.randn(self.num_words, generator=torch.Generator().manual_seed(int(c) * 7919 + int(p)))
            for c, p in zip(clip, past[:, 0], strict=True)
        ]
        return (self.sharpness * torch.stack(table)).log_softmax(-1), {"clip": (clip, past)}


def log_prob_of(stepper, clip, words):
    state, last, total = stepper.start(torch.tensor([clip])), BOS, 0.0
    for word in [*words, EOS]:
        log_probs, state = stepper.step(torch.tensor([last]), state)
        total, last = total + float(log_probs[0, word]), word
    return total


def all_sentences(num_words, min_words, max_words):
    sayable = [word for word in range(num_words) if word not in FORBIDDEN | {EOS}]
    return [words for length in range(min_words, max_words + 1) for words in product(sayable, repeat=length)]


def test_the_toy_is_a_stepper():
    assert isinstance(Tables(), Stepper)


@pytest.mark.parametrize("length_penalty", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("min_words", [0, 1])
def test_a_huge_beam_finds_what_exhaustive_search_finds(length_penalty, min_words):
    stepper = Tables()
    sentences = all_sentences(6, min_words, 3)
    config = BeamConfig(beam_size=len(sentences), max_words=3, min_words=min_words, length_penalty=length_penalty)
    for clip, found in enumerate(beam(stepper, torch.arange(3), config)):
        exact = {words: log_prob_of(stepper, clip, words) for words in sentences}
        scores = {words: p / ((5 + len(words) + 1) / 6) ** length_penalty for words, p in exact.items()}
        assert [h.words for h in found] == sorted(sentences, key=lambda words: -scores[words])
        for hypothesis in found:
            assert hypothesis.log_prob == pytest.approx(exact[hypothesis.words], abs=1e-4)
            assert hypothesis.score == pytest.approx(scores[hypothesis.words], abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(0, 2), st.integers(0, 2))
def test_a_beam_of_one_is_greedy(clip, max_words, min_words, no_repeat):
    limits = {"max_words": max_words, "min_words": min_words, "no_repeat": no_repeat}
    clips = torch.arange(clip, clip + 3)
    one = beam(Tables(8), clips, BeamConfig(beam_size=1, length_penalty=0.0, **limits))
    assert [found[0].words for found in one] == [h.words for h in greedy(Tables(8), clips, GreedyConfig(**limits))]
    assert all(len(found) == 1 for found in one)


def test_greedy_takes_the_best_word_each_time():
    (found,) = greedy(Tables(8), torch.tensor([5]), GreedyConfig(max_words=4, min_words=0))
    stepper = Tables(8)
    state, last, said = stepper.start(torch.tensor([5])), BOS, []
    while last != EOS and len(said) < 4:
        log_probs, state = stepper.step(torch.tensor([last]), state)
        last = max(set(range(8)) - FORBIDDEN, key=lambda word: float(log_probs[0, word]))
        said += [last] if last != EOS else []
    assert found.words == tuple(said)
    assert found.log_prob == pytest.approx(log_prob_of(stepper, 5, said), abs=1e-4)


@pytest.mark.parametrize("config", [GreedyConfig(max_words=6), BeamConfig(beam_size=3, max_words=6)])
def test_a_batch_equals_its_clips_one_by_one(config):
    clips = torch.arange(12)
    together = search(Tables(9, 3.0), clips, config)
    alone = [search(Tables(9, 3.0), clips[i : i + 1], config)[0] for i in range(12)]
    assert [[h.words for h in found] for found in together] == [[h.words for h in found] for found in alone]
    assert len({len(found[0].words) for found in together}) > 1


@pytest.mark.parametrize("beam_size", [1, 2, 4])
def test_log_probs_are_those_of_the_words_so_states_follow_their_hypotheses(beam_size):
    stepper = Tables(10)
    config = BeamConfig(beam_size=beam_size, max_words=7)
    for clip, found in enumerate(beam(stepper, torch.arange(5), config)):
        assert 1 <= len(found) <= beam_size
        assert len({h.words for h in found}) == len(found)
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
        for hypothesis in found:
            assert hypothesis.log_prob == pytest.approx(log_prob_of(stepper, clip, hypothesis.words), abs=1e-4)
            assert not set(hypothesis.words) & (FORBIDDEN | {EOS})


def test_a_wider_beam_finds_at_least_as_probable_a_sentence_here():
    def total(size):
        config = BeamConfig(beam_size=size, max_words=5, length_penalty=0.0)
        return sum(found[0].log_prob for found in beam(Tables(8), torch.arange(20), config))

    assert total(1) < total(4) < total(40)


class Fixed:
    """The same log p at every step."""

    def __init__(self, log_probs):
        self.log_probs = torch.tensor(log_probs)

    def start(self, given):
        return (torch.zeros(given),)

    def step(self, words, state):
        return self.log_probs.expand(len(words), -1), state


def test_length_penalty_prefers_longer_sentences():
    # log p(w) = -0.5, log p(<eos>) = -1: n words cost 0.5 n + 1, so plain log p wants none and averages want many.
    stepper = Fixed([-9.0, -9.0, -1.0, -9.0, -0.5])
    lengths = [
        len(beam(stepper, 1, BeamConfig(beam_size=20, max_words=8, min_words=0, length_penalty=alpha))[0][0].words)
        for alpha in (0.0, 0.7, 2.0)
    ]
    assert lengths[0] == 0 and lengths[-1] == 8
    assert lengths == sorted(lengths)


def test_forbidden_words_are_never_said_and_every_search_ends():
    stepper = Fixed([0.0, 0.0, -50.0, 0.0, -40.0, -41.0])
    for config in (GreedyConfig(max_words=5), BeamConfig(beam_size=2, max_words=5)):
        for found in search(stepper, 2, config):
            assert all(set(h.words) <= {4, 5} and len(h.words) == 5 for h in found)


def test_impossible_words_leave_a_sentence():
    stepper = Fixed([float("-inf")] * 6)
    for config in (GreedyConfig(max_words=3), BeamConfig(beam_size=2, max_words=3)):
        assert all(found and set(found[0].words) <= {4, 5} for found in search(stepper, 2, config))


def test_nan_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        search(Fixed([float("nan")] * 6), 2, GreedyConfig())


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("kind", ["greedy", "beam"])
def test_no_run_of_words_stands_twice(size, kind):
    limits = {"max_words": 12, "no_repeat": size}
    config = GreedyConfig(**limits) if kind == "greedy" else BeamConfig(beam_size=3, **limits)
    stepper = Fixed([-9.0, -9.0, -30.0, -9.0, -0.1, -2.0, -2.5])
    free = search(stepper, 1, GreedyConfig(max_words=12))[0][0].words
    assert free == (4,) * 12
    for hypothesis in search(stepper, 1, config)[0]:
        runs = [hypothesis.words[i : i + size] for i in range(len(hypothesis.words) - size + 1)]
        assert len(set(runs)) == len(runs) > 0


def test_when_no_word_is_left_the_sentence_ends():
    stepper = Fixed([-9.0, -9.0, -30.0, -9.0, -0.1, -2.0])
    for config in (GreedyConfig(no_repeat=1, min_words=5), BeamConfig(beam_size=2, no_repeat=1, min_words=5)):
        assert sorted(search(stepper, 1, config)[0][0].words) == [4, 5]


def test_finished_clips_leave_the_batch():
    stepper = Tables(9, 3.0)
    found = greedy(stepper, torch.arange(12), GreedyConfig(max_words=6))
    assert stepper.rows_stepped == sum(len(h.words) + 1 for h in found)


def test_rows_of_a_nest_are_selected():
    state = {"a": (torch.arange(3), [torch.arange(6).view(3, 2)]), "b": torch.tensor([True, False, True])}
    chosen = select_rows(state, torch.tensor([2, 2, 0]))
    assert chosen["a"][0].tolist() == [2, 2, 0] and chosen["a"][1][0].tolist() == [[4, 5], [4, 5], [0, 1]]
    assert chosen["b"].tolist() == [True, True, True]


def test_no_clips_no_sentences():
    for config in (GreedyConfig(), BeamConfig()):
        assert search(Fixed([-1.0] * 6), 0, config) == []
