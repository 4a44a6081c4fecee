"""How well scores order clips and classes by relevance, where relevances are known for some cells only (OpenMIC).

Conventions. `reference` (N, C) holds relevances, `scores` (N, C) any numbers of which more means more relevant, `mask`
(N, C) is True where the relevance is known; what stands elsewhere, NaN too, counts nowhere (OpenMIC fills unknown cells
with 0.5). Nothing is multiplied by 100.

    lrap      label ranking average precision, in (0, 1]: over the known classes of a clip, the mean over its relevant
              ones (relevance >= 0.5) of the share of relevant ones among all that score at least as high (Tsoumakas,
              Katakis, Vlahavas 2010, "Mining Multi-label Data"); the mean over clips with a known class. A clip whose
              known classes are all relevant, or none of them, ranks nothing: it counts as 1, as in scikit-learn;
              `num_ranked` clips are not of that kind.
    spearman  rank correlation of relevance and score over a class's known clips, in [-1, 1], ties at their mean rank;
              the mean over classes. It says how well clips can be sorted by how much of the class there is. Undefined
              (None, left out of the mean) with fewer than two clips or when either side is constant.
    mae, rmse mean absolute error and root mean square error of score against relevance, over all known cells; they ask
              for scores on the scale of the relevances
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import label_ranking_average_precision_score

from mmfusion.metrics.defined import mean_defined
from mmfusion.types import THRESHOLD, InputError


def ranking_metrics(reference: Any, scores: Any, names: Sequence[str], mask: Any = None) -> dict[str, Any]:
    """All figures of the file's head, ready for JSON; `names` are the C class names in the order of the columns.

    Returns lrap, spearman, mae, rmse, num_clips (with a known cell), num_ranked, num_known (cells), and per_class
    {name: {num_known, spearman, mae}}. Raises InputError when shapes differ, a known number is not finite, or nothing
    is known.
    """
    truth, values = np.asarray(reference, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    known = np.ones(truth.shape, dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    _check(truth, values, known, names)
    wrong = np.abs(truth[known] - values[known])
    per_class = {}
    for column, name in enumerate(names):
        rows = known[:, column]
        pair = truth[rows, column], values[rows, column]
        error = float(np.abs(pair[0] - pair[1]).mean()) if rows.any() else None
        per_class[name] = {"num_known": int(rows.sum()), "spearman": _spearman(*pair), "mae": error}
    relevant = known & (truth >= THRESHOLD)
    return {
        "lrap": _lrap(relevant, values, known),
        "spearman": mean_defined(figures["spearman"] for figures in per_class.values()),
        "mae": float(wrong.mean()),
        "rmse": float(np.sqrt((wrong**2).mean())),
        "num_clips": int(known.any(axis=1).sum()),
        "num_ranked": int((relevant.any(axis=1) & (known & ~relevant).any(axis=1)).sum()),
        "num_known": int(known.sum()),
        "per_class": per_class,
    }


def _check(truth: np.ndarray, values: np.ndarray, known: np.ndarray, names: Sequence[str]) -> None:
    if truth.ndim != 2 or not truth.shape == values.shape == known.shape:
        shapes = f"reference {truth.shape}, scores {values.shape}, mask {known.shape}"
        raise InputError(f"ranking: {shapes} must all be the same (N, C)")
    if len(names) != truth.shape[1] or len(set(names)) != len(names):
        raise InputError(f"ranking: {len(names)} class names do not fit {truth.shape[1]} columns one to one")
    if not known.any():
        raise InputError("ranking: no relevance is known, so there is nothing to score")
    for name, numbers in (("relevance", truth), ("score", values)):
        if not np.isfinite(numbers[known]).all():
            raise InputError(f"ranking: a {name} that is marked as known is not a finite number")


def _lrap(relevant: np.ndarray, values: np.ndarray, known: np.ndarray) -> float:
    """Unknown cells stand below all known ones, where they are before no relevant class."""
    places = np.zeros(values.shape, dtype=np.int64)
    places[known] = np.unique(values[known], return_inverse=True)[1] + 1
    clips = known.any(axis=1)
    return float(label_ranking_average_precision_score(relevant[clips], places[clips]))


def _spearman(truth: np.ndarray, values: np.ndarray) -> float | None:
    if len(truth) < 2 or not np.ptp(truth) or not np.ptp(values):
        return None
    found: Any = spearmanr(truth, values)
    return float(found.statistic)
