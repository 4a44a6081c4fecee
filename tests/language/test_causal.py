"""A causal transformer as a stepper: a tiny GPT-2 with a tokenizer trained on a few captions, from a folder."""

from __future__ import annotations

import pytest
import torch
from tiny_gpt2 import END, write_gpt2
from torch.nn.functional import log_softmax

from mmfusion.language.causal import CausalModel, TokenVocabulary, load_causal, load_tokenizer, token_ids
from mmfusion.language.search import BeamConfig, GreedyConfig, search, select_rows
from mmfusion.language.vocab import BOS, EOS, PAD, SPECIALS, UNK, Vocabulary
from mmfusion.types import InputError, Stepper

CAPTIONS = ("A red ball bounces.", "a blue ball bounces!", "the siren wails; it's loud", "a dog barks at the ball")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_gpt2(tmp_path_factory.mktemp("gpt2"), CAPTIONS)


@pytest.fixture(scope="module")
def vocabulary(folder):
    return TokenVocabulary.of(load_tokenizer(str(folder)))


@pytest.fixture(scope="module")
def model(folder, vocabulary):
    return load_causal(str(folder), vocabulary)


def test_it_is_a_frozen_stepper(model):
    assert isinstance(model, Stepper)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.train().network.training


def test_tokens_are_numbered_like_words(vocabulary):
    assert vocabulary.words[:4] == SPECIALS
    assert END not in vocabulary.words
    for caption in CAPTIONS:
        numbers = vocabulary.encode(caption)
        assert numbers[0] == BOS and numbers[-1] == EOS and UNK not in numbers
        assert vocabulary.decode(numbers[1:]) == caption.lower().replace(".", "").replace("!", "").replace(";", "")
    assert len(vocabulary.encode(CAPTIONS[0], max_words=2)) == 4


def test_with_captions_only_their_tokens_are_kept(folder, vocabulary):
    fewer = TokenVocabulary.of(load_tokenizer(str(folder)), CAPTIONS[:2])
    assert set(fewer.words) < set(vocabulary.words)
    assert UNK not in fewer.encode(CAPTIONS[1])
    assert UNK in fewer.encode(CAPTIONS[2])
    assert TokenVocabulary.of(load_tokenizer(str(folder)), reversed(CAPTIONS[:2])) == fewer


def test_log_p_is_the_network_s_over_the_words_of_the_vocabulary(model, vocabulary):
    words = torch.tensor([vocabulary.encode(CAPTIONS[0])])
    log_probs = model(words)
    assert log_probs.shape == (1, words.shape[1], len(vocabulary)) and log_probs.dtype == torch.float32
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(1, words.shape[1]))
    every = log_softmax(model.network(input_ids=model.ids[words]).logits, -1)
    said = torch.tensor([EOS, *range(4, len(vocabulary))])
    torch.testing.assert_close(log_probs[..., said], every[..., model.ids[said]])
    rest = torch.ones(every.shape[-1], dtype=torch.bool)
    rest[model.ids[said]] = False
    torch.testing.assert_close(log_probs[..., UNK].exp(), every[..., rest].exp().sum(-1))
    assert (log_probs[..., [PAD, BOS]] == -30).all()


def test_repeated_steps_are_whole_sentences(model, vocabulary):
    words = torch.randint(4, len(vocabulary), (3, 6), generator=torch.Generator().manual_seed(1))
    words[:, 0] = BOS
    expected, state = model(words), model.start(words)
    for position in range(6):
        log_probs, state = model.step(words[:, position], state)
        torch.testing.assert_close(log_probs, expected[:, position], atol=1e-4, rtol=1e-4)


def test_a_state_can_be_used_twice_and_its_rows_chosen(model):
    _, state = model.step(torch.tensor([BOS, BOS]), model.start(2))
    _, state = model.step(torch.tensor([5, 6]), state)
    before, _ = model.step(torch.tensor([7, 7]), state)
    again, _ = model.step(torch.tensor([7, 7]), state)
    assert torch.equal(before, again)
    turned, _ = model.step(torch.tensor([7, 7, 7]), select_rows(state, torch.tensor([1, 1, 0])))
    torch.testing.assert_close(turned, before[[1, 1, 0]], atol=1e-5, rtol=1e-4)


def test_padding_changes_nothing(model, vocabulary):
    words = torch.tensor([vocabulary.encode(CAPTIONS[1])])
    longer = torch.cat([words, torch.full((1, 4), PAD)], dim=1)
    torch.testing.assert_close(model(longer)[:, : words.shape[1]], model(words), atol=1e-5, rtol=1e-4)


def test_it_can_be_searched(model, vocabulary):
    beams = search(model, 2, BeamConfig(beam_size=3, max_words=5))
    assert beams[0][0].words == beams[1][0].words
    (greedy,) = search(model, 1, GreedyConfig(max_words=5))
    assert isinstance(vocabulary.decode(greedy[0].words), str)


def test_a_decoder_of_other_words_is_refused(folder):
    with pytest.raises(InputError, match="'skyscraper' is no token"):
        load_causal(str(folder), Vocabulary.build(["skyscraper"]))
    tokenizer = load_tokenizer(str(folder))
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="no end-of-text token"):
        token_ids(tokenizer, Vocabulary(SPECIALS))


def test_what_cannot_be_loaded_is_named(tmp_path, vocabulary):
    with pytest.raises(InputError, match="cannot be loaded by transformers"):
        load_causal(str(tmp_path / "nowhere"), vocabulary)
    with pytest.raises(InputError, match="tokenizer cannot be loaded"):
        load_tokenizer(str(tmp_path / "nowhere"))


def test_the_same_words_from_a_file(folder, vocabulary, tmp_path, model):
    """A run keeps its words in vocabulary.json; they are enough to find the tokens again."""
    vocabulary.save(tmp_path / "vocabulary.json")
    loaded = CausalModel(model.network, load_tokenizer(str(folder)), Vocabulary.load(tmp_path / "vocabulary.json"))
    assert torch.equal(loaded.ids, model.ids)
