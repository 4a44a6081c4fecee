"""Corpus metrics as functions of how often each clip was drawn, for the bootstrap (significance).

The figures of labels take any weights from 0 up in the place of counts, too (source_clips).

Each value equals what scikit-learn, pycocoevalcap or the METEOR jar gives on the drawn clips, but for CIDEr, whose
document frequencies stay those of all scored clips. A class without positives in a draw is left out of that draw's
macro mean, for both systems alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from mmfusion.metrics.captions import CAPTION_METRICS
from mmfusion.metrics.defined import ratio
from mmfusion.metrics.labels import LabelTable, decide, label_table
from mmfusion.metrics.meteor import meteor_from_sums, summable
from mmfusion.metrics.significance import Statistic, mean_of

LabelMetric = Literal["map", "roc_auc", "f1_micro", "f1_macro", "accuracy"]
LABEL_STATISTICS = get_args(LabelMetric)


def label_statistic(
    metric: LabelMetric,
    reference: Any,
    scores: Any,
    mask: Any = None,
    target: Literal["multi", "single"] = "multi",
    thresholds: Any = None,
) -> Statistic:
    """One of `label_metrics`' figures as a Statistic; arguments as there."""
    table = label_table(reference, scores, mask, target)
    if metric in ("map", "roc_auc"):
        curve = _average_precision if metric == "map" else _roc_auc
        num_classes = table.reference.shape[1]

        def of_counts(counts: np.ndarray) -> np.ndarray:
            return _mean_defined(np.stack([curve(table, column, counts) for column in range(num_classes)], axis=1))

        return Statistic(len(table.reference), of_counts)
    return _decision_statistic(metric, table, target, thresholds)


def caption_statistic(metric: str, per_clip: Mapping[str, Mapping[str, Any]], ids: Sequence[str]) -> Statistic:
    """One of `CAPTION_METRICS` as a Statistic of the clips `ids`, from `caption_metrics`' "per_clip" alone."""
    if metric == "meteor":
        statistics = summable(np.array([per_clip[clip]["meteor_statistics"] for clip in ids]))
        return Statistic(len(ids), lambda counts: meteor_from_sums(counts @ statistics))
    if metric.startswith("bleu_"):
        sums = np.array([per_clip[clip]["bleu_counts"] for clip in ids], dtype=np.float64)
        order = int(metric.removeprefix("bleu_"))
        return Statistic(len(ids), lambda counts: bleu_from_counts(counts @ sums)[..., order - 1])
    if metric not in CAPTION_METRICS:
        raise ValueError(f"{metric} is not one of {', '.join(CAPTION_METRICS)}")
    return mean_of([per_clip[clip][metric] for clip in ids])


def bleu_from_counts(counts: np.ndarray) -> np.ndarray:
    """BLEU-1..4 (..., 4) of summed counts (..., 10), with pycocoevalcap's guards against division by zero."""
    small, tiny = 1e-9, 1e-15
    totals = np.asarray(counts, dtype=np.float64)
    precisions = (totals[..., 0:4] + tiny) / (totals[..., 4:8] + small)
    scores = np.cumprod(precisions, axis=-1) ** (1.0 / np.arange(1, 5))
    ratio = (totals[..., 8] + tiny) / (totals[..., 9] + small)
    with np.errstate(over="ignore"):
        brevity = np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0)
    return scores * brevity[..., None]


def _decision_statistic(
    metric: str, table: LabelTable, target: Literal["multi", "single"], thresholds: Any
) -> Statistic:
    decided, known, truth = decide(table, target, thresholds), table.mask, table.reference
    hits = (decided & truth & known).astype(np.int64)
    wrong = ((decided != truth) & known).astype(np.int64)
    if metric == "accuracy":
        right = known.sum(1) - wrong.sum(1) if target == "multi" else hits.sum(1)
        total = known.sum(1) if target == "multi" else known.all(1).astype(np.int64)
        return Statistic(len(truth), lambda counts: ratio(counts @ right, counts @ total))
    if metric == "f1_micro":
        return Statistic(
            len(truth),
            lambda counts: ratio(counts @ (2 * hits.sum(1)), counts @ (2 * hits + wrong).sum(1)),
        )
    if metric != "f1_macro":
        raise ValueError(f"{metric} is not a label metric that can be resampled")
    positives = (truth & known).astype(np.int64)

    def macro(counts: np.ndarray) -> np.ndarray:
        f1 = ratio(counts @ (2 * hits), counts @ (2 * hits + wrong))
        return _mean_defined(np.where(counts @ positives > 0, f1, np.nan))

    return Statistic(len(truth), macro)


def _ranked(table: LabelTable, column: int, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positives and negatives (S, D) at or above each distinct score, best first, in each draw."""
    known = table.mask[:, column]
    scores, truth = table.scores[known, column], table.reference[known, column]
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1) if len(order) else np.arange(0)
    drawn = counts[:, known][:, order]
    above = np.cumsum(drawn, axis=1)[:, ends]
    positives = np.cumsum(drawn * truth[order], axis=1)[:, ends]
    return positives, above - positives


def _average_precision(table: LabelTable, column: int, counts: np.ndarray) -> np.ndarray:
    """sum_k (R_k - R_{k-1}) P_k over distinct scores, (S,); NaN where no positive was drawn."""
    positives, negatives = _ranked(table, column, counts)
    if not positives.shape[1]:
        return np.full(len(counts), np.nan)
    gained = np.diff(positives, axis=1, prepend=0)
    above = positives + negatives
    precision = positives / np.where(above > 0, above, 1)
    return ratio((gained * precision).sum(axis=1), positives[:, -1])


def _roc_auc(table: LabelTable, column: int, counts: np.ndarray) -> np.ndarray:
    """The share of (positive, negative) pairs in the right order, ties half, (S,); NaN without either."""
    positives, negatives = _ranked(table, column, counts)
    if not positives.shape[1]:
        return np.full(len(counts), np.nan)
    here = np.diff(negatives, axis=1, prepend=0)
    before = positives - np.diff(positives, axis=1, prepend=0)
    pairs = (here * (before + positives) / 2).sum(axis=1)
    return ratio(pairs, positives[:, -1] * negatives[:, -1])


def _mean_defined(values: np.ndarray) -> np.ndarray:
    """The mean over the last axis of what is not NaN, NaN where nothing is."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1).astype(np.float64))
