"""Bootstrap over clips: coverage, p-values, and corpus metrics of a draw equal to the scorer on the drawn clips."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from mmfusion.metrics.captions import corpus_bleu
from mmfusion.metrics.labels import label_metrics
from mmfusion.metrics.resampled import caption_statistic, label_statistic
from mmfusion.metrics.significance import (
    Statistic,
    average,
    bootstrap_interval,
    from_indices,
    mcnemar,
    mean_of,
    paired_bootstrap,
)
from mmfusion.types import InputError

LABEL_METRICS = ("map", "roc_auc", "f1_micro", "f1_macro", "accuracy")


def random_case(seed: int, num_clips: int, num_classes: int, target: str = "multi"):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 20, (num_clips, num_classes)) / 19  # with ties
    if target == "single":
        return np.eye(num_classes)[rng.integers(0, num_classes, num_clips)], scores, None
    return rng.random((num_clips, num_classes)) < 0.3, scores, rng.random((num_clips, num_classes)) < 0.8


@pytest.mark.parametrize("target", ["multi", "single"])
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_label_statistics_equal_scikit_learn_on_the_drawn_clips(target, seed: int) -> None:
    truth, scores, mask = random_case(seed, 30, 4, target)
    indices = np.random.default_rng(seed).integers(0, 30, 30)
    counts = np.stack([np.ones(30, dtype=int), np.bincount(indices, minlength=30)])
    names = list("abcd")
    plain = label_metrics(truth, scores, names, mask, target)
    drawn_mask = None if mask is None else mask[indices]
    drawn = label_metrics(truth[indices], scores[indices], names, drawn_mask, target)
    for metric in LABEL_METRICS:
        statistic = label_statistic(metric, truth, scores, mask, target)
        assert statistic.of_counts(counts) == pytest.approx([plain[metric], drawn[metric]], abs=1e-12)
        assert statistic.value == pytest.approx(plain[metric], abs=1e-12)


@pytest.mark.parametrize("metric", LABEL_METRICS)
def test_label_statistics_take_weights_of_any_size(metric: str) -> None:
    """Only what clips weigh beside one another matters."""
    truth, scores, mask = random_case(3, 30, 4)
    statistic = label_statistic(metric, truth, scores, mask)  # type: ignore[arg-type]
    counts = np.random.default_rng(0).integers(0, 4, (5, 30))
    assert statistic.of_counts(0.013 * counts) == pytest.approx(statistic.of_counts(counts), abs=1e-12)


def test_two_thousand_draws_of_map_are_quick() -> None:
    truth, scores, mask = random_case(1, 200, 12)
    other = random_case(2, 200, 12)[1]
    start = time.perf_counter()
    result = paired_bootstrap(label_statistic("map", truth, scores, mask), label_statistic("map", truth, other, mask))
    assert time.perf_counter() - start < 3
    assert result.num_samples == 2000 and result.low < result.difference < result.high


def test_class_without_positives_in_a_draw_is_left_out() -> None:
    statistic = label_statistic("map", [[1, 0], [0, 1], [0, 0]], [[0.9, 0.1], [0.2, 0.3], [0.1, 0.8]])
    values = statistic.of_counts(np.array([[1, 1, 1], [2, 0, 1], [0, 0, 3]]))
    assert values[:2] == pytest.approx([0.75, 1.0]) and np.isnan(values[2])


def test_bleu_of_a_draw_is_the_scorers() -> None:
    said = {"a": "a dog runs", "b": "the cat sits on a mat", "c": "rain"}
    true = {"a": ["a dog runs fast", "dogs run"], "b": ["the cat sat on a mat"], "c": ["it is raining", "rain falls"]}
    corpus, clips, counts = corpus_bleu(true, said)
    per_clip = {clip: {"bleu_counts": row} for clip, row in zip(said, counts, strict=True)}
    drawn = ["a", "a", "b"]
    numbered = {str(number): clip for number, clip in enumerate(drawn)}
    again, _, _ = corpus_bleu(
        {number: true[clip] for number, clip in numbered.items()},
        {number: said[clip] for number, clip in numbered.items()},
    )
    for order in range(1, 5):
        statistic = caption_statistic(f"bleu_{order}", per_clip, list(said))
        assert statistic.value == pytest.approx(corpus[order - 1], rel=1e-9)
        assert statistic.of_counts(np.array([[2, 1, 0]]))[0] == pytest.approx(again[order - 1], rel=1e-9)
        assert [caption_statistic(f"bleu_{order}", per_clip, [clip]).value for clip in said] == pytest.approx(
            clips[order - 1], rel=1e-9
        )
    with pytest.raises(ValueError, match="spice"):
        caption_statistic("spice", per_clip, ["a"])


def test_interval_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    interval = bootstrap_interval(values, seed=4)
    half = 1.96 * values.std() / 20
    assert interval.value == pytest.approx(values.mean())
    assert (interval.low, interval.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)
    assert bootstrap_interval(values, seed=4) == interval
    assert bootstrap_interval(values, seed=5) != interval
    wider = bootstrap_interval(values, seed=4, level=0.99)
    assert wider.low < interval.low and wider.high > interval.high


def test_p_values() -> None:
    rng = np.random.default_rng(1)
    worse = rng.random(200)
    better = paired_bootstrap(worse + 0.1, worse)
    assert better.p_value == pytest.approx(2 / 2001) and better.p_not_better == pytest.approx(1 / 2001)
    equal = paired_bootstrap(worse, worse)
    assert equal.p_value == 1 and equal.difference == 0
    forth = paired_bootstrap(worse + rng.normal(0.01, 0.3, 200), worse, seed=2)
    back = paired_bootstrap(worse, worse + rng.normal(0.01, 0.3, 200), seed=2)
    assert 0 < forth.p_value <= 1 and 0 < back.p_value <= 1
    swapped = paired_bootstrap(worse, worse + 0.1)
    assert swapped.p_value == better.p_value and swapped.p_not_better == 1
    assert swapped.difference == pytest.approx(-better.difference)


def test_false_alarms_are_as_rare_as_they_say() -> None:
    rng = np.random.default_rng(3)
    results = [
        paired_bootstrap(rng.normal(size=60), rng.normal(size=60), seed=trial, num_samples=400) for trial in range(300)
    ]
    assert 0.02 < np.mean([result.p_value < 0.05 for result in results]) < 0.10
    assert 0.90 < np.mean([result.low < 0 < result.high for result in results]) < 0.98


def test_any_metric_and_several_seeds() -> None:
    values = np.arange(10.0)
    slow = from_indices(lambda indices: float(values[indices].mean()), 10)
    assert bootstrap_interval(slow, num_samples=50) == bootstrap_interval(values, num_samples=50)
    both = average([mean_of(values), mean_of(values + 2)])
    assert both.value == 5.5
    with pytest.raises(ValueError, match="same clips"):
        average([mean_of(values), mean_of(values[:3])])


def test_batches_do_not_change_the_draws(monkeypatch) -> None:
    values = np.random.default_rng(0).random(50)
    whole = bootstrap_interval(values, seed=1)
    monkeypatch.setattr("mmfusion.metrics.significance.CELLS_A_BATCH", 50 * 7)
    batched = bootstrap_interval(values, seed=1)
    assert (batched.low, batched.high) == pytest.approx((whole.low, whole.high), abs=1e-12)


def test_unusable_input_is_told() -> None:
    with pytest.raises(InputError, match="at least two clips"):
        bootstrap_interval([1.0])
    with pytest.raises(ValueError, match="3 clips and b has 2"):
        paired_bootstrap([1.0, 2.0, 3.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="finite"):
        bootstrap_interval([1.0, float("nan")])
    with pytest.raises(InputError, match="undefined in some bootstrap draws"):
        bootstrap_interval(label_statistic("map", [[1], [0], [0]], [[0.9], [0.2], [0.1]]))
    with pytest.raises(InputError, match="this one is not"):
        bootstrap_interval(Statistic(3, lambda counts: np.full(len(counts), np.nan)))


def test_mcnemar_as_sed_eval_publishes_it(shared_data: Path) -> None:
    folder = shared_data / "golden" / "events" / "sed_eval" / "scene"
    lists = []
    for name in ("reference", "estimated_a", "estimated_b"):
        rows = [line.split("\t") for line in (folder / f"{name}.txt").read_text().splitlines()]
        lists.append({row[0]: row[1].strip() for row in rows})
    truth, a, b = lists
    result = mcnemar(*([said[file] == scene for file, scene in truth.items()] for said in (a, b)))
    assert result.statistic == pytest.approx(1.33333333, abs=5e-8)
    assert (result.num_only_a, result.num_only_b) == (3, 0)


def test_mcnemar_is_close_to_the_exact_test() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 400)) < [[0.8], [0.7]]
    result = mcnemar(a, b)
    exact = binomtest(result.num_only_a, result.num_only_a + result.num_only_b).pvalue
    assert result.p_value == pytest.approx(exact, rel=0.1)
    swapped = mcnemar(b, a)
    assert (swapped.statistic, swapped.p_value) == (result.statistic, result.p_value)
    assert mcnemar(a, a).statistic == 0 and mcnemar(a, a).p_value == 1
    with pytest.raises(ValueError, match="400"):
        mcnemar(a, b[:3])
