"""Metrics of event labels: mAP, ROC-AUC, d-prime, EER, F1, accuracy, over all classes and per class; by scikit-learn.

Conventions. `reference` (N, C) is positive where it is at least 0.5; `scores` (N, C) are probabilities; `mask` (N, C)
is True where the truth is known: an unknown entry is not a negative, and counts nowhere. All figures are in [0, 1],
d-prime in standard deviations. Nothing is multiplied by 100.

    map        mean over classes of average precision, sum_k (R_k - R_{k-1}) P_k, without interpolation
    roc_auc    mean over classes of the area under the ROC curve, one class against the rest
    d_prime    sqrt(2) Phi^-1(roc_auc), from the mean area (as for AudioSet: Gemmeke 2017); None where it is infinite
    eer_macro  mean over classes of the equal error rate: the share of negatives above and of positives below the
               threshold where the two are equal, on the ROC curve joined by straight lines (as for DCASE 2016 task 4);
               eer_micro: that of all known entries together, at one threshold for all classes
    f1_micro   F1 of all known entries together; f1_macro: mean over classes of the class's F1
    accuracy   multi: share of the known entries that are decided right (1 - Hamming loss)
               single: share of the clips whose class of highest score is the true one

Decisions are score >= 0.5, or the class's own threshold where `thresholds` are given, for "multi", and the class of
highest score (the first of equals) for "single", for which a clip counts only when all its classes are known. Classes
that have no positive among the known entries have no average precision, F1, area or EER; classes without negatives
have no area and no EER. Both are left out of the macro means and named in `without_positives` and `without_negatives`.
A figure that no class has is None.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.stats import norm
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score, roc_curve

from mmfusion.metrics.defined import finite, mean_defined
from mmfusion.types import THRESHOLD, InputError

Target = Literal["multi", "single"]


@dataclass(frozen=True)
class LabelTable:
    """Checked arrays (N, C): `reference` bool, `scores` float64, `mask` bool (False where unknown)."""

    reference: np.ndarray
    scores: np.ndarray
    mask: np.ndarray


def label_metrics(
    reference: Any,
    scores: Any,
    names: Sequence[str],
    mask: Any = None,
    target: Target = "multi",
    thresholds: Any = None,
) -> dict[str, Any]:
    """All figures of the file's head, ready for JSON; `names` are the C class names in the order of the columns.

    `thresholds` (C,) stand for the 0.5 of every class ("multi" only). Returns map, roc_auc, d_prime, eer_macro,
    eer_micro, f1_micro, f1_macro, accuracy, num_clips (with at least one known entry), num_known (entries), target,
    without_positives, without_negatives, scorer, and per_class {name: {num_positives, num_known, average_precision,
    roc_auc, d_prime, eer, precision, recall, f1, accuracy, threshold if given}}. Raises InputError when shapes differ,
    a known score or a threshold is not finite, nothing is known, or a "single" clip has not exactly one class.
    """
    table = label_table(reference, scores, mask, target)
    if len(names) != table.reference.shape[1] or len(set(names)) != len(names):
        raise InputError(f"labels: {len(names)} class names do not fit {table.reference.shape[1]} columns one to one")
    if not table.mask.any():
        raise InputError("labels: no clip has a known label, so there is nothing to score")
    decided = decide(table, target, thresholds)
    per_class = {name: _class_figures(table, decided, column, target) for column, name in enumerate(names)}
    if thresholds is not None:
        for name, threshold in zip(names, thresholds, strict=True):
            per_class[name]["threshold"] = float(threshold)
    area = mean_defined(figures["roc_auc"] for figures in per_class.values())
    return {
        "map": mean_defined(figures["average_precision"] for figures in per_class.values()),
        "roc_auc": area,
        "d_prime": finite(d_prime(area)) if area is not None else None,
        "eer_macro": mean_defined(figures["eer"] for figures in per_class.values()),
        "eer_micro": equal_error_rate(table.reference[table.mask], table.scores[table.mask]),
        "f1_micro": _f1_micro(table, decided),
        "f1_macro": mean_defined(figures["f1"] for figures in per_class.values()),
        "accuracy": _accuracy(table, decided, target),
        "num_clips": int(table.mask.any(axis=1).sum()),
        "num_known": int(table.mask.sum()),
        "without_positives": [name for name, figures in per_class.items() if not figures["num_positives"]],
        "without_negatives": [name for name, row in per_class.items() if 0 < row["num_known"] == row["num_positives"]],
        "target": target,
        "scorer": _scorer(),
        "per_class": per_class,
    }


def d_prime(roc_auc: float) -> float:
    """sqrt(2) Phi^-1(area), in standard deviations; infinite for an area of 0 or 1."""
    return float(math.sqrt(2) * norm.ppf(roc_auc))


def equal_error_rate(reference: np.ndarray, scores: np.ndarray) -> float | None:
    """The error rate in [0, 1] at which as large a share of the positives is missed as of the negatives is taken.

    `reference` (N,) bool, `scores` (N,); None without positives or without negatives. Between two thresholds the ROC
    curve is a straight line, as in sed_eval.
    """
    if reference.all() or not reference.any():
        return None
    false_share, found_share, _ = roc_curve(reference, scores)
    return float(np.interp(0.0, false_share + found_share - 1.0, false_share))


def label_table(reference: Any, scores: Any, mask: Any = None, target: Target = "multi") -> LabelTable:
    """Checked arrays from anything array-like (N, C); raises InputError as `label_metrics` does."""
    truth = np.asarray(reference, dtype=np.float64)
    values = np.asarray(scores, dtype=np.float64)
    known = np.ones(truth.shape, dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    if truth.ndim != 2 or truth.shape != values.shape or truth.shape != known.shape:
        shapes = f"reference {truth.shape}, scores {values.shape}, mask {known.shape}"
        raise InputError(f"labels: {shapes} must all be the same (N, C)")
    if target == "single":
        known = np.broadcast_to(known.all(axis=1, keepdims=True), known.shape)
    if not np.isfinite(values[known]).all():
        raise InputError("labels: a score is not a finite number, the model has probably diverged")
    if not np.isfinite(truth[known]).all():
        raise InputError("labels: a reference that is marked as known is not a finite number")
    positive = np.where(known, truth, 0.0) >= THRESHOLD
    if target == "single" and not (positive.sum(axis=1)[known.all(axis=1)] == 1).all():
        raise InputError('labels: with target "single" every clip must have exactly one class')
    # What stands in an unknown place must not matter, not even as the highest score.
    return LabelTable(positive, np.where(known, values, 0.0), known)


def decide(table: LabelTable, target: Target, thresholds: Any = None) -> np.ndarray:
    """The decisions (N, C) bool: score >= 0.5 (or the class's of `thresholds` (C,)) each, or one class a clip."""
    if thresholds is not None:
        limits = np.asarray(thresholds, dtype=np.float64)
        if target == "single":
            raise InputError('labels: with target "single" the class of highest score is taken: it has no thresholds')
        if limits.shape != table.scores.shape[1:] or not np.isfinite(limits).all():
            raise InputError(f"labels: thresholds must be {table.scores.shape[1]} finite numbers, one a class")
        return table.scores >= limits
    if target == "multi":
        return table.scores >= THRESHOLD
    decided = np.zeros(table.scores.shape, dtype=bool)
    decided[np.arange(len(decided)), table.scores.argmax(axis=1)] = True
    return decided


def _class_figures(table: LabelTable, decided: np.ndarray, column: int, target: Target) -> dict[str, Any]:
    known = table.mask[:, column]
    truth, scores, said = table.reference[known, column], table.scores[known, column], decided[known, column]
    num_positives, num_known = int(truth.sum()), len(truth)
    figures: dict[str, Any] = {"num_positives": num_positives, "num_known": num_known}
    figures.update(
        dict.fromkeys(("average_precision", "roc_auc", "d_prime", "eer", "precision", "recall", "f1", "accuracy"))
    )
    if num_positives:
        figures.update(zip(("precision", "recall", "f1"), _precision_recall_f1(truth, said), strict=True))
        figures["average_precision"] = float(average_precision_score(truth, scores))
        if num_positives < num_known:
            figures["roc_auc"] = float(roc_auc_score(truth, scores))
            figures["d_prime"] = finite(d_prime(figures["roc_auc"]))
            figures["eer"] = equal_error_rate(truth, scores)
    if target == "single":
        figures["accuracy"] = figures["recall"]
    elif num_known:
        figures["accuracy"] = float((said == truth).mean())
    return figures


def _f1_micro(table: LabelTable, decided: np.ndarray) -> float | None:
    truth, said = table.reference[table.mask], decided[table.mask]
    if not (truth | said).any():
        return None
    return _precision_recall_f1(truth, said)[2]


def _precision_recall_f1(truth: np.ndarray, said: np.ndarray) -> tuple[float, float, float]:
    """All 0 where nothing was said."""
    # scikit-learn takes a number here; the type that pyright infers from the default is too narrow.
    found = precision_recall_fscore_support(truth, said, average="binary", zero_division=0)  # pyright: ignore
    return float(found[0]), float(found[1]), float(found[2])


def _accuracy(table: LabelTable, decided: np.ndarray, target: Target) -> float:
    if target == "multi":
        return float((decided == table.reference)[table.mask].mean())
    clips = table.mask.all(axis=1)
    return float((decided & table.reference)[clips].any(axis=1).mean())


def _scorer() -> str:
    from sklearn import __version__

    return f"scikit-learn {__version__}"
