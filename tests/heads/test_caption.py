"""S2VT: against a plain loop, forward against step, shared reading, padding, batches."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import log_softmax

from mmfusion.heads.caption import CaptionConfig, CaptionHead
from mmfusion.types import Head, Output, Stepper, Stream, Targets

WIDTH, WORDS, BOS, EOS = 6, 11, 1, 2


READERS = [{}, {"projection": 4}, {"reader": "mean"}, {"reader": "mean", "projection": 4}]


def make_head(**settings):
    torch.manual_seed(0)
    return CaptionHead(CaptionConfig(**{"embedding": 5, "hidden": 7, **settings}), WIDTH, WORDS).eval()


def make_stream(lengths=(5, 3, 0, 1), num_steps=5):
    data = torch.randn(len(lengths), num_steps, WIDTH, generator=torch.Generator().manual_seed(2))
    return Stream(data, torch.arange(num_steps) < torch.tensor(lengths)[:, None], 2.0)


def make_targets(counts=((3, 1, 4), (2, 6, 0), (5, 0, 0), (0, 0, 0)), longest=6):
    """Captions of so many words; 0 where there is none. What lies under the mask is out of the vocabulary."""
    generator = torch.Generator().manual_seed(4)
    words = torch.full((len(counts), len(counts[0]), longest + 2), -7)
    for clip, row in enumerate(counts):
        for k, count in enumerate(row):
            if count:
                said = torch.randint(3, WORDS, (count,), generator=generator)
                words[clip, k, : count + 2] = torch.cat([torch.tensor([BOS]), said, torch.tensor([EOS])])
    return Targets(words=words, word_mask=words >= 0)


def one_clip(stream, index):
    return Stream(stream.data[index : index + 1], stream.mask[index : index + 1], stream.rate)


def log_probs_by_steps(head, stream, targets):
    """The rows of `forward`, made by reading each clip for each of its captions and saying its words one by one."""
    rows = []
    for clip, captions in enumerate(targets.words):
        for caption in captions:
            said = caption[caption >= 0]
            state = head.start(one_clip(stream, clip))
            for word in said[:-1]:
                log_probs, state = head.step(word[None], state)
                rows.append(log_probs)
    return torch.cat(rows)


def test_it_is_a_head_and_a_stepper():
    assert isinstance(make_head(), Head) and isinstance(make_head(), Stepper)


@pytest.mark.parametrize("settings", READERS)
def test_teacher_forcing_equals_repeated_steps_clip_by_clip(settings):
    head, stream, targets = make_head(**settings), make_stream(), make_targets()
    output = head(stream, targets)
    assert output.logits.shape == (int(targets.word_mask[..., 1:].sum()), WORDS)
    torch.testing.assert_close(output.log_probs(), log_probs_by_steps(head, stream, targets))


def test_the_mean_reader_says_the_mean_of_the_real_steps_with_every_word():
    head, stream = make_head(reader="mean"), make_stream()
    state = head.start(stream)
    torch.testing.assert_close(state["reader"][0][1], stream.data[1, :3].mean(0))
    _, after = head.step(torch.tensor([BOS, BOS, BOS, BOS]), state)
    torch.testing.assert_close(after["reader"], state["reader"])


def test_it_is_s2vt_by_the_paper():
    """The two LSTMs as one loop over reading and speaking, the way the paper draws them."""
    head, stream = make_head(), make_stream()
    first, second = nn.LSTMCell(WIDTH, 7), nn.LSTMCell(7 + 5, 7)
    for cell, lstm in ((first, head.reader), (second, head.speaker)):
        for cell_weight, weight in zip(cell.parameters(), lstm.parameters(), strict=True):
            cell_weight.data.copy_(weight)
    said = [BOS, 4, 9, 5, EOS]
    state1 = state2 = None
    for step in stream.data[1, :3]:
        state1 = first(step[None], state1)
        state2 = second(torch.cat([state1[0], torch.zeros(1, 5)], 1), state2)
    rows = []
    for word in said[:-1]:
        state1 = first(torch.zeros(1, WIDTH), state1)
        state2 = second(torch.cat([state1[0], head.embedding.weight[word][None]], 1), state2)
        rows.append(log_softmax(head.output(state2[0]), -1))
    words = torch.tensor(said)[None, None]
    got = head(one_clip(stream, 1), Targets(words=words, word_mask=words > 0))
    torch.testing.assert_close(got.log_probs(), torch.cat(rows))


@pytest.mark.parametrize("settings", READERS)
def test_what_lies_under_a_false_mask_changes_nothing(settings):
    head, stream, targets = make_head(**settings), make_stream(), make_targets()
    filled = stream.with_data(torch.where(stream.mask[..., None], stream.data, torch.nan))
    longer = Stream(torch.cat([filled.data, filled.data], 1), torch.cat([stream.mask, stream.mask & False], 1), 2.0)
    padding = torch.full((4, 3, 4), 5)
    wordier = Targets(
        words=torch.cat([targets.words, padding], 2), word_mask=torch.cat([targets.word_mask, padding < 0], 2)
    )
    expected = head(stream, targets).logits
    for other_stream, other_targets in ((filled, targets), (longer, targets), (stream, wordier)):
        torch.testing.assert_close(head(other_stream, other_targets).logits, expected)


@pytest.mark.parametrize("settings", READERS)
def test_a_clip_without_steps_speaks_from_a_zero_state(settings):
    state = make_head(**settings).start(make_stream())
    assert all(part[2].abs().sum() == 0 for parts in state.values() for part in parts)
    assert state["reader"][0][3].abs().sum() > 0


def test_a_gap_inside_a_clip_is_read_as_zeros():
    head, stream = make_head(projection=4), make_stream((5,))
    mask = torch.tensor([[True, False, True, True, False]])
    state = head.start(Stream(stream.data.masked_fill(~mask[..., None], torch.nan), mask, 2.0))
    steps = torch.where(mask[0, :4, None], head.project(stream.data[0, :4]), 0.0)
    _, (hidden, _) = head.reader.lstm(steps[None])
    torch.testing.assert_close(state["reader"][0], hidden[0])


@pytest.mark.parametrize("settings", READERS)
def test_shared_reading_gives_the_loss_and_the_gradients_of_reading_per_caption(settings):
    stream, targets = make_stream(), make_targets()
    shared, alone = (make_head(label_smoothing=0.1, **settings) for _ in range(2))
    loss = shared.loss(shared(stream, targets), targets)
    loss.backward()

    copies = torch.arange(4).repeat_interleave(3)
    repeated = Stream(stream.data[copies], stream.mask[copies], 2.0)
    single = Targets(words=targets.words.flatten(0, 1)[:, None], word_mask=targets.word_mask.flatten(0, 1)[:, None])
    other = alone.loss(alone(repeated, single), single)
    other.backward()
    torch.testing.assert_close(loss, other)
    for (name, mine), theirs in zip(shared.named_parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, msg=lambda text, name=name: f"{name}: {text}")


def test_loss_is_the_mean_over_words():
    head, stream, targets = make_head(), make_stream(), make_targets()
    rows = log_probs_by_steps(head, stream, targets)
    said = [int(word) for caption in targets.words.flatten(0, 1) for word in caption[caption >= 0][1:]]
    expected = -rows[torch.arange(len(said)), torch.tensor(said)].mean()
    torch.testing.assert_close(head.loss(head(stream, targets), targets), expected)


def test_without_captions_the_loss_is_zero():
    head, stream = make_head(), make_stream()
    none = make_targets(((0, 0), (0, 0), (0, 0), (0, 0)))
    for targets in (Targets(), none):
        output = head(stream, targets)
        loss = head.loss(output, targets)
        loss.backward()
        assert output.logits.shape == (0, WORDS) and loss == 0


def test_under_autocast_the_recurrence_and_the_loss_stay_in_float32():
    head, stream, targets = make_head(projection=4), make_stream(), make_targets()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = head(stream, targets)
        log_probs, state = head.step(torch.tensor([1, 1, 1, 1]), head.start(stream))
        loss = head.loss(output, targets)
    assert output.logits.dtype == torch.bfloat16
    assert loss.dtype == log_probs.dtype == state["speaker"][0].dtype == torch.float32
    torch.testing.assert_close(loss, head.loss(head(stream, targets), targets), atol=0.02, rtol=0)


def test_dropout_and_scheduled_sampling_act_in_training_only():
    head, stream, targets = make_head(dropout=0.5, scheduled_sampling=0.5), make_stream(), make_targets()
    plain = make_head()(stream, targets).logits
    torch.testing.assert_close(head(stream, targets).logits, plain)
    head.train()
    assert not torch.allclose(head(stream, targets).logits, plain)


def test_scheduled_sampling_feeds_the_model_its_own_guesses():
    head, stream, targets = make_head(scheduled_sampling=1.0).train(), make_stream(), make_targets()
    with torch.no_grad():
        head.output.weight.zero_()
        head.output.bias.copy_(torch.eye(WORDS)[8] * 100)
    fed = targets.words.clone()
    fed[..., 1:] = torch.where(targets.word_mask[..., 1:], 8, fed[..., 1:])
    torch.testing.assert_close(
        head.states(stream, targets), head.eval().states(stream, Targets(words=fed, word_mask=targets.word_mask))
    )


def test_four_clips_can_be_over_fitted():
    torch.manual_seed(0)
    head = CaptionHead(CaptionConfig(embedding=16, hidden=32), WIDTH, WORDS)
    stream, targets = make_stream((5, 3, 4, 2)), make_targets(((3,), (2,), (6,), (4,)))
    optimizer = torch.optim.Adam(head.parameters(), 0.02)
    for _ in range(80):
        optimizer.zero_grad()
        output = head(stream, targets)
        loss = head.loss(output, targets)
        loss.backward()
        optimizer.step()
    assert isinstance(output, Output) and loss < 0.05
    state, word, said = head.start(one_clip(stream, 2)), torch.tensor([BOS]), []
    for _ in range(7):
        log_probs, state = head.step(word, state)
        word = log_probs.argmax(-1)
        said.append(int(word))
    assert said == targets.words[2, 0, 1:].tolist()
