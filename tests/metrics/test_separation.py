"""Separation figures: mir_eval's published values, brute force over permutations, and what may not change a figure."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.metrics.bss_eval import MAX_SOURCES, BssEval
from mmfusion.metrics.scoring_sound import read_wav
from mmfusion.metrics.separation import (
    FIGURES,
    best_permutation,
    of_silence,
    separation_metrics,
    si_sdr,
    si_sdr_pairs,
    snr,
)
from mmfusion.types import InputError

CASES = ("01", "02", "03", "05", "06", "07", "08", "09")
SDR_SIR_SAR = ("Source to Distortion", "Source to Interference", "Source to Artifact")


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    path = shared_data / "golden" / "separation"
    if not path.exists():
        pytest.skip(f"needs mir_eval's separation test set ({path})")
    return path


def load(folder: Path, case: str) -> tuple[np.ndarray, np.ndarray, dict]:
    """References, estimates and published values of a case; stereo files are averaged, as mir_eval loads them."""
    truth, said = (
        np.stack([read_wav(file)[2] for file in sorted((folder / f"{side}{case}").glob("*.wav"))])
        for side in ("ref", "est")
    )
    return truth, said, json.loads((folder / f"output{case}.json").read_text())


@pytest.mark.parametrize("case", CASES)
def test_sources_as_published(folder: Path, case: str) -> None:
    truth, said, published = load(folder, case)
    expected = published["Sources"]
    for permute_by in ("sir", "sdr", "si_sdr"):
        result = separation_metrics(truth, said, permute_by=permute_by)
        assert result["permutation"] == expected["Source permutation"]
        for figure, name in zip(("sdr", "sir", "sar"), SDR_SIR_SAR, strict=True):
            ours = [row[figure] for row in result["per_source"].values()]
            theirs = [value if np.isfinite(value) else None for value in expected[name]]
            assert ours == pytest.approx(theirs, abs=1e-6)  # what the solver leaves differs with the number of threads
        json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("case", CASES)
def test_frames_as_published(folder: Path, case: str) -> None:
    truth, said, published = load(folder, case)
    expected = published["Framewise"]
    frames = [slice(start, start + expected["win"]) for start in range(0, truth.shape[1], expected["hop"])]
    frames = [frame for frame in frames if frame.stop <= truth.shape[1]]
    assert len(frames) == len(expected[SDR_SIR_SAR[0]][0])
    for number in range(0, len(frames), 2):
        figures = BssEval(truth[:, frames[number]]).figures(said[:, frames[number]])
        for ours, name in zip(figures, SDR_SIR_SAR, strict=True):
            assert ours == pytest.approx([row[number] for row in expected[name]], abs=1e-6)


def decoded(path: Path, stream: int) -> np.ndarray:
    """One stream of a stem file as samples (N, channels)."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(container.streams.audio[stream])]
    return np.concatenate(frames, axis=1).T.astype(np.float64)


def test_snr_is_musevals_sdr_of_images_second_by_second(shared_data: Path) -> None:
    folder = shared_data / "golden" / "museval"
    published = json.loads((folder / "Music Delta - 80s Rock.json").read_text())["targets"]
    _, drums, bass, other, vocals = (decoded(next(folder.rglob("*.stem.mp4")), stream) for stream in range(5))
    generator = np.random.RandomState(0)  # the estimates of the published example are noise
    for target, truth in zip(published, (vocals, drums + bass + other), strict=True):
        said = generator.random_sample(truth.shape)
        for second, frame in enumerate(target["frames"]):
            part = slice(second * 44_100, (second + 1) * 44_100)
            assert snr(truth[part].ravel(), said[part].ravel()) == pytest.approx(frame["metrics"]["SDR"], abs=2e-5)


def tones(seed: int, num: int, length: int = 400) -> np.ndarray:
    """Sources (num, length) that are neither orthogonal nor alike."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(num, length)) + 0.3 * rng.normal(size=length)


def blurred(seed: int, truth: np.ndarray, amount: float = 0.7) -> np.ndarray:
    rng = np.random.default_rng(seed + 1)
    leaks = np.eye(len(truth)) + amount * rng.random((len(truth), len(truth)))
    return leaks @ truth + amount * rng.normal(size=truth.shape)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_assignment_is_brute_force(seed: int, num: int) -> None:
    truth = tones(seed, num)
    said = blurred(seed, truth, 1.5)[np.random.default_rng(seed).permutation(num)]
    for pairs in (si_sdr_pairs(truth, said), BssEval(truth, 8).pairs(said)[0], BssEval(truth, 8).pairs(said)[1]):
        sums = {order: pairs[range(num), order].sum() for order in permutations(range(num))}
        assert pairs[range(num), best_permutation(pairs)].sum() == pytest.approx(max(sums.values()))
    result = separation_metrics(truth, said, taps=8)
    mean = max(np.mean([si_sdr(truth[k], said[order[k]]) for k in range(num)]) for order in permutations(range(num)))
    assert result["si_sdr"] == pytest.approx(mean)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.sampled_from(["si_sdr", "sdr", "sir"]))
def test_order_of_sources_does_not_matter(seed: int, num: int, permute_by) -> None:
    truth = tones(seed, num)
    said = blurred(seed, truth)
    rng = np.random.default_rng(seed)
    rows, columns = rng.permutation(num), rng.permutation(num)
    names = [str(row) for row in rows]
    plain = separation_metrics(truth, said, permute_by=permute_by, taps=4)
    mixed = separation_metrics(truth[rows], said[columns], None, names, permute_by, taps=4)
    for figure in FIGURES:
        assert mixed[figure] == pytest.approx(plain[figure], abs=1e-9)
    for row in mixed["per_source"].values():
        row["estimate"] = int(columns[row["estimate"]])
    for name in names:
        assert mixed["per_source"][name] == pytest.approx(plain["per_source"][name], abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3), st.sampled_from([-1.0, 1.0]), st.booleans())
def test_scale_of_the_estimate_does_not_matter(seed: int, gain: float, sign: float, zero_mean: bool) -> None:
    truth = tones(seed, 3)
    said = blurred(seed, truth)
    plain = si_sdr(truth, said, zero_mean)
    assert si_sdr(truth, sign * gain * said, zero_mean) == pytest.approx(plain, abs=1e-8)
    assert np.diag(si_sdr_pairs(truth, said, zero_mean)) == pytest.approx(plain, abs=1e-8)
    filtered = BssEval(truth, 4).figures(gain * said)
    assert np.concatenate(filtered) == pytest.approx(np.concatenate(BssEval(truth, 4).figures(said)), abs=1e-7)
    # The filters may do all that a gain can.
    assert (filtered[0] >= si_sdr(truth, said) - 1e-9).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(-30, 60))
def test_noise_at_a_given_level_gives_that_figure(seed: int, level_db: float) -> None:
    rng = np.random.default_rng(seed)
    truth, noise = rng.normal(size=(2, 500))
    noise -= truth * (noise @ truth) / (truth @ truth)
    noise *= np.sqrt((truth @ truth) / (noise @ noise)) * 10 ** (-level_db / 20)
    assert si_sdr(truth, truth + noise) == pytest.approx(level_db, abs=1e-6)
    assert snr(truth, truth + noise) == pytest.approx(level_db, abs=1e-6)
    # More of the reference in the estimate is better, and exactly by so much.
    assert si_sdr(truth, 3 * truth + noise) == pytest.approx(level_db + 20 * np.log10(3), abs=1e-6)
    # An offset counts, unless it is taken away.
    assert level_db < 0 or si_sdr(truth, truth + noise + 5) < 0
    shifted = si_sdr(truth, truth + noise + 5, zero_mean=True)
    assert shifted == pytest.approx(si_sdr(truth, truth + noise, zero_mean=True), abs=1e-6)


def test_improvement_over_the_mixture() -> None:
    truth = tones(3, 3)
    mixture = truth.sum(axis=0)
    result = separation_metrics(truth, np.stack([mixture] * 3), taps=None)
    assert result["si_sdri"] == pytest.approx(0.0, abs=1e-9) and result["bss_eval"] == "left out"
    result = separation_metrics(truth, blurred(3, truth, 0.1), mixture + 1e-3, taps=None)
    before = [float(si_sdr(source, mixture + 1e-3)) for source in truth]
    for row, value in zip(result["per_source"].values(), before, strict=True):
        assert row["si_sdri"] == pytest.approx(row["si_sdr"] - value)
    alone = separation_metrics(truth[:1], truth[:1] + 0.01)
    assert alone["si_sdri"] is None and alone["sir"] is None and alone["si_sdr"] > 30


def test_float32_products_would_saturate_and_these_do_not() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(2, 64_000)).astype(np.float32)
    noise = rng.normal(size=truth.shape)
    for level_db in (80.0, 100.0):
        said = truth.astype(np.float64) + noise * 10 ** (-level_db / 20)
        unit = [signals.astype(np.float32) for signals in (truth, said)]
        cosine = (unit[0][0] @ unit[1][0]) ** 2 / ((unit[0][0] @ unit[0][0]) * (unit[1][0] @ unit[1][0]))
        naive = 10 * np.log10(cosine / max(1 - cosine, np.finfo(np.float32).eps))
        assert naive < 75  # what is seen of it in float32
        assert si_sdr(truth, said) == pytest.approx(level_db, abs=0.1)
        assert np.diag(si_sdr_pairs(truth, said)) == pytest.approx(level_db, abs=0.1)
        assert BssEval(truth, 16).figures(said)[0] == pytest.approx(level_db, abs=0.1)
    assert (si_sdr(truth, truth) == 200).all() and (si_sdr(truth, -truth) == 200).all()


def test_silence_is_scored_apart_and_counted() -> None:
    truth = tones(5, 4, 2000)
    truth[1] = 0.0
    said = blurred(5, truth, 0.2)
    said[1] = 0.01 * np.random.default_rng(2).normal(size=2000)
    result = separation_metrics(truth, said, taps=4)
    quiet = result["per_source"]["1"]
    assert quiet["silent_reference"] and all(quiet[figure] is None for figure in FIGURES)
    assert result["num_silent_references"] == 1 and result["num_silent_estimates"] == 0
    power = (truth.sum(axis=0) ** 2).sum()
    assert result["silent_level_db"] == pytest.approx(10 * np.log10((said[1] ** 2).sum() / power))
    # The other sources are as if it were not there.
    rest = [0, 2, 3]
    without = separation_metrics(truth[rest], said[rest], truth.sum(axis=0), taps=4)
    for figure in FIGURES:
        assert result[figure] == pytest.approx(without[figure])
    # Nearly silent is silent too; and nothing at all for a silent source is right.
    truth[1], said[1] = 1e-5 * truth[0], 0.0
    nearly = separation_metrics(truth, said, taps=4)
    assert nearly["num_silent_references"] == 1 and nearly["num_silent_estimates"] == 0
    assert nearly["silent_level_db"] == -200.0
    assert separation_metrics(truth, said, taps=4, silent_db=-120.0)["num_silent_references"] == 0


def test_silent_estimate_gets_what_noise_would() -> None:
    rng = np.random.default_rng(1)
    truth = tones(6, 2, 3000)
    said = truth + 0.1 * rng.normal(size=truth.shape)
    said[1] = 0.0
    result = separation_metrics(truth, said, taps=4)
    row = result["per_source"]["1"]
    assert row["silent_estimate"] and result["num_silent_estimates"] == 1
    assert row["si_sdr"] == of_silence(3000) == pytest.approx(-34.77, abs=0.01)
    assert row["level_db"] == -200.0 and row["snr"] == pytest.approx(0.0)
    # Means of energies over many noises.
    noises = rng.normal(size=(2000, 3000))
    explained = (noises @ truth[1]) ** 2 / (truth[1] @ truth[1])
    ratio = explained.mean() / ((noises**2).sum(axis=1) - explained).mean()
    assert row["si_sdr"] == pytest.approx(10 * np.log10(ratio), abs=0.5)
    shares = 10 ** (np.stack([BssEval(truth, 4).figures(noises[k : k + 2]) for k in range(0, 400, 2)])[:, :, 1] / 10)
    assert row["sdr"] == pytest.approx(10 * np.log10(shares[:, 0].mean()), abs=0.5)
    assert row["sar"] == pytest.approx(10 * np.log10(shares[:, 2].mean()), abs=0.5)
    assert row["sir"] == pytest.approx(0.0, abs=1e-9)
    json.dumps(separation_metrics(truth, 0 * truth), allow_nan=False)
    everything = separation_metrics(0 * truth, said)
    assert everything["si_sdr"] is None and everything["num_silent_references"] == 2
    json.dumps(everything, allow_nan=False)


def test_a_hundred_sources() -> None:
    truth = tones(7, 100, 1000)
    order = np.random.default_rng(7).permutation(100)
    result = separation_metrics(truth, blurred(7, truth, 0.01)[order])
    assert order[result["permutation"]].tolist() == list(range(100))
    assert result["sdr"] is None and result["bss_eval"] == f"left out: more than {MAX_SOURCES} sources"
    with pytest.raises(InputError, match="permutation by sdr"):
        separation_metrics(truth, truth, permute_by="sdr")


def test_sources_that_depend_on_one_another_have_figures() -> None:
    truth = tones(8, 2, 600)
    twice = np.stack([truth[0], truth[0]])
    figures = BssEval(twice, 4).figures(twice + 0.1 * truth[1])
    assert np.isfinite(figures[0]).all() and np.isfinite(figures[2]).all()
    assert figures[0] == pytest.approx(BssEval(truth[:1], 4).figures(truth[:1] + 0.1 * truth[1])[0][0], abs=1e-3)


def test_unusable_input_is_told() -> None:
    truth = tones(9, 2, 50)
    with pytest.raises(InputError, match="must be the same"):
        separation_metrics(truth, truth[:1])
    with pytest.raises(InputError, match="must be the same"):
        separation_metrics(truth[:, :0], truth[:, :0])
    with pytest.raises(InputError, match="mixture"):
        separation_metrics(truth, truth, truth[0, :20])
    with pytest.raises(InputError, match="of the estimates is not a finite number"):
        separation_metrics(truth, truth * np.nan)
    with pytest.raises(InputError, match="1 names"):
        separation_metrics(truth, truth, names=["a"])
    with pytest.raises(InputError, match="left out here"):
        separation_metrics(truth, truth, permute_by="sir", taps=None)
    with pytest.raises(ValueError, match="at least as many"):
        best_permutation(np.zeros((3, 2)))
    given = separation_metrics(truth, truth[::-1], permute_by="none", taps=None)
    assert given["permutation"] == [0, 1] and given["si_sdr"] < 0
