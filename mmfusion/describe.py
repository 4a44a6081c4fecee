"""What a model says of clips: probabilities of every label head, activity second by second, sentences.

What it says of the windows of a clip is joined here too: probabilities by `data.windows.aggregate`, the activity of a
second as the mean probability over every step, of every window, each by the share of the second that it covers (label
heads learn the mean of the logits, by the same shares).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mmfusion.data.windows import Aggregate, aggregate
from mmfusion.language.search import SearchConfig, search
from mmfusion.language.vocab import Vocabulary
from mmfusion.model import FusionModel
from mmfusion.seconds import second_shares
from mmfusion.types import Batch, Clip, Decision, Output, Stream

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Activity:
    """Probabilities of the classes in whole seconds of a clip from second `first` on, over the real steps of each.

    `sums` (S, C) float64 are of the steps' probabilities by the seconds that they cover, `covered` (S,) is how much of
    each second they cover: what several windows add up. In the last of the clip's `num_seconds` its last step begins.
    """

    first: int
    sums: np.ndarray
    covered: np.ndarray
    num_seconds: int

    def means(self) -> np.ndarray:
        """(num_seconds, C): the mean probabilities of every second of the clip; 0 where no step is real."""
        known = np.where(self.covered > 1e-6, self.covered, np.inf)[:, None]
        return np.concatenate([np.zeros((self.first, self.sums.shape[1])), self.sums / known])[: self.num_seconds]


@dataclass(frozen=True, eq=False)
class Said:
    """What is said of one clip or window: `chances` (C,) float64 by label head, `captions` by caption head, figures of
    separated `sources` by separation head.
    """

    chances: Mapping[str, np.ndarray] = field(default_factory=dict)
    captions: Mapping[str, str] = field(default_factory=dict)
    activity: Activity | None = None
    sources: Row = field(default_factory=dict)

    def row(self, labels: Sequence[str]) -> Row:
        """As JSON values; `labels` are the names of the C classes."""
        found: Row = {name: named(labels, chances) for name, chances in self.chances.items()}
        if self.activity is not None:
            columns = self.activity.means().T.tolist()
            seconds = ([round(chance, 4) for chance in column] for column in columns)
            found["activity"] = dict(zip(labels, seconds, strict=True))
        return found | dict(self.captions) | self.sources


def named(labels: Sequence[str], chances: np.ndarray) -> dict[str, float]:
    """{class: probability}, to nine digits: what tells float32 numbers apart."""
    return {label: float(f"{chance:.9g}") for label, chance in zip(labels, chances.tolist(), strict=True)}


def describe(model: FusionModel, fused: dict[str, Stream], outputs: dict[str, Decision], batch: Batch,
             vocabulary: Vocabulary | None, how: SearchConfig | None, starts_s: Sequence[float] | None = None
             ) -> list[Said]:  # fmt: skip
    """What is said of each clip of the batch; sentences when a search is given.

    `starts_s` are where the batch's windows begin in their clips, in seconds (0 for whole clips).
    """
    steppers = model.steppers
    starts_s = [0.0] * len(batch.ids) if starts_s is None else starts_s
    chances: dict[str, np.ndarray] = {}
    activity: list[Activity] | None = None
    for name, output in outputs.items():
        if name not in steppers and isinstance(output, Output):
            chances[name] = output.log_probs().exp().double().cpu().numpy()
            activity = activity if output.steps is None else _by_second(output.steps, output, starts_s)
    captions: dict[str, list[str]] = {}
    if how is not None and vocabulary is not None:
        for name, stepper in steppers.items():
            captions[name] = [vocabulary.decode(best[0].words) for best in search(stepper, fused, how)]
    return [
        Said({name: rows[index] for name, rows in chances.items()},
             {name: told[index] for name, told in captions.items()},
             None if activity is None else activity[index])
        for index in range(len(batch.ids))
    ]  # fmt: skip


def join_windows(windows: Sequence[Said], how: Aggregate) -> Said:
    """One answer of at least one window of a clip, in order; captions are left out."""
    chances = {
        name: aggregate(np.stack([window.chances[name] for window in windows]), how) for name in windows[0].chances
    }
    return Said(chances, activity=_joined([window.activity for window in windows if window.activity is not None]))


def window_rows(parts: Sequence[tuple[Clip, Said]], labels: Sequence[str]) -> list[Row]:
    """What is said of each window of a clip, as JSON values: from where to where it reaches, and every label head's
    probabilities."""
    return [
        {"start_s": round(window.start_s, 6), "end_s": round(window.end_s or 0.0, 6)}
        | {name: named(labels, chances) for name, chances in said.chances.items()}
        for window, said in parts
    ]


def _by_second(steps: Stream, output: Output, starts_s: Sequence[float]) -> list[Activity]:
    """A step counts in every second by the share of it that it covers; up to the last real step."""
    chances = Output(steps.data, output.family).log_probs().exp().double().cpu().numpy()
    masks = steps.mask.cpu().numpy()
    at_s = np.arange(masks.shape[1]) / steps.rate
    found = []
    for values, mask, start_s in zip(chances, masks, starts_s, strict=True):
        begin, first = start_s + at_s[mask], int(start_s + 1e-6)
        end = begin + 1 / steps.rate
        num_seconds = math.ceil(end[-1] - 1e-6) - first if len(end) else 0
        share = second_shares(torch.from_numpy(begin), steps.rate, first, num_seconds).numpy()
        last = math.floor(begin[-1] + 1e-6) + 1 if len(begin) else first
        found.append(Activity(first, share @ values[mask], share.sum(axis=1), last))
    return found


def _joined(parts: Sequence[Activity]) -> Activity | None:
    if not parts:
        return None
    num_seconds = max(part.first + len(part.sums) for part in parts)
    sums, covered = np.zeros((num_seconds, parts[0].sums.shape[1])), np.zeros(num_seconds)
    for part in parts:
        place = slice(part.first, part.first + len(part.sums))
        sums[place] += part.sums
        covered[place] += part.covered
    return Activity(0, sums, covered, max(part.num_seconds for part in parts))


def mean_chances(labels: Sequence[str], activity: Mapping[str, Sequence[float]]) -> np.ndarray:
    """(S, C): the `activity` of a row as an array, its columns in the order of `labels`."""
    return np.array([activity[label] for label in labels], dtype=float).T
