"""Figures of separated mixtures, their bootstrap over source clips, ideal masks and the split at a frequency."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from mmfusion.metrics.ideal_masks import ideal_estimates, split_at
from mmfusion.metrics.separated import SEPARATION_STATISTICS, separation_statistic, separation_summary, source_figures
from mmfusion.metrics.separation import si_sdr
from mmfusion.metrics.significance import bootstrap_interval
from mmfusion.types import InputError, Stream

RATE = 16000.0


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def heard(si_sdri: float, ideal: float = 10.0) -> dict[str, Any]:
    return {"si_sdr": si_sdri - 1, "si_sdri": si_sdri, "ideal_si_sdri": ideal, "level_db": 0.0, "silent": False,
            "silent_estimate": False}  # fmt: skip


SILENT = {"si_sdr": None, "si_sdri": None, "ideal_si_sdri": None, "level_db": -50.0, "silent": True,
          "silent_estimate": False}  # fmt: skip
MIXTURES = [
    [heard(2.0), heard(4.0)],
    [heard(-3.0), heard(1.0, ideal=14.0)],
    [heard(9.0), SILENT],
    [heard(5.0), heard(6.0)],
]
CLIPS = [["a", "b"], ["a", "c"], ["b", "d"], ["c", "d"]]
LABELS = [["dog", "rain"], ["dog", "sea"], ["rain", "cow"], ["sea", "cow"]]


def test_the_summary_by_hand() -> None:
    found = separation_summary(MIXTURES, LABELS)
    assert found["si_sdri"] == pytest.approx((3 - 1 + 9 + 5.5) / 4)
    assert found["si_sdri_median"] == pytest.approx((3 + 5.5) / 2)
    assert found["si_sdr"] == pytest.approx((2 - 2 + 8 + 4.5) / 4)
    assert found["share_below_0"] == 0.25
    assert found["share_of_ideal"] == pytest.approx(16.5 / (10 + 12 + 10 + 10))
    assert (found["num_mixtures"], found["num_sources"], found["num_silent"]) == (4, 8, 1)
    assert found["silent_level_db"] == -50.0 and found["num_silent_estimates"] == 0
    assert found["per_label"]["dog"] == {"num_sources": 2, "si_sdri": pytest.approx(-0.5)}
    assert found["ideal_si_sdri"] == pytest.approx((10 + 12 + 10 + 10) / 4)
    assert found["share_of_ideal"] == pytest.approx(found["si_sdri"] / found["ideal_si_sdri"])
    assert found["per_label"]["cow"] == {"num_sources": 1, "si_sdri": 6.0}


def test_the_ideal_ratio_mask_has_a_share_of_exactly_one() -> None:
    """Also where sources are silent, and where a mask's estimate is nearer to another source than its own."""
    generator = np.random.default_rng(3)
    mixtures = []
    for number in range(6):
        sources = generator.normal(size=(3, 500)) * 10 ** generator.uniform(-1, 0, (3, 1))
        sources[2] *= number % 2
        ideal = sources[[1, 0, 2]] + 0.3 * generator.normal(size=sources.shape)
        mixtures.append(source_figures(sources, ideal, sources.sum(axis=0), ideal))
    found = separation_summary(mixtures, [["a", "b", "c"]] * 6)
    assert found["share_of_ideal"] == 1.0 and found["ideal_si_sdri"] == found["si_sdri"] and found["num_silent"] == 3


def test_recordings_have_figures_of_their_own() -> None:
    found = separation_summary(MIXTURES, [["", ""]] * 4)
    assert found["recordings_si_sdri"] == pytest.approx(16.5 / 4) and found["num_recordings"] == 8
    assert "si_sdri" not in found and "per_label" not in found


@pytest.mark.parametrize("name", SEPARATION_STATISTICS)
def test_whole_weights_repeat_mixtures(name: str) -> None:
    """The figure of weighted mixtures is that of so many copies of each."""
    generator = np.random.default_rng(0)
    mixtures = [[heard(float(generator.normal(2, 4)), 9 + place)] for place in range(7)]
    clips = [[f"clip {place}"] for place in range(7)]  # one source each: a draw counts mixtures, as any bootstrap does
    statistic = separation_statistic(name, mixtures, clips)
    counts = generator.multinomial(7, [1 / 7] * 7, size=40)
    for own, value in zip(counts, statistic.of_counts(counts), strict=True):
        drawn = [mixture for mixture, number in zip(mixtures, own, strict=True) for _ in range(number)]
        assert value == pytest.approx(separation_summary(drawn, [["x"]] * len(drawn))[name])


def test_a_draw_weighs_mixtures_by_products_and_stretches_what_they_do() -> None:
    statistic = separation_statistic("si_sdri", MIXTURES, CLIPS)
    assert statistic.num_clips == 4 and statistic.value == pytest.approx(16.5 / 4)
    counts, root = {"a": 2, "b": 0, "c": 1, "d": 1}, 2**0.5
    weights = [np.prod([1 + (counts[clip] - 1) / root for clip in own]) for own in CLIPS]
    weighted = np.dot(weights, [3, -1, 9, 5.5]) / np.sum(weights)
    found = statistic.of_counts(np.array([list(counts.values())]))
    assert found == pytest.approx(16.5 / 4 + root * (weighted - 16.5 / 4))
    worse = separation_statistic("share_below_0", MIXTURES, CLIPS)
    every = np.array([counts for counts in product(range(5), repeat=4) if sum(counts) == 4])
    assert worse.of_counts(every).min() == 0 and worse.of_counts(every).max() <= 1


@pytest.mark.parametrize(("num_sources", "most"), [(2, 1.3), (5, 1.5), (10, 1.8), (50, 3.0), (100, 3.5)])
def test_intervals_of_any_number_of_sources_are_as_wide_as_the_clips_make_them(num_sources: int, most: float) -> None:
    """Every clip is so many dB easier or harder than others, and a mixture's figure is the mean of its clips'."""
    generator = np.random.default_rng(num_sources)
    num_clips, num = 20 * num_sources, 300
    own = np.stack([generator.permutation(num_clips)[:num_sources] for _ in range(num)])
    ease = generator.normal(5, 4, num_clips)
    mixtures = [[heard(float(value)) for value in ease[each]] for each in own]
    clips = [[f"{clip:04d}" for clip in each] for each in own]
    # The standard deviation over other clips in the same places.
    uses = np.bincount(own.ravel(), minlength=num_clips)
    expected = 4 * np.sqrt((uses**2).sum()) / own.size
    for name in SEPARATION_STATISTICS:
        found = bootstrap_interval(separation_statistic(name, mixtures, clips), num_samples=200)
        assert found.low <= found.value <= found.high
        if name == "si_sdri":
            assert 0.8 < (found.high - found.low) / (2 * 1.96) / expected < most


def test_the_interval_holds_the_figure() -> None:
    generator = np.random.default_rng(0)
    clips = [list(generator.choice(40, 2, replace=False).astype(str)) for _ in range(200)]
    mixtures = [[heard(float(generator.normal(5, 4))), heard(float(generator.normal(5, 4)))] for _ in clips]
    for name in ("si_sdri", "si_sdri_median", "share_below_0"):
        found = bootstrap_interval(separation_statistic(name, mixtures, clips), num_samples=300)
        assert found.low < found.value < found.high and found.num_clips == len({clip for own in clips for clip in own})


def test_sources_are_found_whatever_the_order_of_the_estimates() -> None:
    sources = noise(3, 2000)
    mixture = sources.sum(axis=0)
    estimates = sources[[2, 0, 1]] + 0.1 * noise(3, 2000, seed=1)
    found = source_figures(sources, estimates, mixture, sources + 0.01 * noise(3, 2000, seed=2))
    for place, row in enumerate(found):
        own = si_sdr(sources[place], estimates[[1, 2, 0][place]])
        assert row["si_sdr"] == pytest.approx(own, abs=1e-3)
        assert row["si_sdri"] == pytest.approx(own - si_sdr(sources[place], mixture), abs=1e-3)
        assert row["ideal_si_sdri"] > row["si_sdri"] > 15 and not row["silent"]


def test_a_silent_source_has_a_level_and_no_si_sdr_and_more_outputs_than_sources_are_fine() -> None:
    sources = noise(3, 2000)
    sources[1] = 0
    estimates = np.concatenate([0.001 * noise(1, 2000, seed=3), sources[[2, 0]], 0.1 * noise(1, 2000, seed=4)])
    found = source_figures(sources, estimates, sources.sum(axis=0), sources)
    assert [row["silent"] for row in found] == [False, True, False]
    assert found[1]["si_sdr"] is None and found[1]["ideal_si_sdri"] is None and found[1]["level_db"] < -20
    assert min(found[0]["si_sdr"], found[2]["si_sdr"]) > 100


def mixtures_of(sources: torch.Tensor) -> Stream:
    return Stream(sources.sum(1), torch.ones(len(sources), sources.shape[2], dtype=torch.bool), RATE)


def test_ideal_masks_keep_what_does_not_overlap_and_sum_to_the_mixture() -> None:
    time = torch.arange(8000) / RATE
    tones = torch.stack([torch.sin(2 * torch.pi * hz * time) for hz in (500.0, 2000.0)])[None]
    for kind in ("ratio", "binary"):
        found = ideal_estimates(tones, mixtures_of(tones), kind)  # type: ignore[arg-type]
        assert (si_sdr(tones[0].numpy(), found[0].numpy()) > 25).all()
        torch.testing.assert_close(found.sum(1), tones.sum(1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["ratio", "binary", "split"])
def test_padding_changes_no_estimate(name: str) -> None:
    sources = torch.from_numpy(noise(2, 2, 9000)).float()
    lengths = torch.tensor([9000, 3001])
    mask = torch.arange(9000) < lengths[:, None]
    sources = sources * mask[:, None]
    for row, length in enumerate(lengths.tolist()):
        both, alone = Stream(sources.sum(1), mask, RATE), mixtures_of(sources[row : row + 1, :, :length])
        if name == "split":
            found, expected = split_at(both, 500.0), split_at(alone, 500.0)
        else:
            found = ideal_estimates(sources, both, name)  # type: ignore[arg-type]
            expected = ideal_estimates(sources[row : row + 1, :, :length], alone, name)  # type: ignore[arg-type]
        torch.testing.assert_close(found[row, :, :length], expected[0], atol=1e-5, rtol=0)


def test_the_ideal_ratio_mask_by_its_definition() -> None:
    from scipy.signal import ShortTimeFFT
    from scipy.signal.windows import hann

    sources = torch.from_numpy(noise(1, 2, 4000)).float()
    found = ideal_estimates(sources, mixtures_of(sources), "ratio")
    transform = ShortTimeFFT(hann(512, sym=False), 128, RATE)
    spectra = transform.stft(sources[0].numpy().astype(float))
    masked = np.abs(spectra) / np.abs(spectra).sum(axis=0) * spectra.sum(axis=0)
    expected = transform.istft(masked, k1=4000)
    # The two place their frames differently, so only the quality is the same, not every sample.
    ours, theirs = si_sdr(sources[0].numpy(), found[0].numpy()), si_sdr(sources[0].numpy(), expected)
    np.testing.assert_allclose(ours, theirs, atol=0.3)


def test_a_mixture_without_sound_has_silent_parts() -> None:
    empty = Stream(torch.zeros(1, 100), torch.zeros(1, 100, dtype=torch.bool), RATE)
    assert not split_at(empty, 500.0).any() and split_at(empty, 500.0).shape == (1, 2, 100)
    assert not ideal_estimates(torch.zeros(1, 2, 100), empty, "ratio").any()


def test_the_split_parts_a_mixture_at_its_frequency() -> None:
    time = torch.arange(16000) / RATE
    tones = torch.stack([torch.sin(2 * torch.pi * hz * time) for hz in (100.0, 1500.0)])[None]
    found = split_at(mixtures_of(tones), 500.0)
    expected = tones[:, 0] / (1 + 0.2**2) + tones[:, 1] / (1 + 3.0**2)
    torch.testing.assert_close(found[:, 0], expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.sum(1), tones.sum(1), atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="split_hz: must lie between 0 and 8000 Hz"):
        split_at(mixtures_of(tones), 9000.0)
