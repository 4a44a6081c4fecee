"""Sound event detection: events from class probabilities, and their segment-based and event-based figures.

Conventions, those of sed_eval (Mesaros, Heittola, Virtanen 2016, "Metrics for Polyphonic Sound Event Detection"). An
event is (file, onset, offset, label), times in seconds; events of two files never meet. Figures are counted over all
files and classes and then divided (`f1_micro`, `error_rate`), or divided for each class and then averaged (`f1_macro`,
`error_rate_macro`). F1, precision, recall and accuracy lie in [0, 1]; error rates are errors / reference entries and
may exceed 1. Nothing is multiplied by 100.

    segment-based  a class is active in a segment that any of its events touches. In every segment, over the classes:
                   substitutions min(Nref, Nsys) - Ntp, deletions max(0, Nref - Nsys), insertions max(0, Nsys - Nref)
    event-based    an estimate is right when its label is, its onset lies within the collar, and its offset within
                   max(collar, share of the reference's length). An estimate that fits in time but not in label is a
                   substitution; what is left of the references is deleted, what is left of the estimates inserted
    one class      has no substitutions: its error rate is (false negatives + false positives) / references

Each event is matched at most once, and as many as possible. Substitutions are counted as sed_eval does: each reference
that is left takes the first estimate left that fits. Where several fit, which events are left, and so the error rate,
may depend on the order of the lists; F1, precision and recall do not.

A figure that divides by nothing is None, and left out of the mean over classes, as sed_eval leaves out its NaN: a class
that is never estimated has no precision and hence no F1. With `zero_score` its precision and F1 are 0 (sed_eval's
empty_system_output_handling="zero_score", usual in DCASE). Such classes are named in `never_estimated`. Where sed_eval
divides by a tiny number (error rates of a class without references) it is None here too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.ndimage import median_filter

from mmfusion.metrics.defined import mean_defined
from mmfusion.metrics.matching import largest_matching
from mmfusion.seconds import touched
from mmfusion.types import InputError


class Event(NamedTuple):
    """A sound of class `label` from `onset_s` to `offset_s` on the clock of `file` ("" where there is only one)."""

    file: str
    onset_s: float
    offset_s: float
    label: str


class Counts(NamedTuple):
    """Entries (segments or events) of the reference, of the estimate and right ones, and the three kinds of errors."""

    num_reference: int
    num_estimated: int
    num_right: int
    num_substituted: int
    num_deleted: int
    num_inserted: int


def events_of(
    probabilities: Any,
    rate: float,
    names: Sequence[str],
    thresholds: Any = 0.5,
    file: str = "",
    median_s: float = 0.0,
    min_gap_s: float = 0.0,
    min_length_s: float = 0.0,
) -> list[Event]:
    """The events in class probabilities (T, C), where step t lasts from t / rate to (t + 1) / rate seconds.

    A class is active in the steps with a probability of at least its threshold (one for all, or (C,)). The decisions
    are smoothed by a median filter of `median_s` (an even number of steps is made odd by one more), then gaps shorter
    than `min_gap_s` are closed, then events shorter than `min_length_s` are dropped; 0 leaves either out. Sorted by
    class and onset. Raises InputError when shapes do not fit or a probability is not finite.
    """
    values = np.asarray(probabilities, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(names):
        raise InputError(
            f"events: probabilities {values.shape} do not have one column for each of {len(names)} classes"
        )
    if not np.isfinite(values).all():
        raise InputError("events: a probability is not a finite number, the model has probably diverged")
    if rate <= 0:
        raise InputError(f"events: the rate must be above 0 steps a second, got {rate:g}")
    active = values >= np.broadcast_to(np.asarray(thresholds, dtype=np.float64), (len(names),))
    num_steps = 2 * (round(median_s * rate) // 2) + 1
    if num_steps > 1 and len(active):
        active = median_filter(active.astype(np.uint8), size=(num_steps, 1), mode="nearest").astype(bool)
    events = []
    for column, name in enumerate(names):
        for first, end in _runs(active[:, column], _steps(min_gap_s, rate), _steps(min_length_s, rate)):
            events.append(Event(file, first / rate, end / rate, name))
    return events


def segment_metrics(
    references: Iterable[Event],
    estimates: Iterable[Event],
    resolution_s: float = 1.0,
    lengths_s: Mapping[str, float] | None = None,
    labels: Sequence[str] | None = None,
    zero_score: bool = False,
) -> dict[str, Any]:
    """Segment-based figures, ready for JSON; `labels` default to all that occur, sorted.

    A file is evaluated up to the last offset in either list, or for its length in `lengths_s`, which then must name
    every file (files without events count as well, what lies behind the end does not). Returns f1, precision, recall
    (each _micro and _macro), error_rate, deletion_rate, insertion_rate (also _macro), substitution_rate, sensitivity,
    specificity, balanced_accuracy, accuracy (over all cells, and _macro), num_reference, num_estimated,
    never_estimated, resolution_s, and per_class {name: figures}. Raises InputError when an event has no real time span
    or a label that is not in `labels`, or its file no length.
    """
    if not resolution_s > 0:
        raise InputError(f"events: the segment length must be above 0 s, got {resolution_s:g}")
    names, files = paired(references, estimates, labels)
    column = {name: position for position, name in enumerate(names)}
    ends_s = _given_lengths(files, lengths_s) if lengths_s is not None else _last_offsets(files)
    # Rows: in the reference and estimated, estimated only, in the reference only, neither.
    cells = np.zeros((4, len(names)), dtype=np.int64)
    errors = np.zeros(3, dtype=np.int64)
    for file, end_s in ends_s.items():
        num_segments = math.ceil(end_s / resolution_s)
        truth, said = (roll(events, column, num_segments, resolution_s) for events in files.get(file, ((), ())))
        cells += np.stack([part.sum(axis=0) for part in (truth & said, said & ~truth, truth & ~said, ~(truth | said))])
        errors += _segment_errors(truth, said)
    per_class = [Counts(tp + fn, tp + fp, tp, 0, fn, fp) for tp, fp, fn, _ in cells.T.tolist()]
    tp, fp, fn, _ = cells.sum(axis=1).tolist()
    result = _figures(names, per_class, Counts(tp + fn, tp + fp, tp, *errors.tolist()), zero_score)
    for name, parts in zip(names, cells.T, strict=True):
        result["per_class"][name].update(_accuracies(parts))
    for name, value in _accuracies(cells.sum(axis=1)).items():
        result[name] = value
        result[f"{name}_macro"] = mean_defined(figures[name] for figures in result["per_class"].values())
    return {**result, "resolution_s": float(resolution_s)}


def event_metrics(
    references: Iterable[Event],
    estimates: Iterable[Event],
    collar_s: float = 0.2,
    offset_share: float = 0.5,
    labels: Sequence[str] | None = None,
    onset: bool = True,
    offset: bool = True,
    zero_score: bool = False,
) -> dict[str, Any]:
    """Event-based figures, ready for JSON; `onset` and `offset` say which of the two must fit.

    The collar is in seconds, `offset_share` a share of the reference's length in [0, 1]. Returns what
    `segment_metrics` does but for sensitivity to accuracy, and collar_s and offset_share. Raises InputError likewise.
    """
    if not collar_s > 0 or not 0 <= offset_share <= 1 or not (onset or offset):
        raise InputError("events: the collar must be above 0 s, the share in [0, 1], and onset or offset compared")
    names, files = paired(references, estimates, labels)
    column = {name: position for position, name in enumerate(names)}
    num_true, num_said, num_right = np.zeros((3, len(names)), dtype=np.int64)
    num_substituted = 0
    for truth, said in files.values():
        fits = _fitting(truth, said, collar_s, offset_share, onset, offset)
        classes = [np.array([column[event.label] for event in events], dtype=np.int64) for events in (truth, said)]
        same = classes[0][:, None] == classes[1][None, :]
        pairs = largest_matching(fits & same)
        num_substituted += _substitutions(fits, pairs)
        np.add.at(num_right, classes[0][list(pairs)], 1)
        np.add.at(num_true, classes[0], 1)
        np.add.at(num_said, classes[1], 1)
    per_class = [
        Counts(ref, sys, tp, 0, ref - tp, sys - tp)
        for ref, sys, tp in zip(num_true.tolist(), num_said.tolist(), num_right.tolist(), strict=True)
    ]
    ref, sys, tp = (int(part.sum()) for part in (num_true, num_said, num_right))
    together = Counts(ref, sys, tp, num_substituted, ref - tp - num_substituted, sys - tp - num_substituted)
    result = _figures(names, per_class, together, zero_score)
    return {**result, "collar_s": float(collar_s), "offset_share": float(offset_share) if offset else None}


def _figures(names: Sequence[str], per_class: Sequence[Counts], together: Counts, zero_score: bool) -> dict[str, Any]:
    """What both kinds of figures share; see `segment_metrics`."""
    table = {name: _rates(counts, zero_score) for name, counts in zip(names, per_class, strict=True)}
    for figures in table.values():
        del figures["substitution_rate"]
    overall = _rates(together, zero_score)
    shared = ("f1", "precision", "recall")
    rates = ("error_rate", "deletion_rate", "insertion_rate")
    return {
        **{f"{name}_micro": overall[name] for name in shared},
        **{name: overall[name] for name in (*rates, "substitution_rate")},
        **{f"{name}_macro": mean_defined(figures[name] for figures in table.values()) for name in (*shared, *rates)},
        "num_reference": together.num_reference,
        "num_estimated": together.num_estimated,
        "never_estimated": [name for name, row in table.items() if row["num_reference"] and not row["num_estimated"]],
        "per_class": table,
    }


def _rates(counts: Counts, zero_score: bool) -> dict[str, Any]:
    total, said, right = counts.num_reference, counts.num_estimated, counts.num_right
    precision = right / said if said else 0.0 if zero_score else None
    recall = right / total if total else None
    return {
        "num_reference": total,
        "num_estimated": said,
        "f1": None if precision is None or recall is None else 2 * right / (total + said),
        "precision": precision,
        "recall": recall,
        "error_rate": (counts.num_substituted + counts.num_deleted + counts.num_inserted) / total if total else None,
        "substitution_rate": counts.num_substituted / total if total else None,
        "deletion_rate": counts.num_deleted / total if total else None,
        "insertion_rate": counts.num_inserted / total if total else None,
    }


def _segment_errors(truth: np.ndarray, said: np.ndarray) -> list[int]:
    """Substitutions, deletions and insertions over the segments of rolls (segments, classes)."""
    num_true, num_said, num_right = (part.sum(axis=1) for part in (truth, said, truth & said))
    surplus = num_said - num_true
    substituted = np.minimum(num_true, num_said) - num_right
    return [int(part.sum()) for part in (substituted, np.maximum(-surplus, 0), np.maximum(surplus, 0))]


def _accuracies(cells: np.ndarray) -> dict[str, float | None]:
    """Of the counts of right, false, missed and rightly silent cells."""
    tp, fp, fn, tn = cells.tolist()
    sensitivity = tp / (tp + fn) if tp + fn else None
    specificity = tn / (tn + fp) if tn + fp else None
    both = None if sensitivity is None or specificity is None else (sensitivity + specificity) / 2
    accuracy = (tp + tn) / (tp + fp + fn + tn) if tp + fp + fn + tn else None
    return {"sensitivity": sensitivity, "specificity": specificity, "balanced_accuracy": both, "accuracy": accuracy}


def _substitutions(fits: np.ndarray, pairs: Mapping[int, int]) -> int:
    """How many references (rows) without a right estimate find one, each for itself, that fits in time at least."""
    left = fits.copy()
    left[list(pairs)] = False
    left[:, list(pairs.values())] = False
    num_found = 0
    for row in left:
        if row.any():
            left[:, row.argmax()] = False
            num_found += 1
    return num_found


def _fitting(
    truth: Sequence[Event], said: Sequence[Event], collar_s: float, share: float, onset: bool, offset: bool
) -> np.ndarray:
    """Which estimates (columns) fit which references (rows) in time."""
    true_s, said_s = (
        np.array([event[1:3] for event in events], dtype=np.float64).reshape(-1, 2) for events in (truth, said)
    )
    away_s = np.abs(true_s[:, None] - said_s[None])
    within = np.ones(away_s.shape[:2], dtype=bool)
    if onset:
        within &= away_s[..., 0] <= collar_s
    if offset:
        within &= away_s[..., 1] <= np.maximum(collar_s, share * (true_s[:, 1] - true_s[:, 0]))[:, None]
    return within


def roll(events: Iterable[Event], column: Mapping[str, int], num_segments: int, resolution_s: float) -> np.ndarray:
    """Activity (segments, classes) bool, `column` being those of the classes; the last segment cuts off the rest."""
    active = np.zeros((num_segments, len(column)), dtype=bool)
    for event in events:
        active[touched(event.onset_s, event.offset_s, resolution_s), column[event.label]] = True
    return active


def paired(
    references: Iterable[Event], estimates: Iterable[Event], labels: Sequence[str] | None = None
) -> tuple[list[str], dict[str, tuple[list[Event], list[Event]]]]:
    """The labels (all that occur, sorted, where none are given), and for each file its references and estimates.

    Raises InputError for an event without a real time span, a label that is not among those given, and for nothing.
    """
    files: dict[str, tuple[list[Event], list[Event]]] = {}
    for side, events in enumerate((references, estimates)):
        for event in events:
            if not 0 <= event.onset_s <= event.offset_s < math.inf:
                raise InputError(
                    f"events: {event.file or 'file'}: {event.label} must have 0 <= onset <= offset, "
                    f"got {event.onset_s} to {event.offset_s}"
                )
            if labels is not None and event.label not in labels:
                raise InputError(f"events: label {event.label} is none of the {len(labels)} labels to evaluate")
            files.setdefault(event.file, ([], []))[side].append(event)
    if labels is None:
        labels = sorted({event.label for pair in files.values() for events in pair for event in events})
    if not labels:
        raise InputError("events: there are no events and no labels, so there is nothing to score")
    return list(labels), files


def _last_offsets(files: Mapping[str, tuple[list[Event], list[Event]]]) -> dict[str, float]:
    return {file: max(event.offset_s for event in (*truth, *said)) for file, (truth, said) in files.items()}


def _given_lengths(files: Iterable[str], lengths_s: Mapping[str, float]) -> dict[str, float]:
    missing = sorted(set(files) - set(lengths_s))
    if missing:
        raise InputError(f"events: file {missing[0]} has events but no length ({len(missing)} such files)")
    return dict(lengths_s)


def _steps(seconds: float, rate: float) -> int:
    """The smallest number of steps that is not shorter than `seconds`."""
    return math.ceil(seconds * rate - 1e-6)


def _runs(active: np.ndarray, min_gap: int, min_length: int) -> list[tuple[int, int]]:
    """First step and end of each run of True, after short gaps are closed and short runs dropped."""
    edges = np.flatnonzero(np.diff(active.astype(np.int8), prepend=0, append=0))
    runs: list[tuple[int, int]] = []
    for first, end in edges.reshape(-1, 2).tolist():
        if runs and first - runs[-1][1] < min_gap:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((first, end))
    return [(first, end) for first, end in runs if end - first >= min_length]
