"""Sound event detection by intersection: F-scores without collars, and the Polyphonic Sound Detection Score (PSDS).

Conventions, those of psds_eval (Bilen et al. 2020, "A Framework for the Robust Evaluation of Sound Event Detection").
Times in seconds, rates in events an hour, everything else in [0, 1]; nothing is multiplied by 100.

    DTC  a detection is relevant when references of its class cover at least the share `dtc` of it (definition 2)
    GTC  a reference is found, a true positive, when relevant detections cover at least the share `gtc` of it
    FP   a detection that is not relevant is a false positive; one that is relevant, but finds nothing, is neither
    CTTC of those, one of which references of another class cover at least `cttc` is a cross-trigger on that class too

    F1   2 TP / (2 TP + FP + FN), for each class; f1_macro is the mean over the classes that have references
    PSDS area under the PSD-ROC up to `max_efpr`, divided by `max_efpr`. One curve a class joins its operating points
         as stairs: the best share found at up to so many effective false positives (FPR + alpha_ct * the mean rate of
         cross-triggers on the other classes, equation 6) an hour. The PSD-ROC is their mean over classes minus
         alpha_st times their standard deviation, not below 0 (equation 9).

psds_eval gives a class of which nothing is found no F-score and leaves it out of the mean; here it is 0. For alpha_ct
above 0, version 0.3 of psds_eval divides by the number of all classes; here, as in the paper, by that of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmfusion.metrics.defined import mean_defined, ratio
from mmfusion.metrics.events import Event, paired
from mmfusion.types import InputError

SECONDS_AN_HOUR = 3600.0


@dataclass(frozen=True)
class Criteria:
    """The least shares, in [0, 1], of a detection (dtc, cttc) or of a reference (gtc) that must be covered."""

    dtc: float = 0.5
    gtc: float = 0.5
    cttc: float = 0.3


@dataclass(frozen=True)
class OperatingPoint:
    """What a list of detections found, by class: counts (C,) and `cross_triggers` (C detected, C reference).

    `reference_s` (C,) is the summed length of the references in seconds, `total_s` that of all files, 0 if not given.
    """

    names: tuple[str, ...]
    num_found: np.ndarray
    num_reference: np.ndarray
    num_false: np.ndarray
    cross_triggers: np.ndarray
    reference_s: np.ndarray
    total_s: float

    @property
    def found_share(self) -> np.ndarray:
        """True positive ratio (C,), NaN for a class without references."""
        return ratio(self.num_found, self.num_reference)

    def false_rate(self, alpha_ct: float = 0.0) -> np.ndarray:
        """Effective false positives an hour (C,): equation 6."""
        rate = self.num_false * SECONDS_AN_HOUR / self.total_s
        crossed = ratio(
            self.cross_triggers * SECONDS_AN_HOUR, np.broadcast_to(self.reference_s, self.cross_triggers.shape)
        )
        known = (self.reference_s > 0) & ~np.eye(len(self.names), dtype=bool)
        return rate + alpha_ct * np.nan_to_num(ratio(np.where(known, crossed, 0.0).sum(axis=1), known.sum(axis=1)))


def operating_point(
    references: Iterable[Event],
    estimates: Iterable[Event],
    criteria: Criteria = Criteria(),
    lengths_s: Mapping[str, float] | None = None,
    names: Sequence[str] | None = None,
) -> OperatingPoint:
    """The counts of one list of detections; `names` default to all labels that occur, sorted.

    With `lengths_s` {file: seconds} a detection is a false positive only where it touches a file that is named there,
    as in psds_eval; without, everywhere. Raises InputError for an event without a real time span, and for nothing.
    """
    classes, files = paired(references, estimates, names)
    column = {name: position for position, name in enumerate(classes)}
    counts, crossed = np.zeros((4, len(classes))), np.zeros((len(classes), len(classes)), dtype=np.int64)
    for file, (truth, said) in files.items():
        end_s = np.inf if lengths_s is None else lengths_s.get(file, -1.0)
        own_counts, own_crossed = _count_file(truth, said, column, criteria, end_s)
        counts += own_counts
        crossed += own_crossed
    found, total, false = (part.astype(np.int64) for part in counts[:3])
    total_s = float(sum(lengths_s.values())) if lengths_s is not None else 0.0
    return OperatingPoint(tuple(classes), found, total, false, crossed, counts[3], total_s)


def intersection_metrics(
    references: Iterable[Event],
    estimates: Iterable[Event],
    criteria: Criteria = Criteria(),
    lengths_s: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """F1 by intersection, ready for JSON; arguments and errors as for `operating_point`.

    Returns f1_macro, f1_micro, the criteria, and per_class {name: {num_reference, num_found, num_false, f1}}; f1 is
    None for a class without references.
    """
    point = operating_point(references, estimates, criteria, lengths_s)
    rows = zip(
        point.names, point.num_reference.tolist(), point.num_found.tolist(), point.num_false.tolist(), strict=True
    )
    table = {
        name: {
            "num_reference": total,
            "num_found": found,
            "num_false": false,
            "f1": _f1(total, found, false) if total else None,
        }
        for name, total, found, false in rows
    }
    total, found, false = (int(part.sum()) for part in (point.num_reference, point.num_found, point.num_false))
    return {
        "f1_macro": mean_defined(row["f1"] for row in table.values()),
        "f1_micro": _f1(total, found, false) if total + false else None,
        "dtc": criteria.dtc,
        "gtc": criteria.gtc,
        "per_class": table,
    }


def psds(
    points: Sequence[OperatingPoint], alpha_ct: float = 0.0, alpha_st: float = 0.0, max_efpr: float = 100.0
) -> float | None:
    """The score in [0, 1] of a system by its operating points (one list of detections for each of several thresholds).

    Classes without references have no share to find and are left out; None where none has references. `max_efpr` is in
    effective false positives an hour. Raises InputError when the points are not of the same classes or know no lengths.
    """
    if not points or len({point.names for point in points}) != 1:
        raise InputError("psds: needs operating points, all of the same classes")
    if min(point.total_s for point in points) <= 0:
        raise InputError("psds: needs the lengths of the files, to say how often an hour something is wrong")
    shares = np.stack([point.found_share for point in points], axis=1)
    rates = np.stack([point.false_rate(alpha_ct) for point in points], axis=1)
    known = ~np.isnan(shares[:, 0])
    if not known.any():
        return None
    shares, rates = shares[known], rates[known]
    # A stair begins at every rate that any class has, and at 0 where nothing is found.
    starts = np.unique(np.append(rates[rates < max_efpr], 0.0))
    reached = rates[:, :, None] <= starts
    curves = np.where(reached, shares[:, :, None], 0.0).max(axis=1)
    joined = np.maximum(curves.mean(axis=0) - alpha_st * curves.std(axis=0), 0.0)
    return float((joined * np.diff(np.append(starts, max_efpr))).sum() / max_efpr)


def _count_file(
    truth: Sequence[Event], said: Sequence[Event], column: Mapping[str, int], criteria: Criteria, end_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Found, reference and false events and seconds of reference (4, C) of one file, and its cross-triggers (C, C)."""
    counts, crossed = np.zeros((4, len(column))), np.zeros((len(column), len(column)), dtype=np.int64)
    true_at, said_at = (np.array([column[event.label] for event in events], dtype=np.int64) for events in (truth, said))
    true_s, said_s = (np.array([e[1:3] for e in events], dtype=np.float64).reshape(-1, 2) for events in (truth, said))
    np.add.at(counts[1], true_at, 1)
    np.add.at(counts[3], true_at, true_s[:, 1] - true_s[:, 0])
    # Rows are detections, columns references; those that only touch are told apart from those that do not.
    shared_s = np.minimum(said_s[:, None, 1], true_s[None, :, 1]) - np.maximum(said_s[:, None, 0], true_s[None, :, 0])
    touching = shared_s >= 0
    shared_s = np.where(touching, shared_s, 0.0)
    same = touching & (said_at[:, None] == true_at[None])
    of_said = np.nan_to_num(ratio(shared_s, np.broadcast_to(np.diff(said_s), shared_s.shape)))
    of_true = np.nan_to_num(ratio(shared_s, np.broadcast_to(np.diff(true_s).T, shared_s.shape)))
    relevant = same.any(axis=1) & (np.where(same, of_said, 0.0).sum(axis=1) >= criteria.dtc)
    finding = same & relevant[:, None]
    found = finding.any(axis=0) & (np.where(finding, of_true, 0.0).sum(axis=0) >= criteria.gtc)
    np.add.at(counts[0], true_at[found], 1)
    np.add.at(counts[2], said_at[~relevant & (said_s[:, 0] <= end_s)], 1)
    for other in np.unique(true_at):
        on = touching & (true_at == other)[None] & ~relevant[:, None] & (said_at != other)[:, None]
        enough = on.any(axis=1) & (np.where(on, of_said, 0.0).sum(axis=1) >= criteria.cttc)
        np.add.at(crossed, (said_at[enough], other), 1)
    return counts, crossed


def _f1(total: int, found: int, false: int) -> float:
    return 2 * found / (found + total + false)
