"""Folders of wav files and event lists, through tools/score.py: figures, JSON, and a sentence for what does not fit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from mmfusion.metrics.events import Event
from mmfusion.metrics.scoring import format_scores, format_tables
from mmfusion.metrics.scoring_sound import read_events, read_lengths, read_wav, score_events, score_separation
from mmfusion.metrics.separation import separation_metrics
from mmfusion.types import InputError

RATE_HZ = 8000


def tool(root: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "tools" / "score.py"), *map(str, words)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def write_wavs(folder: Path, signals: np.ndarray, rate_hz: int = RATE_HZ) -> Path:
    folder.mkdir()
    for number, signal in enumerate(signals):
        wavfile.write(folder / f"{'abcd'[number]}.wav", rate_hz, signal)
    return folder


def write_text(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture
def sources() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, (3, 4000)).astype(np.float32)


def test_separation_of_folders(root: Path, tmp_path: Path, sources: np.ndarray) -> None:
    truth = write_wavs(tmp_path / "truth", sources)
    said = write_wavs(tmp_path / "said", (sources + 0.05 * sources.sum(0))[[2, 0, 1]])
    write_text(truth / "notes.txt", "not a sound")
    done = tool(root, "separation", "--references", truth, "--estimates", said, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == score_separation(truth, said)
    assert result["permutation"] == [1, 2, 0]
    assert {name: row["estimate"] for name, row in result["per_source"].items()} == {
        "a.wav": "b.wav", "b.wav": "c.wav", "c.wav": "a.wav"
    }  # fmt: skip
    direct = separation_metrics(sources, (sources + 0.05 * sources.sum(0))[[2, 0, 1]])
    for figure in ("si_sdr", "si_sdri", "snr", "sdr", "sir", "sar"):
        assert result[figure] == direct[figure]
    assert (result["sample_rate_hz"], result["num_channels"], result["permuted_by"]) == (RATE_HZ, 1, "si_sdr")
    table = format_scores(result).splitlines()
    assert table[0].split() == ["si_sdr", f"{result['si_sdr']:.4f}"]
    assert table[-3].split()[:2] == ["a.wav", "b.wav"]


def test_improvements_are_over_the_mixture_that_is_given(root: Path, tmp_path: Path, sources: np.ndarray) -> None:
    truth = write_wavs(tmp_path / "truth", sources)
    said = write_wavs(tmp_path / "said", sources + 0.05 * sources.sum(0))
    noisy = sources.sum(0) + np.random.default_rng(1).normal(0, 0.2, 4000).astype(np.float32)
    wavfile.write(tmp_path / "mixture.wav", RATE_HZ, noisy)
    folders = ("--references", truth, "--estimates", said, "--mixture", tmp_path / "mixture.wav")
    result = json.loads(tool(root, "separation", *folders, "--json").stdout)
    plain, direct = score_separation(truth, said), separation_metrics(sources, sources + 0.05 * sources.sum(0), noisy)
    assert result["si_sdri"] == direct["si_sdri"] > plain["si_sdri"] + 1
    assert result["si_sdr"] == plain["si_sdr"]
    wavfile.write(tmp_path / "mixture.wav", RATE_HZ, noisy[:100])
    with pytest.raises(InputError, match=r"mixture\.wav: has 100 samples"):
        score_separation(truth, said, mixture_path=tmp_path / "mixture.wav")


def test_golden_folders(shared_data: Path) -> None:
    folder = shared_data / "golden" / "separation"
    result = score_separation(folder / "ref02", folder / "est02")
    assert result["permutation"] == [2, 0, 1]
    figures = [round(row["sdr"], 3) for row in result["per_source"].values()]
    assert figures == [10.402, 11.615, 8.214]


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.uint8, np.float32])
def test_every_kind_of_wav_is_read_to_full_scale_one(tmp_path: Path, kind: type) -> None:
    shape = np.sin(np.arange(800) / 9) * 0.5
    scale = {np.int16: 2**15, np.int32: 2**31, np.uint8: 2**7, np.float32: 1}[kind]
    stereo = np.stack([shape * 1.5, shape * 0.5], axis=1) * scale + (128 if kind is np.uint8 else 0)
    wavfile.write(
        tmp_path / "a.wav", RATE_HZ, np.round(stereo).astype(kind) if kind is not np.float32 else stereo.astype(kind)
    )
    rate_hz, channels, values = read_wav(tmp_path / "a.wav")
    assert (rate_hz, channels) == (RATE_HZ, 2)
    assert values == pytest.approx(shape, abs=1.1 / scale if kind is not np.float32 else 1e-7)


def test_sounds_that_do_not_fit_are_told(root: Path, tmp_path: Path, sources: np.ndarray) -> None:
    truth = write_wavs(tmp_path / "truth", sources)
    cases = {
        "few": (sources[:2], RATE_HZ, "as many estimates as references"),
        "short": (sources[:, :3000], RATE_HZ, "has 3000 samples at 8000 Hz"),
        "fast": (sources, 16_000, "at 16000 Hz, but"),
        "broken": (np.where(np.arange(4000) == 7, np.nan, sources).astype(np.float32), RATE_HZ, "not a finite number"),
        "empty": (sources[:, :0], RATE_HZ, "holds no samples"),
    }
    for name, (signals, rate_hz, sentence) in cases.items():
        said = write_wavs(tmp_path / name, signals, rate_hz)
        with pytest.raises(InputError, match=sentence):
            score_separation(truth, said)
    with pytest.raises(InputError, match="is no folder"):
        score_separation(truth, tmp_path / "nowhere")
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match="holds no wav files"):
        score_separation(tmp_path / "bare", truth)
    write_text(tmp_path / "fast" / "a.wav", "no sound")
    done = tool(root, "separation", "--references", truth, "--estimates", tmp_path / "fast")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ") and "a.wav: cannot be read as wav" in done.stderr


def test_event_lists_by_the_tool(root: Path, tmp_path: Path) -> None:
    truth = write_text(
        tmp_path / "truth.txt", "a.wav\t0.0\t2.5\tcar", "a.wav\t2.8\t4.5\tcar", "a.wav\t6.0\t10.0\tcar", "b.wav"
    )
    said = write_text(tmp_path / "said.txt", "a.wav\t0.2\t3.5\tcar", "a.wav\t6.0\t8.0\tcar")
    done = tool(root, "events", "--references", truth, "--estimates", said, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == score_events(truth, said)
    assert result["event_based"]["f1_micro"] == pytest.approx(0.8)
    assert result["event_based"]["error_rate"] == pytest.approx(1 / 3)
    assert result["segment_based"]["f1_micro"] == pytest.approx(2 * 6 / (9 + 6))
    assert result["intersection_based"]["f1_macro"] == pytest.approx(2 * 2 / (2 * 2 + 1))
    lengths = write_text(tmp_path / "lengths.tsv", "filename\tduration", "a.wav\t20", "b.wav\t20.0")
    finer = json.loads(tool(root, "events", "--references", truth, "--estimates", said, "--resolution", "0.1",
                            "--collar", "0.5", "--json").stdout)  # fmt: skip
    assert finer == score_events(truth, said, None, 0.1, 0.5)
    assert (finer["segment_based"]["resolution_s"], finer["event_based"]["collar_s"]) == (0.1, 0.5)
    longer = score_events(truth, said, lengths)["segment_based"]
    assert longer["f1_micro"] == result["segment_based"]["f1_micro"]
    assert longer["accuracy"] == pytest.approx(37 / 40)
    printed = tool(root, "events", "--references", truth, "--estimates", said, "--lengths", lengths).stdout
    assert printed.rstrip() == format_tables(score_events(truth, said, lengths))
    assert "segment_based\n-------------\n" in printed


def test_lists_of_every_form(tmp_path: Path) -> None:
    one = [Event("a.wav", 0.5, 1.5, "dog, barking")]
    forms = {
        "plain": ("a.wav\t 0.5\t 1.5\tdog, barking", "", "b.wav"),
        "scene": ("a.wav\tstreet\t0.5\t1.5\tdog, barking",),
        "numbered": ("a.wav\t0.5\t1.5\tdog, barking\t17",),
        "header": ("event_label\tonset\toffset\tfilename", "dog, barking\t0.5\t1.5\ta.wav", "\t\t\tb.wav"),
        "semicolon": ("a.wav;0.5;1.5;dog, barking",),
    }
    for name, lines in forms.items():
        assert read_events(write_text(tmp_path / name, *lines)) == one, name
    assert read_events(write_text(tmp_path / "bare", "0.5,1.5,dog")) == [Event("", 0.5, 1.5, "dog")]
    assert read_events(write_text(tmp_path / "none")) == []
    assert read_lengths(write_text(tmp_path / "lengths", "a.wav\t3", "", "b.wav\t4.5")) == {"a.wav": 3.0, "b.wav": 4.5}


def test_lists_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    for line, sentence in (
        ("a.wav\t1.0\tdog", "must be onset, offset and label"),
        ("a.wav\t2.0\t1.0\tdog", "0 <= onset <= offset"),
        ("a.wav\t-2.0\t1.0\tdog", "0 <= onset <= offset"),
        ("a.wav\t1.0\tnan\tdog", "0 <= onset <= offset"),
        ("a.wav\t1.0\t2.0\t", "event_label: is missing"),
    ):
        with pytest.raises(InputError, match=f"list:2: .*{sentence}"):
            read_events(write_text(tmp_path / "list", "a.wav\t0.5\t1.5\tdog", line))
    with pytest.raises(InputError, match="list:2: onset and offset must be seconds"):
        read_events(write_text(tmp_path / "list", "filename\tonset\toffset\tevent_label", "a.wav\t1.0\t\tdog"))
    with pytest.raises(InputError, match="cannot be read"):
        read_events(tmp_path / "nowhere")
    with pytest.raises(InputError, match="lengths:1: must be a file and its length"):
        read_lengths(write_text(tmp_path / "lengths", "a.wav\t0"))
    here, there = (write_text(tmp_path / name, f"{name}.wav\t0\t1\tdog") for name in ("here", "there"))
    with pytest.raises(InputError, match="have no file in common"):
        score_events(here, there)
    with pytest.raises(InputError, match=r"here and .*here: .*no length"):
        score_events(here, here, write_text(tmp_path / "lengths", "other.wav\t3"))
