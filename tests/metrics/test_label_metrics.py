"""Label metrics: by hand, by properties of masks and order, and against scikit-learn."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score, roc_curve

from mmfusion.metrics.labels import d_prime, equal_error_rate, label_metrics
from mmfusion.types import InputError

NAMES = ("bell", "dog", "rain")
TRUTH = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]])
SCORES = np.array([[0.9, 0.2, 0.1], [0.6, 0.7, 0.6], [0.8, 0.4, 0.2], [0.1, 0.3, 0.3]])


def random_case(seed: int, num_clips: int = 40, num_classes: int = 5):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 12, (num_clips, num_classes)) / 11  # with ties
    return rng.integers(0, 2, (num_clips, num_classes)), scores, rng.random((num_clips, num_classes)) < 0.7


def test_by_hand() -> None:
    result = label_metrics(TRUTH, SCORES, NAMES)
    assert result["per_class"]["bell"]["average_precision"] == 1.0
    assert result["per_class"]["dog"]["average_precision"] == 1.0
    assert result["map"] == 1.0
    assert result["per_class"]["bell"]["precision"] == pytest.approx(2 / 3)
    assert result["per_class"]["dog"]["recall"] == 0.5
    # decided: bell 3 (2 right), dog 1 (1 right), rain 1 (wrong); 4 positives
    assert result["f1_micro"] == pytest.approx(2 * 3 / (5 + 4))
    assert result["f1_macro"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert result["accuracy"] == pytest.approx(9 / 12)
    assert result["without_positives"] == ["rain"] and result["without_negatives"] == []
    assert result["per_class"]["rain"]["average_precision"] is None
    assert result["d_prime"] is None  # an area of 1 is infinitely far
    json.dumps(result, allow_nan=False)


def test_single_by_hand() -> None:
    truth, scores = np.eye(3)[[0, 1, 2, 0]], np.array([[0.5, 0.5, 0], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.4, 0.6, 0]])
    result = label_metrics(truth, scores, NAMES, target="single")
    assert result["accuracy"] == result["f1_micro"] == 0.5  # the first of equals is chosen
    assert [result["per_class"][name]["accuracy"] for name in NAMES] == [0.5, 1.0, 0.0]
    known = np.ones((4, 3), dtype=bool)
    known[2, 0] = False
    partly = label_metrics(truth, scores, NAMES, known, target="single")
    assert partly["accuracy"] == pytest.approx(2 / 3) and partly["num_clips"] == 3


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_unknown_entries_count_nowhere(seed: int) -> None:
    truth, scores, mask = random_case(seed)
    names = [str(column) for column in range(truth.shape[1])]
    result = label_metrics(truth, scores, names, mask)
    other = np.random.default_rng(seed + 1)
    noisy_truth = np.where(mask, truth, np.where(other.random(truth.shape) < 0.5, np.nan, 0.5))
    noisy_scores = np.where(mask, scores, np.nan)
    assert label_metrics(noisy_truth, noisy_scores, names, mask) == result
    for column, name in enumerate(names):
        known = mask[:, column]
        kept_truth, kept_scores = truth[known, column], scores[known, column]
        figures = result["per_class"][name]
        assert figures["num_known"] == known.sum()
        assert figures["average_precision"] == pytest.approx(average_precision_score(kept_truth, kept_scores))
        assert figures["roc_auc"] == pytest.approx(roc_auc_score(kept_truth, kept_scores))
        assert figures["f1"] == pytest.approx(f1_score(kept_truth, kept_scores >= 0.5))
        false_share, found_share, _ = roc_curve(kept_truth, kept_scores)
        # The two kinds of errors cross at the rate: one is not above it before, the other not after.
        assert np.max(np.minimum(false_share, 1 - found_share)) <= figures["eer"] + 1e-12
        assert np.min(np.maximum(false_share, 1 - found_share)) >= figures["eer"] - 1e-12
    assert result["map"] == pytest.approx(np.mean([row["average_precision"] for row in result["per_class"].values()]))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_order_of_clips_and_classes_does_not_matter(seed: int) -> None:
    truth, scores, mask = random_case(seed)
    names = np.array([str(column) for column in range(truth.shape[1])])
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(len(truth)), rng.permutation(len(names))
    shuffled = label_metrics(
        truth[rows][:, columns], scores[rows][:, columns], list(names[columns]), mask[rows][:, columns]
    )
    plain = label_metrics(truth, scores, list(names), mask)
    assert shuffled["per_class"] == {name: pytest.approx(plain["per_class"][name]) for name in names}
    for name in ("map", "roc_auc", "d_prime", "f1_micro", "f1_macro", "accuracy"):
        assert shuffled[name] == pytest.approx(plain[name])


def test_tags_as_sed_eval_publishes_them() -> None:
    """The seven clips of its unit test: F1, precision, recall and equal error rate."""
    truth = [[0, 1, 1, 0], [0, 0, 1, 0], [1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 1], [0, 0, 1, 1], [0, 0, 0, 1]]
    scores = [
        [0.2, 0.99, 0.88, 0.01], [0.1, 0.3, 0.8, 0.1], [0.7, 0.6, 0.4, 0.3], [0.323, 0.6, 0.56, 0.4],
        [0.8, 0.7, 0.45, 0.43], [0.9, 0.53, 0.83, 0.95], [0.2, 0.2, 0.89, 0.45],
    ]  # fmt: skip
    result = label_metrics(truth, scores, ["bird", "cat", "dog", "speech"])
    assert sum(row["num_positives"] for row in result["per_class"].values()) == 11
    assert result["eer_micro"] == pytest.approx(0.181818181818181, abs=5e-8)
    assert result["eer_macro"] == pytest.approx(0.175, abs=1e-12)
    assert result["f1_micro"] == pytest.approx(0.72, abs=5e-8)
    assert result["f1_macro"] == pytest.approx(0.7, abs=5e-8)
    for figure, published in (("precision", 0.7166666666666667), ("recall", 0.8333333333333333)):
        assert np.mean([row[figure] for row in result["per_class"].values()]) == pytest.approx(published, abs=5e-8)


def test_scenes_as_sed_eval_publishes_them() -> None:
    names = ["bus", "car", "office", "park", "quietstreet", "supermarket", "tubestation"]
    truth = ["supermarket", "tubestation", "quietstreet", "office", "bus"]
    said = ["supermarket", "bus", "quietstreet", "park", "car"]
    shown = [np.eye(len(names))[[names.index(scene) for scene in scenes]] for scenes in (truth, said)]
    assert label_metrics(*shown, names, target="single")["accuracy"] == pytest.approx(0.4, abs=5e-8)


def test_equal_error_rate_by_hand() -> None:
    assert equal_error_rate(np.array([True, False]), np.array([0.9, 0.1])) == 0.0
    assert equal_error_rate(np.array([True, False]), np.array([0.1, 0.9])) == 1.0
    assert equal_error_rate(np.array([True, False, True, False]), np.array([0.5, 0.5, 0.5, 0.5])) == 0.5
    assert equal_error_rate(np.array([True, True]), np.array([0.1, 0.9])) is None
    assert equal_error_rate(np.array([False]), np.array([0.1])) is None


def test_d_prime() -> None:
    assert d_prime(0.5) == 0
    # The AudioSet baseline's pair, as Kong 2020 (PANNs) quotes it; the area is printed with three digits only.
    assert d_prime(0.9585) < 2.452 < d_prime(0.9595)
    assert d_prime(0.2) == pytest.approx(-d_prime(0.8))
    assert math.isinf(d_prime(1.0))


def test_unusable_input_is_told() -> None:
    with pytest.raises(InputError, match="same"):
        label_metrics(TRUTH, SCORES[:2], NAMES)
    with pytest.raises(InputError, match="2 class names"):
        label_metrics(TRUTH, SCORES, NAMES[:2])
    with pytest.raises(InputError, match="finite"):
        label_metrics(TRUTH, np.full(SCORES.shape, np.nan), NAMES)
    with pytest.raises(InputError, match="nothing to score"):
        label_metrics(TRUTH, SCORES, NAMES, np.zeros(TRUTH.shape, dtype=bool))
    with pytest.raises(InputError, match="exactly one class"):
        label_metrics(TRUTH, SCORES, NAMES, target="single")


def test_class_without_negatives_has_no_area() -> None:
    result = label_metrics([[1, 1], [1, 0]], [[0.4, 0.9], [0.8, 0.2]], ["always", "half"])
    assert result["without_negatives"] == ["always"]
    assert result["per_class"]["always"]["roc_auc"] is None and result["roc_auc"] == 1.0
