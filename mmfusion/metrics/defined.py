"""Figures that may be undefined: None in what is handed out, NaN inside of arrays, never NaN in JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np


def mean_defined(values: Iterable[float | None]) -> float | None:
    """The mean of what is not None; None where nothing is."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def finite(value: float) -> float | None:
    """The value as a plain number; None where it is infinite or no number."""
    return float(value) if math.isfinite(value) else None


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below, of one shape, NaN where below is 0."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=np.asarray(below) != 0)
