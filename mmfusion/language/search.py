"""The search for a sentence that a `Stepper` finds probable: greedy, and a beam over many clips at once.

Conventions:

* A sentence is w1 ... wn <eos> with 0 <= n <= max_words; after max_words words only <eos> can follow. Its log p
  includes the <eos>.
* <pad>, <bos> and <unk> are never said. Their probability is not shared out among the other words.
* Nothing here knows what is inside a stepper or its state. Put modules in evaluation mode before a search.
* A stepper whose log p holds NaN raises ValueError.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from mmfusion.config import configclass
from mmfusion.language.vocab import BOS, EOS, PAD, UNK
from mmfusion.types import Stepper

# Instead of log 0: a sentence is always found, and an impossible word is only the last choice.
_LOWEST = -1e4


@configclass
class GreedyConfig:
    """The most probable word at every step."""

    kind: Literal["greedy"] = "greedy"
    max_words: Annotated[int, Field(gt=0)] = 20
    """The longest sentence, <eos> not counted."""
    min_words: Annotated[int, Field(ge=0)] = 1
    """The shortest sentence, <eos> not counted."""
    no_repeat: Annotated[int, Field(ge=0)] = 0
    """No run of this many words stands twice in a sentence (Paulus et al., ICLR 2018, section 2.5); 0 allows all."""


@configclass
class BeamConfig:
    """The `beam_size` most probable beginnings at every step."""

    kind: Literal["beam"] = "beam"
    beam_size: Annotated[int, Field(gt=0)] = 5
    """How many unfinished sentences are kept at every step, and how many finished ones end the search."""
    max_words: Annotated[int, Field(gt=0)] = 20
    """The longest sentence, <eos> not counted."""
    min_words: Annotated[int, Field(ge=0)] = 1
    """The shortest sentence, <eos> not counted."""
    no_repeat: Annotated[int, Field(ge=0)] = 0
    """No run of this many words stands twice in a sentence (Paulus et al., ICLR 2018, section 2.5); 0 allows all."""
    length_penalty: Annotated[float, Field(ge=0)] = 0.7
    """alpha in score = log p / ((5 + n) / 6)^alpha, n words with <eos>; 0 ranks by log p."""


SearchConfig = Annotated[GreedyConfig | BeamConfig, Field(discriminator="kind")]


@dataclass(frozen=True)
class Hypothesis:
    """A sentence that a search found: `words` without <bos> and <eos>, their log p with <eos>, and the rank's score."""

    words: tuple[int, ...]
    log_prob: float
    score: float


def search(stepper: Stepper, given: Any, config: GreedyConfig | BeamConfig) -> list[list[Hypothesis]]:
    """For each clip its hypotheses, the best score first: one by greedy search, at most `beam_size` by beam search."""
    if isinstance(config, BeamConfig):
        return beam(stepper, given, config)
    return [[found] for found in greedy(stepper, given, config)]


@torch.inference_mode()
def greedy(stepper: Stepper, given: Any, config: GreedyConfig) -> list[Hypothesis]:
    """One hypothesis a clip, its score equal to its log p. Clips that are finished leave the batch."""
    state = stepper.start(given)
    num_clips, device = _batch(state)
    clips = torch.arange(num_clips, device=device)
    said = torch.full((num_clips, 1), BOS, device=device)
    total = torch.zeros(num_clips, device=device)
    found: list[Hypothesis | None] = [None] * num_clips
    while len(clips):
        log_probs, state = stepper.step(said[:, -1], state)
        log_prob, word = _allowed(log_probs, said, config).max(dim=-1)
        total = total + log_prob
        over = word == EOS
        for row in over.nonzero()[:, 0].tolist():
            log_p = float(total[row])
            found[int(clips[row])] = Hypothesis(tuple(said[row, 1:].tolist()), log_p, log_p)
        alive = (~over).nonzero()[:, 0]
        said = torch.cat([said, word[:, None]], dim=1)[alive]
        clips, total, state = clips[alive], total[alive], select_rows(state, alive)
    return [hypothesis for hypothesis in found if hypothesis is not None]


@torch.inference_mode()
def beam(stepper: Stepper, given: Any, config: BeamConfig) -> list[list[Hypothesis]]:
    """At most `beam_size` hypotheses a clip, the best score first; all clips are searched in the same batch.

    At every step each clip's 2 x `beam_size` best continuations are looked at: those among the first `beam_size` that
    end are finished, and the best `beam_size` that do not end go on. A clip's search ends when it has `beam_size`
    finished sentences or at `max_words`; it then leaves the batch. Length normalisation: Wu et al., "Google's neural
    machine translation system" (2016), eq. 14, without the coverage term.
    """
    size = config.beam_size
    state = stepper.start(given)
    num_clips, device = _batch(state)
    clips = torch.arange(num_clips, device=device)
    state = select_rows(state, clips.repeat_interleave(size))
    said = torch.full((num_clips, size, 1), BOS, device=device)
    # All beams of a clip begin alike: only the first may have descendants, or every sentence would be found often.
    totals = torch.full((num_clips, size), float("-inf"), device=device)
    totals[:, 0] = 0
    found: list[list[Hypothesis]] = [[] for _ in range(num_clips)]
    while len(clips):
        rows = said.flatten(0, 1)
        log_probs, state = stepper.step(rows[:, -1], state)
        every = totals[:, :, None] + _allowed(log_probs, rows, config).unflatten(0, totals.shape)
        num_words = every.shape[-1]
        best, place = every.flatten(1).topk(min(2 * size, size * num_words), dim=-1)
        parent, word = place // num_words, place % num_words
        ends = word == EOS
        for row, rank in (ends & best.isfinite())[:, :size].nonzero().tolist():
            sentence = said[row, parent[row, rank], 1:].tolist()
            found[int(clips[row])].append(_finished(sentence, float(best[row, rank]), config.length_penalty))
        # One continuation of each beam ends, so at least beam_size of the 2 x beam_size go on.
        totals, going = best.masked_fill(ends, float("-inf")).topk(size, dim=-1)
        parent, word = parent.gather(1, going), word.gather(1, going)
        searched = [len(found[clip]) < size for clip in clips.tolist()]
        alive = (torch.tensor(searched, device=device) & totals.isfinite().any(dim=1)).nonzero()[:, 0]
        first_row = torch.arange(len(clips), device=device)[:, None] * size
        state = select_rows(state, (first_row + parent)[alive].flatten())
        said = torch.cat([said.gather(1, parent[..., None].expand(-1, -1, said.shape[2])), word[..., None]], dim=2)
        said, clips, totals = said[alive], clips[alive], totals[alive]
    return [sorted(each, key=lambda h: -h.score)[:size] for each in found]


def select_rows(state: Any, rows: Tensor) -> Any:
    """The given rows (int64, repeats allowed) of every tensor in a nest of dicts, tuples and lists."""
    if isinstance(state, Tensor):
        return state.index_select(0, rows)
    if isinstance(state, dict):
        return {key: select_rows(part, rows) for key, part in state.items()}
    return type(state)(select_rows(part, rows) for part in state)


def _allowed(log_probs: Tensor, said: Tensor, config: GreedyConfig | BeamConfig) -> Tensor:
    """log p (rows, V) with -inf for every word that must not come next; `said` (rows, t) begins with <bos>."""
    if log_probs.isnan().any():
        raise ValueError("the stepper's log p holds NaN: the model has diverged")
    log_probs = log_probs.float().clamp(min=_LOWEST)
    num_said = said.shape[1] - 1
    end = log_probs[:, EOS].clone()
    banned = torch.zeros_like(log_probs, dtype=torch.bool)
    banned[:, [PAD, BOS, UNK]] = True
    if num_said < config.min_words:
        banned[:, EOS] = True
    if num_said >= config.max_words:
        banned[:] = True
    if 0 < config.no_repeat <= num_said:
        # Every earlier run of no_repeat - 1 words that equals the last one bans the word that came after it.
        runs = said[:, 1:].unfold(1, config.no_repeat, 1)
        last = said[:, said.shape[1] - config.no_repeat + 1 :]
        again = (runs[..., :-1] == last[:, None, :]).all(dim=-1)
        banned |= torch.zeros_like(banned).scatter_(1, runs[..., -1].masked_fill(~again, PAD), True)
    log_probs = log_probs.masked_fill(banned, float("-inf"))
    # With no word left there is always <eos>.
    log_probs[:, EOS] = torch.where(banned.all(dim=-1), end, log_probs[:, EOS])
    return log_probs


def _finished(words: list[int], log_prob: float, length_penalty: float) -> Hypothesis:
    length = len(words) + 1
    return Hypothesis(tuple(words), log_prob, log_prob / ((5 + length) / 6) ** length_penalty)


def _batch(state: Any) -> tuple[int, torch.device]:
    """Number of rows and device of a state."""
    first = next(_tensors(state))
    return len(first), first.device


def _tensors(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    else:
        for part in state.values() if isinstance(state, dict) else state:
            yield from _tensors(part)
