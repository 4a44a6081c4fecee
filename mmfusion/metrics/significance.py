"""Bootstrap intervals and paired bootstrap tests over clips (Efron and Tibshirani 1993; Koehn 2004).

Conventions: the clip is the unit that is drawn, with replacement, as many as there are; all captions or labels of a
clip go with it, and both systems see the same draw. Intervals are percentile intervals. A `Statistic` is a metric as a
function of how often each clip was drawn, (S, N) integers -> (S,), so that thousands of draws of a corpus metric (mAP,
BLEU, METEOR) take a matrix product and not thousands of runs of a scorer; `resampled` makes them.

`p_value` is two-sided: twice the smaller share of draws in which the difference is <= 0 or >= 0, at most 1.
`p_not_better` is one-sided: the share of draws in which a <= b. Both count the observed sample as one more draw, so
that with S draws nothing is smaller than 1 / (S + 1), nor 2 / (S + 1).

The interval says how far the figure would move with other clips of the same kind. It says nothing about other seeds:
give the runs of several seeds through `average`, and report their standard deviation beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap, chi2

from mmfusion.types import InputError

CELLS_A_BATCH = 4_000_000


@dataclass(frozen=True)
class Statistic:
    """A metric of `num_clips` clips: `of_counts` maps draw counts (S, N) to values (S,), NaN where undefined."""

    num_clips: int
    of_counts: Callable[[np.ndarray], np.ndarray]

    @property
    def value(self) -> float:
        """The metric on the clips as they are."""
        return float(self.of_counts(np.ones((1, self.num_clips), dtype=np.int64))[0])


@dataclass(frozen=True)
class Interval:
    """The metric, and the bounds between which `level` of the draws lie."""

    value: float
    low: float
    high: float
    level: float
    num_samples: int
    num_clips: int


@dataclass(frozen=True)
class PairedResult:
    """System a against system b on the same draws: `difference` = a - b, with its interval and p-values."""

    value_a: float
    value_b: float
    difference: float
    low: float
    high: float
    p_value: float
    p_not_better: float
    level: float
    num_samples: int
    num_clips: int


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of two systems on the same clips, and on how many of them one alone is right."""

    statistic: float
    p_value: float
    num_only_a: int
    num_only_b: int


def mean_of(values: Sequence[float] | np.ndarray) -> Statistic:
    """A metric that is the mean of one value a clip (accuracy, ROUGE_L, CIDEr with its weights held fixed)."""
    row = np.asarray(values, dtype=np.float64)
    if row.ndim != 1 or not np.isfinite(row).all():
        raise ValueError("mean_of needs one finite number a clip")
    return Statistic(len(row), lambda counts: counts @ row / counts.sum(axis=1))


def from_indices(metric: Callable[[np.ndarray], float], num_clips: int) -> Statistic:
    """Any metric of clip indices (N,), with repeats, -> value; one call a draw, so as slow as the metric."""

    def of_counts(counts: np.ndarray) -> np.ndarray:
        return np.array([metric(np.repeat(np.arange(num_clips), row)) for row in counts], dtype=np.float64)

    return Statistic(num_clips, of_counts)


def average(statistics: Sequence[Statistic]) -> Statistic:
    """The mean of several metrics of the same clips, such as the runs of several seeds."""
    sizes = {statistic.num_clips for statistic in statistics}
    if len(sizes) != 1:
        raise ValueError(f"average needs statistics of the same clips, got {sorted(sizes)} clips")
    return Statistic(sizes.pop(), lambda counts: np.mean([each.of_counts(counts) for each in statistics], axis=0))


def bootstrap_interval(
    metric: Statistic | Sequence[float] | np.ndarray, seed: int = 0, num_samples: int = 2000, level: float = 0.95
) -> Interval:
    """The percentile interval of a metric, or of the mean of one value a clip. Same seed, same result.

    Raises InputError when there are fewer than two clips or when the metric is undefined in some draw.
    """
    statistic = metric if isinstance(metric, Statistic) else mean_of(metric)
    low, high, _ = _draw(statistic, seed, num_samples, level)
    return Interval(statistic.value, low, high, level, num_samples, statistic.num_clips)


def paired_bootstrap(
    a: Statistic | Sequence[float] | np.ndarray,
    b: Statistic | Sequence[float] | np.ndarray,
    seed: int = 0,
    num_samples: int = 2000,
    level: float = 0.95,
) -> PairedResult:
    """Whether a is really better than b, both on the same clips in the same order.

    Statistics, or one value a clip each. Raises InputError as `bootstrap_interval` does, ValueError when the two are
    not of the same number of clips.
    """
    first = a if isinstance(a, Statistic) else mean_of(a)
    second = b if isinstance(b, Statistic) else mean_of(b)
    if first.num_clips != second.num_clips:
        raise ValueError(f"a has {first.num_clips} clips and b has {second.num_clips}")
    change = Statistic(first.num_clips, lambda counts: first.of_counts(counts) - second.of_counts(counts))
    low, high, draws = _draw(change, seed, num_samples, level)
    p_not_better = (1 + np.count_nonzero(draws <= 0)) / (num_samples + 1)
    p_not_worse = (1 + np.count_nonzero(draws >= 0)) / (num_samples + 1)
    return PairedResult(
        first.value,
        second.value,
        change.value,
        low,
        high,
        p_value=float(min(1.0, 2 * min(p_not_better, p_not_worse))),
        p_not_better=float(p_not_better),
        level=level,
        num_samples=num_samples,
        num_clips=first.num_clips,
    )


def mcnemar(right_a: Sequence[bool] | np.ndarray, right_b: Sequence[bool] | np.ndarray) -> McNemar:
    """Whether a is right on other clips than b more often than chance would have it, both on the same clips (N,).

    The statistic is (|n_a - n_b| - 1)^2 / (n_a + n_b) of the clips on which one alone is right (McNemar 1947, corrected
    by Edwards 1948, as in sed_eval), 0 where there are none; the p-value is by chi-squared with one degree of freedom.
    """
    a, b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"a has {a.shape} clips and b has {b.shape}")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    statistic = (abs(only_a - only_b) - 1) ** 2 / (only_a + only_b) if only_a + only_b else 0.0
    return McNemar(float(statistic), float(chi2.sf(statistic, 1)), only_a, only_b)


def _draw(statistic: Statistic, seed: int, num_samples: int, level: float) -> tuple[float, float, np.ndarray]:
    """Lower and upper bound, and the metric of every draw (num_samples,)."""
    num_clips = statistic.num_clips
    if num_clips < 2:
        raise InputError(f"a bootstrap over clips needs at least two clips, got {num_clips}")
    if np.isnan(statistic.value):
        raise InputError("a bootstrap over clips needs a metric that is defined on the clips, this one is not")

    def of_indices(indices: np.ndarray, axis: int) -> np.ndarray:
        values = statistic.of_counts(_counts(np.atleast_2d(indices), num_clips))
        if np.isnan(values).any():
            raise InputError("the metric is undefined in some bootstrap draws over these clips: they are too few")
        return values.reshape(indices.shape[:-1])

    result = bootstrap(
        (np.arange(num_clips),),
        of_indices,
        n_resamples=num_samples,
        batch=max(1, CELLS_A_BATCH // num_clips),
        vectorized=True,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    interval = result.confidence_interval
    return float(interval.low), float(interval.high), np.asarray(result.bootstrap_distribution)


def _counts(indices: np.ndarray, num_clips: int) -> np.ndarray:
    """Indices of drawn clips (S, N) -> how often each was drawn (S, N)."""
    rows = np.arange(len(indices))[:, None] * num_clips
    flat = np.bincount((indices + rows).ravel(), minlength=len(indices) * num_clips)
    return flat.reshape(len(indices), num_clips)
