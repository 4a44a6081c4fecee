"""Long clips in windows: where the windows lie, what is read of them, and how their answers become one.

Window k covers [k * hop_s, k * hop_s + length_s) seconds of the clip. The last one ends where the clip does; a rest
that is shorter than a tenth of a window belongs to the window before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from mmfusion.config import configclass
from mmfusion.data.clips import ClipCache
from mmfusion.data.inputs import InputConfig
from mmfusion.data.raw import Layout, Raw
from mmfusion.types import Clip, InputError

Aggregate = Literal["mean", "max", "han2016"]
_TAIL = 0.1


@configclass
class WindowsConfig:
    """How clips that are longer than the training's are evaluated and predicted: window by window, with one answer."""

    length_s: float = Field(gt=0)
    """length of a window; best that of the training's clips (`data.max_duration_s`), which does not cut them then"""
    hop_s: float | None = Field(default=None, gt=0)
    """from the beginning of one window to that of the next, at most length_s; null for no overlap"""
    aggregate: Aggregate = "mean"
    """mean or maximum of the windows' probabilities, or their sum divided by that of the highest class (han2016)"""
    max_duration_s: float = Field(default=600.0, gt=0)
    """an evaluation reads only this much from the start of each clip"""

    @model_validator(mode="after")
    def _no_gaps(self) -> Any:
        if self.hop_s is not None and self.hop_s > self.length_s:
            raise ValueError(f"hop_s {self.hop_s:g} leaves gaps between windows of length_s {self.length_s:g}")
        return self


def spans(length_s: float | None, window_s: float, hop_s: float | None = None) -> Iterator[tuple[float, float]]:
    """(start_s, end_s) of the windows of what is `length_s` long, without end where that is None.

    InputError when the windows have no length, would leave gaps or would not move.
    """
    hop_s = window_s if hop_s is None else hop_s
    if not 0 < hop_s <= window_s:
        raise InputError(f"windows of {window_s:g} s every {hop_s:g} s: need 0 < hop <= length")
    for number in count():
        start_s = number * hop_s
        end_s = start_s + window_s
        if length_s is None:
            yield start_s, end_s
        elif length_s - end_s < _TAIL * window_s:
            yield start_s, length_s if length_s > start_s else end_s
            return
        else:
            yield start_s, end_s


def aggregate(chances: np.ndarray, how: Aggregate) -> np.ndarray:
    """The probabilities (W, C) of W windows as one row (C,).

    han2016: the sum over the windows, divided by the largest of the C sums, so that the likeliest class has 1: the
    "instrument-wise sum followed by normalization" of Han, Kim, Lee 2016, "Deep convolutional neural networks for
    predominant instrument recognition in polyphonic music". Those are scores, no probabilities.
    """
    if how == "max":
        return chances.max(axis=0)
    if how == "mean":
        return chances.mean(axis=0)
    total = chances.sum(axis=0)
    highest = total.max(initial=0.0)
    return total / highest if highest > 0 else total


class WindowReader:
    """A `ClipReader` of the windows of clips that a cache holds whole.

    `windows` {clip id: its windows} are clips of their own, of which nothing is known but where they lie; those in
    which no input has anything real are left out.
    """

    def __init__(self, cache: ClipCache, clips: Iterable[Clip], config: WindowsConfig) -> None:
        self.cache = cache
        self.windows: dict[str, tuple[Clip, ...]] = {}
        self._owners: dict[str, Clip] = {}
        for clip in clips:
            self.windows[clip.id] = tuple(self._cut(clip, config))
            self._owners |= dict.fromkeys((window.id for window in self.windows[clip.id]), clip)

    @property
    def inputs(self) -> Mapping[str, InputConfig]:
        return self.cache.inputs

    @property
    def layouts(self) -> Mapping[str, Layout]:
        return self.cache.layouts

    def load(self, clip: Clip) -> dict[str, Raw]:
        """The inputs of a window, without those that it does not have. The arrays are read-only."""
        whole = self.cache.load(self._owners[clip.id])
        parts = {name: part_of(raw, clip.start_s, clip.end_s or 0.0) for name, raw in whole.items()}
        return {name: part.trimmed() for name, part in parts.items() if part.mask.any()}

    def _cut(self, clip: Clip, config: WindowsConfig) -> Iterator[Clip]:
        found = self.cache.load(clip).values()
        whole = [raw for raw in found if len(raw.mask) > 1] or list(found)  # a still picture alone makes no windows
        length_s = max(len(raw.mask) / raw.rate for raw in whole)
        bare = replace(clip, labels=None, relevances=None, captions=(), sources=())
        for number, (start_s, end_s) in enumerate(spans(length_s, config.length_s, config.hop_s)):
            if any(part_of(raw, start_s, end_s).mask.any() for raw in whole):
                yield replace(bare, id=f"{clip.id} window {number}", start_s=start_s, end_s=end_s)


def part_of(raw: Raw, start_s: float, end_s: float) -> Raw:
    """The steps that a stretch of time reaches into; a single step (a still picture) is there all the time."""
    if len(raw.mask) <= 1:
        return raw
    # 1e-6 steps keep 0.3 * 10 from becoming step 2.
    first, last = int(start_s * raw.rate + 1e-6), int(np.ceil(end_s * raw.rate - 1e-6))
    return replace(raw, data=raw.data[first:last], mask=raw.mask[first:last])
