"""Ranking of relevances: against scikit-learn and scipy, and what stands in unknown cells must not matter."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import label_ranking_average_precision_score

from mmfusion.metrics.ranking import ranking_metrics
from mmfusion.types import InputError

NAMES = ("banjo", "cello", "drums", "flute")


def random_case(seed: int, num_clips: int = 25):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 9, (num_clips, 4)) / 8  # with ties
    scores = np.round(np.clip(truth + rng.normal(0, 0.4, truth.shape), 0, 1), 1)
    return truth, scores, rng.random(truth.shape) < 0.6


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_all_known_is_scikit_learn_and_scipy(seed: int) -> None:
    truth, scores, _ = random_case(seed)
    result = ranking_metrics(truth, scores, NAMES)
    assert result["lrap"] == pytest.approx(label_ranking_average_precision_score(truth >= 0.5, scores), abs=1e-12)
    correlations = [spearmanr(truth[:, column], scores[:, column]).statistic for column in range(4)]
    assert [row["spearman"] for row in result["per_class"].values()] == pytest.approx(correlations)
    assert result["spearman"] == pytest.approx(np.mean(correlations))
    assert result["mae"] == pytest.approx(np.abs(truth - scores).mean())
    assert result["rmse"] == pytest.approx(np.sqrt(((truth - scores) ** 2).mean()))
    assert (result["num_clips"], result["num_known"]) == (25, 100)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 10_000), st.sampled_from([0.5, np.nan, np.inf, -1e300, 1.0]), st.sampled_from([np.nan, 1e300, 0.0])
)
def test_unknown_cells_do_not_matter(seed: int, fill: float, score: float) -> None:
    truth, scores, mask = random_case(seed)
    result = ranking_metrics(truth, scores, NAMES, mask)
    other = ranking_metrics(np.where(mask, truth, fill), np.where(mask, scores, score), NAMES, mask)
    assert other == result
    # Each clip by itself, over its known classes alone.
    clips = [
        label_ranking_average_precision_score([truth[row, known] >= 0.5], [scores[row, known]])
        for row, known in enumerate(mask)
        if known.any()
    ]
    assert result["lrap"] == pytest.approx(np.mean(clips), abs=1e-12)
    assert result["num_clips"] == len(clips) and result["num_known"] == mask.sum()
    for column, name in enumerate(NAMES):
        known = mask[:, column]
        row = result["per_class"][name]
        assert row["num_known"] == known.sum()
        assert row["spearman"] == pytest.approx(spearmanr(truth[known, column], scores[known, column]).statistic)
        assert row["mae"] == pytest.approx(np.abs(truth - scores)[known, column].mean())
    json.dumps(result, allow_nan=False)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000))
def test_only_the_order_counts_for_ranks(seed: int) -> None:
    truth, scores, mask = random_case(seed)
    plain, bent = (ranking_metrics(truth, values, NAMES, mask) for values in (scores, np.exp(3 * scores)))
    assert bent["lrap"] == plain["lrap"] and bent["spearman"] == plain["spearman"]
    # A mask that hides all but the clips with both kinds of classes leaves their mean.
    ranked = ((truth >= 0.5) & mask).any(axis=1) & ((truth < 0.5) & mask).any(axis=1)
    assert plain["num_ranked"] == ranked.sum()
    if ranked.any():
        alone = ranking_metrics(truth, scores, NAMES, mask & ranked[:, None])
        rest = plain["num_clips"] - plain["num_ranked"]
        assert plain["lrap"] == pytest.approx((alone["lrap"] * ranked.sum() + rest) / plain["num_clips"])


def test_best_worst_and_undefined() -> None:
    truth = np.array([[1.0, 0.0, 0.5], [0.6, 0.2, 0.5], [0.8, 0.1, 0.5]])
    best = ranking_metrics(truth, truth, ["a", "b", "same"])
    assert best["per_class"]["same"]["spearman"] is None
    assert best["lrap"] == 1.0 and best["spearman"] == pytest.approx(1.0) and best["mae"] == best["rmse"] == 0.0
    worst = ranking_metrics(truth, 1 - truth, ["a", "b", "same"])
    assert worst["spearman"] == pytest.approx(-1.0) and worst["lrap"] < 0.7
    once = ranking_metrics(truth, truth, ["a", "b", "same"], [[1, 0, 0], [0, 0, 0], [0, 0, 0]])
    assert once["per_class"]["a"]["spearman"] is None and once["per_class"]["b"]["mae"] is None
    assert once["spearman"] is None and once["lrap"] == 1.0 and once["num_ranked"] == 0


def test_unusable_input_is_told() -> None:
    with pytest.raises(InputError, match="same"):
        ranking_metrics([[1.0, 0.0]], [[1.0]], ["a"])
    with pytest.raises(InputError, match="1 class names"):
        ranking_metrics([[1.0, 0.0]], [[1.0, 0.0]], ["a"])
    with pytest.raises(InputError, match="no relevance is known"):
        ranking_metrics([[1.0]], [[1.0]], ["a"], [[False]])
    with pytest.raises(InputError, match="a score that is marked as known"):
        ranking_metrics([[1.0]], [[float("nan")]], ["a"])
    with pytest.raises(InputError, match="a relevance that is marked as known"):
        ranking_metrics([[float("nan")]], [[1.0]], ["a"])
