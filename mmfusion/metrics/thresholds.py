"""Decision thresholds, one a class, tuned on validation so that the class's F1 is highest there.

Conventions, those of `labels`: `reference` (N, C) is positive where it is at least 0.5, `scores` (N, C) are
probabilities, `mask` (N, C) is True where the truth is known; nothing else counts. A clip is decided positive where
score >= threshold, so that all thresholds between two neighbouring scores decide alike. Tune on validation, never on
test.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mmfusion.metrics.labels import label_table
from mmfusion.types import THRESHOLD


def tune_thresholds(reference: Any, scores: Any, mask: Any = None) -> np.ndarray:
    """The thresholds (C,) float64, as `label_metrics` and `events_of` take them.

    Of all thresholds with the highest F1 over the class's known clips the middle of the widest stretch is taken (the
    highest of equally wide ones; the lowest stretch ends at 0). A class without a known positive keeps 0.5. Raises
    InputError when shapes differ or a known score is not finite.
    """
    table = label_table(reference, scores, mask)
    best = [_best(table.reference[known, k], table.scores[known, k]) for k, known in enumerate(table.mask.T)]
    return np.array(best, dtype=np.float64)


def _best(truth: np.ndarray, scores: np.ndarray) -> float:
    """The threshold of one class from truth (K,) bool and scores (K,)."""
    if not truth.any():
        return THRESHOLD
    order = np.argsort(-scores, kind="stable")
    levels = scores[order]
    ends = np.append(np.flatnonzero(np.diff(levels)), len(levels) - 1)
    num_found, num_said = np.cumsum(truth[order])[ends], ends + 1
    # Quotients of whole numbers: equal ones are equal bit for bit.
    f1 = 2 * num_found / (num_said + num_found[-1])
    # Deciding down to level k takes any threshold above level k + 1 and not above level k.
    upper = levels[ends]
    lower = np.append(upper[1:], min(0.0, upper[-1]))
    edges = np.diff(np.concatenate([[False], f1 == f1.max(), [False]]).astype(np.int8))
    first, last = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
    widest = np.argmax(upper[first] - lower[last])
    high, low = float(upper[first[widest]]), float(lower[last[widest]])
    middle = low + (high - low) / 2
    # Two scores may be so close that no number lies between them.
    return middle if middle > low else high
