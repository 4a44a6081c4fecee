"""Thresholds by class: no other has a higher F1, unknown cells do not matter, and label_metrics decides by them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from mmfusion.metrics.labels import label_metrics
from mmfusion.metrics.thresholds import tune_thresholds
from mmfusion.types import InputError


def random_case(seed: int, num_clips: int = 30, num_classes: int = 4):
    rng = np.random.default_rng(seed)
    truth = rng.random((num_clips, num_classes)) < 0.3
    scores = np.clip(np.round(0.25 * truth + rng.random(truth.shape) * 0.7, 1), 0, 1)  # with ties
    return truth, scores, rng.random(truth.shape) < 0.8


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_nothing_is_better(seed: int) -> None:
    truth, scores, mask = random_case(seed)
    thresholds = tune_thresholds(truth, scores, mask)
    for column, threshold in enumerate(thresholds):
        known = mask[:, column]
        gold, said = truth[known, column], scores[known, column]
        if not gold.any():
            assert threshold == 0.5
            continue
        limits = np.linspace(0, 1.05, 106)
        decided = said >= limits[:, None]
        tried = 2 * (decided & gold).sum(axis=1) / (decided.sum(axis=1) + gold.sum())
        assert f1_score(gold, said >= threshold) == pytest.approx(tried.max())


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_label_metrics_decides_by_them(seed: int) -> None:
    truth, scores, mask = random_case(seed)
    names = list("abcd")
    thresholds = tune_thresholds(truth, scores, mask)
    plain, tuned = (label_metrics(truth, scores, names, mask, thresholds=limits) for limits in (None, thresholds))
    assert label_metrics(truth, scores, names, mask) == plain
    halves = label_metrics(truth, scores, names, mask, thresholds=[0.5] * 4)
    assert all(halves[key] == value for key, value in plain.items() if key != "per_class")
    for column, name in enumerate(names):
        before, after = plain["per_class"][name], tuned["per_class"][name]
        assert before["f1"] is None or after["f1"] >= before["f1"]
        assert after["threshold"] == thresholds[column] and "threshold" not in before
        known = mask[:, column]
        right = (scores[known, column] >= thresholds[column]) == truth[known, column]
        assert after["accuracy"] == pytest.approx(right.mean())
        assert after["average_precision"] == before["average_precision"]
    json.dumps(tuned, allow_nan=False)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_unknown_cells_do_not_matter(seed: int) -> None:
    truth, scores, mask = random_case(seed)
    noisy = np.where(mask, truth, np.nan), np.where(mask, scores, np.nan)
    assert (tune_thresholds(*noisy, mask) == tune_thresholds(truth, scores, mask)).all()


def test_middle_of_the_widest_best_stretch_by_hand() -> None:
    # Positives at 0.9 and 0.6, a negative at 0.2: every threshold above 0.2 and up to 0.6 is right.
    assert tune_thresholds([[1], [1], [0]], [[0.9], [0.6], [0.2]]) == pytest.approx(0.4)
    # All positive: from 0 up to the lowest score.
    assert tune_thresholds([[1], [1]], [[0.9], [0.6]]) == pytest.approx(0.3)
    # F1 is 2/3 down to 0.8 (1 of 1 found of 2), to 0.3 (2 of 4), and lower between.
    assert tune_thresholds([[1], [0], [0], [1]], [[0.8], [0.7], [0.6], [0.3]]) == pytest.approx(0.15)
    # No positive is known: nothing to tune on.
    assert tune_thresholds([[0, 1], [0, 1]], [[0.9, 0.1], [0.6, 0.1]], [[1, 0], [1, 0]]).tolist() == [0.5, 0.5]
    # Scores so close that no number lies between them.
    close = np.nextafter(0.7, 1.0)
    threshold = tune_thresholds([[1], [0]], [[close], [0.7]])[0]
    assert 0.7 < threshold <= close


def test_unusable_thresholds_are_told() -> None:
    truth, scores, _ = random_case(0)
    with pytest.raises(InputError, match="4 finite numbers"):
        label_metrics(truth, scores, list("abcd"), thresholds=[0.5])
    with pytest.raises(InputError, match="4 finite numbers"):
        label_metrics(truth, scores, list("abcd"), thresholds=[0.5, 0.5, 0.5, float("nan")])
    with pytest.raises(InputError, match="has no thresholds"):
        label_metrics(np.eye(4), np.eye(4), list("abcd"), target="single", thresholds=[0.5] * 4)
    with pytest.raises(InputError, match="same"):
        tune_thresholds(truth, scores[:3])
