"""The losses by which clips are ranked: of predicted probabilities, without label smoothing and class weights."""

from __future__ import annotations

import numpy as np

from mmfusion.types import THRESHOLD

SMALLEST, SMALLEST_REST = 1e-30, 1e-9
"""probability of what is true, and of what is not false, below which a loss does not grow: predictions have 9 digits"""


def clip_losses(reference: np.ndarray, chances: np.ndarray, known: np.ndarray, target: str) -> np.ndarray:
    """(N,) losses of `chances` (N, C) against `reference` (N, C) in [0, 1]; NaN for a clip of which nothing is known.

    Cross-entropy (single; a clip counts when all its classes are known), binary cross-entropy averaged over the known
    classes (multi), squared error averaged over them (relevance).
    """
    positive = reference >= THRESHOLD
    found = np.full(len(reference), np.nan)
    if target == "single":
        clips = known.all(axis=1)
        found[clips] = -np.log(np.maximum(np.where(positive, chances, 0).max(axis=1), SMALLEST))[clips]
        return found
    if target == "relevance":
        cells = (chances - reference) ** 2
    else:
        right = np.where(positive, np.maximum(chances, SMALLEST), np.maximum(1 - chances, SMALLEST_REST))
        cells = -np.log(right)
    clips = known.any(axis=1)
    found[clips] = (np.where(known, cells, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1))[clips]
    return found
