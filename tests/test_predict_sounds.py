"""Sound files of any kind and length: every format says the same, and a long file costs no more memory."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mmfusion.data.media import write_sound
from mmfusion.predict import Asked, as_text, predict_files
from mmfusion.training.loop import train
from mmfusion.training.run import Run

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "training"))
from tiny_sounds import LABELS, sound_of, tagger_of, write_sounds  # noqa: E402

FORMATS = {"wav": "pcm_s16le", "flac": "flac", "mka": "flac", "mp3": "libmp3lame", "ogg": "libopus"}
WINDOWS = {"length_s": 2.0, "hop_s": 1.0, "aggregate": "mean"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("sounds")
    return train(tagger_of(write_sounds(folder / "set"), folder, windows=WINDOWS), quiet=True)


def encode(path: Path, sound: np.ndarray, rate_hz: int) -> Path:
    """The sound in the format of the file's ending, a second at a time."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(FORMATS[path.suffix[1:]], rate=rate_hz, layout="mono")
        for first in range(0, len(sound), rate_hz):
            part = sound[None, first : first + rate_hz].astype(np.float32)
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate_hz, first, Fraction(1, rate_hz)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_every_format_says_the_same(run: Run, tmp_path: Path) -> None:
    events = [("low", 1.0, 4.0), ("high", 3.0, 6.0)]
    sound = np.round(sound_of(events, 7.5, np.random.default_rng(3)) * 32768) / 32768  # exact in 16 bits
    paths = [encode(tmp_path / f"sound.{kind}", sound, 8000) for kind in FORMATS]
    found = {Path(row["path"]).suffix[1:]: row for row in predict_files(run, paths)}
    assert not [row for row in found.values() if "error" in row]
    for kind, row in found.items():
        assert len(row["windows"]) == 7 and row["windows"][-1]["end_s"] == pytest.approx(7.5, abs=0.1)
        assert len(row["activity"]["low"]) == 8
        for label in LABELS:
            tolerance = 1e-4 if kind in ("wav", "flac", "mka") else 0.15
            assert row["labels"][label] == pytest.approx(found["wav"]["labels"][label], abs=tolerance)
    for label, start_s, end_s in events:
        (event,) = [event for event in found["ogg"]["events"] if event["label"] == label]
        assert abs(event["start_s"] - start_s) <= 1 and abs(event["end_s"] - end_s) <= 1


def test_heads_that_are_not_shown_are_named(tmp_path: Path) -> None:
    heads = {"labels": {"kind": "labels"}, "again": {"kind": "labels"}}
    run = train(tagger_of(write_sounds(tmp_path / "set"), tmp_path, model__heads=heads, training__epochs=1), quiet=True)
    write_sound(tmp_path / "a.wav", np.zeros(8000, np.float32), 8000)
    (found,) = predict_files(run, [tmp_path / "a.wav"])
    assert found["warnings"] == ["again: not said; one label head and one caption head answer"]


def test_the_tool_finds_events_in_windows(run: Run, tmp_path: Path) -> None:
    path = encode(tmp_path / "sound.flac", sound_of([("noise", 1.0, 3.0)], 5.0, np.random.default_rng(4)), 8000)
    (found,) = predict_files(run, [path])
    lines = [f"  {event['start_s']:7.1f} {event['end_s']:7.1f} s  {event['label']}" for event in found["events"]]
    assert "noise" in [event["label"] for event in found["events"]]
    assert as_text(found, 3, events=True).splitlines()[2:] == lines
    words = ["tools/predict.py", str(run.folder), str(path), "--window", "1", "--hop", "0.5", "--aggregate", "max"]
    done = subprocess.run(
        [sys.executable, *words, "--events", "--json"], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert len(row["windows"]) == 9 and {"start_s", "end_s", "label"} == set(row["events"][0])
    assert row["labels"]["noise"] == max(part["labels"]["noise"] for part in row["windows"])


def test_a_header_that_lies_is_not_believed(run: Run, tmp_path: Path) -> None:
    """7.5 s whose flac and matroska headers say 2 s, or 60 s: the same is heard, to the end, and the lie is told."""
    sound = np.round(sound_of([("high", 5.0, 7.0)], 7.5, np.random.default_rng(6)) * 32768) / 32768
    (honest,) = predict_files(run, [encode(tmp_path / "honest.flac", sound, 8000)])
    assert "warnings" not in honest and honest["media"]["duration_s"] == pytest.approx(7.5)
    (event,) = [event for event in honest["events"] if event["label"] == "high" and event["end_s"] > 5]
    for kind, stated_s in (("flac", 2.0), ("mka", 2.0), ("flac", 60.0)):
        path = encode(tmp_path / f"{stated_s:g}.{kind}", sound, 8000)
        claim(path, stated_s)
        (found,) = predict_files(run, [path])
        assert found["media"]["duration_s"] == pytest.approx(stated_s)
        assert found["labels"] == pytest.approx(honest["labels"], abs=1e-6)
        assert [part["end_s"] for part in found["windows"]] == pytest.approx([2, 3, 4, 5, 6, 7, 7.5], abs=0.01)
        assert event in found["events"]
        assert found["warnings"] == [f"{path}: its header says {stated_s:.1f} s, and it goes to 7.5 s"]
        # The first 2 s, which are all that is read then, are there whatever the header says.
        (beginning,) = predict_files(run, [path], Asked())
        assert not [one for one in beginning.get("warnings", []) if "its header says" in one]


def claim(path: Path, stated_s: float) -> None:
    """Overwrites the length in the header of a flac file of 8 kHz, or of a matroska file."""
    data = bytearray(path.read_bytes())
    if path.suffix == ".flac":
        data[22:26] = struct.pack(">I", round(stated_s * 8000))  # the low 32 bits of STREAMINFO's total samples
    else:
        at = data.index(b"\x44\x89\x88")
        data[at + 3 : at + 11] = struct.pack(">d", stated_s * 1000)
    path.write_bytes(data)


PEAK = """
import resource, sys
from mmfusion.predict import Asked, predict_files
from mmfusion.training.run import Run
for path in sys.argv[2:]:
    (found,) = predict_files(Run.open(sys.argv[1]), [path], Asked(4.0, 3.0))
    assert "error" not in found, found
    print(len(found["windows"]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is counted in other units elsewhere")
def test_ten_minutes_cost_no_more_memory_than_one(run: Run, tmp_path: Path) -> None:
    """Decoded whole, the longer files would take 38 MB at their own sample rate and 19 MB at the model's."""
    minute = sound_of([("low", 10.0, 20.0), ("noise", 40.0, 45.0)], 60.0, np.random.default_rng(5)).repeat(2)
    paths = []
    for length_min in (1, 10):
        write_sound(tmp_path / f"{length_min}.wav", np.tile(minute, length_min), 16000)
        encode(tmp_path / f"{length_min}.flac", np.tile(minute, length_min), 16000)
        paths += [str(tmp_path / f"{length_min}.{kind}") for kind in ("wav", "flac")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(run.folder), *paths], cwd=ROOT, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    windows, peaks_mb = zip(*(map(float, line.split()) for line in done.stdout.splitlines()), strict=True)
    assert windows == (20, 20, 200, 200)
    assert max(peaks_mb) - peaks_mb[1] < 8, peaks_mb
