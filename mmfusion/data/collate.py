"""Clips to batches: the one place where padding and masks are born.

Everything is padded on the right with zeros (words with <pad>, which is 0) under a False mask. An input that a clip
does not have is one whole row of that; where no clip of the batch has it, the stream is a single step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmfusion.data.raw import Layout, Raw
from mmfusion.types import Batch, InputError, Stream, Targets


@dataclass(frozen=True, eq=False)
class Example:
    """One clip, ready to be put in a batch.

    `inputs` holds what the clip has of the inputs in `layouts`; `labels` and `label_mask` are (C,), `activity` is
    (S, C) with NaN for unknown; `words` are captions as numbers; `sources` (S, N), `source_mask` (S,) and
    `source_classes` (S,), -1 for unknown, are those of a mixture. What no head can ask for is None.
    """

    clip_id: str
    inputs: Mapping[str, Raw]
    layouts: Mapping[str, Layout]
    labels: np.ndarray | None = None
    label_mask: np.ndarray | None = None
    activity: np.ndarray | None = None
    words: Sequence[Sequence[int]] | None = None
    sources: np.ndarray | None = None
    source_mask: np.ndarray | None = None
    source_classes: np.ndarray | None = None


def collate(examples: Sequence[Example]) -> Batch:
    """The batch of at least one example. InputError when clips differ in the rate or the shape of an input."""
    layouts = examples[0].layouts
    inputs = {name: _stream(name, layout, examples) for name, layout in layouts.items()}
    words, word_mask = _words(examples)
    targets = Targets(
        labels=_stacked([example.labels for example in examples]),
        label_mask=_stacked([example.label_mask for example in examples]),
        activity=_activity([example.activity for example in examples]),
        words=words,
        word_mask=word_mask,
        sources=_sources([example.sources for example in examples]),
        source_mask=_stacked([example.source_mask for example in examples]),
        source_classes=_stacked([example.source_classes for example in examples]),
    )
    return Batch(tuple(example.clip_id for example in examples), inputs, targets)


def _stream(name: str, layout: Layout, examples: Sequence[Example]) -> Stream:
    raws = [example.inputs.get(name) for example in examples]
    rate = layout.rate or next((raw.rate for raw in raws if raw is not None), 1.0)
    for raw, example in zip(raws, examples, strict=True):
        if raw is not None and (raw.data.shape[1:] != layout.shape or abs(raw.rate - rate) > 1e-6 * rate):
            raise InputError(
                f"clip {example.clip_id!r}: {name} has steps of {raw.data.shape[1:]} at {raw.rate:g} a second, where "
                f"{layout.shape} at {rate:g} is expected"
            )
    return pad(raws, layout, rate)


def pad(raws: Sequence[Raw | None], layout: Layout, rate: float) -> Stream:
    """One row a clip, as long as the longest; None is a clip without this input. The raws must fit the layout."""
    length = max((len(raw.mask) for raw in raws if raw is not None), default=1)
    data = np.zeros((len(raws), length, *layout.shape), dtype=layout.dtype)
    mask = np.zeros((len(raws), length), dtype=bool)
    for row, raw in enumerate(raws):
        if raw is not None:
            data[row, : len(raw.mask)] = raw.data
            mask[row, : len(raw.mask)] = raw.mask
    return Stream(torch.from_numpy(data), torch.from_numpy(mask), rate)


def _stacked(rows: Sequence[np.ndarray | None]) -> Tensor | None:
    there = [row for row in rows if row is not None]
    return torch.from_numpy(np.stack(there)) if there else None


def _sources(rows: Sequence[np.ndarray | None]) -> Tensor | None:
    """(B, S, N): silence beyond the end of a shorter mixture."""
    there = [row for row in rows if row is not None]
    length = max((row.shape[1] for row in there), default=0)
    lacking = [length - row.shape[1] for row in there]
    return _stacked([np.pad(row, ((0, 0), (0, num))) if num else row for row, num in zip(there, lacking, strict=True)])


def _activity(rows: Sequence[np.ndarray | None]) -> Tensor | None:
    """(B, S, C): seconds beyond the end of a clip are unknown (NaN)."""
    there = [row for row in rows if row is not None]
    if not there:
        return None
    activity = np.full((len(there), max(len(row) for row in there), there[0].shape[1]), np.nan, dtype=np.float32)
    for number, row in enumerate(there):
        activity[number, : len(row)] = row
    return torch.from_numpy(activity)


def _words(examples: Sequence[Example]) -> tuple[Tensor | None, Tensor | None]:
    """(B, K, L) words and their mask; K >= 1 and L >= 2 also when no clip has a caption."""
    if examples[0].words is None:
        return None, None
    captions = [example.words or () for example in examples]
    num = max(1, *(len(row) for row in captions))
    length = max(2, *(len(caption) for row in captions for caption in row)) if any(captions) else 2
    words = np.zeros((len(captions), num, length), dtype=np.int64)
    mask = np.zeros(words.shape, dtype=bool)
    for row, own in enumerate(captions):
        for column, caption in enumerate(own):
            words[row, column, : len(caption)] = caption
            mask[row, column, : len(caption)] = True
    return torch.from_numpy(words), torch.from_numpy(mask)
