"""A tagger as an ONNX file says what the run says; what is no tagger of sound is refused in one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import Linear

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from mmfusion.config import load
from mmfusion.data.manifest import write_manifest
from mmfusion.data.media import read_sound, write_sound
from mmfusion.data.raw import Raw
from mmfusion.export import OnnxTagger, check_export, export_onnx
from mmfusion.model import build_model
from mmfusion.predictor import Predictor
from mmfusion.training.checkpoint import save_weights
from mmfusion.training.loop import train
from mmfusion.training.run import Run, RunConfig
from mmfusion.types import Clip, Facts, InputError

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "training"), str(ROOT / "tests" / "data")]
from media_making import write_media  # noqa: E402
from tiny_run import config_of, write_set  # noqa: E402
from tiny_sounds import LABELS, RATE_HZ, sound_of, tagger_of, write_sounds  # noqa: E402

TAGGING = {"kind": "tagging_cnn", "stem": 8, "channels": [8, 16], "width": 16,
           "logmel": {"num_mels": 24, "window_s": 0.046, "hop_s": 0.0125, "normalize": "clip"}}  # fmt: skip
ATTENTION = {"kind": "labels", "target": "single", "pooling": "attention", "hidden": 8}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """spectrogram_cnn + LSTM + label head, trained, with windows and tuned thresholds."""
    folder = tmp_path_factory.mktemp("export")
    config = tagger_of(
        write_sounds(folder / "set"), folder, windows={"length_s": 2.0, "hop_s": 1.0},
        model__heads={"labels": {"kind": "labels", "thresholds": "tuned"}},
    )  # fmt: skip
    return train(config, quiet=True)


@pytest.fixture(scope="module")
def told(run: Run) -> dict[str, Any]:
    """What tools/export.py says of the file that it makes and checks."""
    words = [
        "tools/export.py",
        str(run.folder),
        "-o",
        str(run.folder / "onnx" / "tagger.onnx"),
        "--check",
        "3",
        "--json",
    ]
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def file(told: dict[str, Any]) -> Path:
    return Path(told["path"])


def untrained(config: RunConfig, labels: Sequence[str] = LABELS) -> Run:
    """A run with random weights, large enough that the classes differ."""
    made = Run.create(config)
    made.write_json("labels.json", list(labels))
    torch.manual_seed(0)
    model = build_model(config.model, Facts(made.labels()))
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
        for name, parameter in model.named_parameters():
            if "classify" in name and name.endswith("weight"):
                parameter.mul_(8)
    save_weights(model.state_dict(), made.weights)
    return made


def random_clips(num: int) -> list[np.ndarray]:
    """Sounds of 0.1 to 6 s, from silence to full scale."""
    rng = np.random.default_rng(7)
    clips = []
    for number in range(num):
        length_s = rng.uniform(0.1, 6.0)
        events = [(label, *np.sort(rng.uniform(0, length_s, 2))) for label in LABELS if rng.random() < 0.5]
        sound = sound_of(events, length_s, rng) * (0.0, 0.05, 1.0, 4.0)[number % 4]
        clips.append(np.clip(sound, -1, 1).astype(np.float32))
    return clips


def largest_difference(run: Run, path: Path, clips: list[np.ndarray], rate: float = 8000.0) -> tuple[float, float]:
    """Between the file and the run; and how much the run's own answers differ, which it must be small beside."""
    predictor, tagger = Predictor(run), OnnxTagger(path)
    expected = np.array([
        list((predictor.hear({"audio": Raw(clip, np.ones(len(clip), dtype=bool), rate)}) or {}).values())
        for clip in clips
    ])  # fmt: skip
    found = np.concatenate([tagger(clip[None]) for clip in clips])
    assert found.shape == expected.shape == (len(clips), len(run.labels()))
    return float(np.abs(found - expected).max()), float(np.ptp(expected, axis=0).max())


def test_fifty_clips_agree(run: Run, file: Path) -> None:
    difference, spread = largest_difference(run, file, random_clips(50))
    assert difference < 1e-4 and spread > 0.5


def test_a_batch_is_its_clips(file: Path) -> None:
    tagger = OnnxTagger(file)
    batch = np.random.default_rng(1).uniform(-0.5, 0.5, (5, 12345)).astype(np.float32)
    together = tagger(batch)
    np.testing.assert_allclose(together, np.concatenate([tagger(clip[None]) for clip in batch]), atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"model__encoders__audio": TAGGING, "model__recurrent": None, "model__heads": {"labels": ATTENTION}},
        {"model__recurrent": {"size": 8, "bidirectional": True, "layers": 2}, "model__fusion": {"depth": "late"},
         "model__heads": {"labels": {"kind": "labels", "pooling": "max", "hidden": 8, "per_class": True}}},
    ],
    ids=["tagging_cnn", "bidirectional"],
)  # fmt: skip
def test_other_taggers_agree(settings: dict, tmp_path: Path) -> None:
    made = untrained(tagger_of(tmp_path / "m", tmp_path, **settings))
    file = export_onnx(made, tmp_path / "tagger.onnx").path
    difference, spread = largest_difference(made, file, random_clips(12))
    assert difference < 1e-4 and spread > 0.02


def spread_out(run: Run, sounds: list[np.ndarray], rate: float) -> None:
    """Scales the last layer so that the logits of these sounds have a deviation of 2: random ones hardly differ."""
    predictor = Predictor(run)
    told = [predictor.hear({"audio": Raw(sound, np.ones(len(sound), bool), rate)}) or {} for sound in sounds]
    logits = np.log([list(chances.values()) for chances in told])
    logits -= logits.mean(axis=1, keepdims=True)
    scale = 2 / (logits - logits.mean(axis=0)).std()
    (last,) = (
        part for name, part in predictor.model.named_modules() if "classify" in name and isinstance(part, Linear)
    )
    with torch.no_grad():
        last.weight.mul_(scale)
        last.bias.sub_(torch.from_numpy(logits.mean(axis=0)).float()).mul_(scale)
    save_weights(predictor.model.state_dict(), run.weights)


def test_the_shipped_tagger_agrees_on_fifty_clips(shared_data: Path, tmp_path: Path) -> None:
    """configs/esc50.yaml as it stands, with random weights, on one clip in forty of ESC-50."""
    paths = sorted((shared_data / "esc50_16k" / "audio").rglob("*.*"))[::40]
    if len(paths) < 50:
        pytest.skip("needs esc50_16k among the real data sets")
    config = load(RunConfig, ROOT / "configs" / "esc50.yaml", (f"runs={tmp_path / 'runs'}",))
    made = untrained(config, [f"class {number}" for number in range(50)])
    sounds = [sound.data for sound in (read_sound(path, 16000, 0.0, 5.0) for path in paths) if sound is not None]
    spread_out(made, sounds[::5], 16000.0)
    file = export_onnx(made, tmp_path / "tagger.onnx").path
    difference, spread = largest_difference(made, file, sounds, 16000.0)
    assert len(sounds) == 50 and difference < 1e-4 and spread > 0.5


def test_the_file_says_what_it_is(run: Run, file: Path) -> None:
    tagger = OnnxTagger(file)
    assert tagger.metadata["labels"] == list(LABELS) and tagger.metadata["sample_rate_hz"] == 8000
    assert tagger.metadata["windows"]["aggregate"] == "mean" and tagger.metadata["windows"]["hop_s"] == 1.0
    assert tagger.metadata["thresholds"] == run.thresholds()["labels"] and tagger.metadata["target"] == "multi"
    assert "commit" in tagger.metadata
    (given,), (said,) = tagger.session.get_inputs(), tagger.session.get_outputs()
    assert (given.name, given.type, len(given.shape)) == ("waveform", "tensor(float)", 2)
    assert said.name == "probabilities" and said.shape[1] == len(LABELS)


def test_a_check_can_fail(run: Run, file: Path) -> None:
    difference, num = check_export(run, file, 4)
    assert difference < 1e-4 and num == 4
    weights = run.weights.read_bytes()
    try:
        model = Predictor(run).model
        with torch.no_grad():
            next(iter(model.parameters())).add_(0.05)
        save_weights(model.state_dict(), run.weights)
        with pytest.raises(InputError, match=r"tagger\.onnx: differs from .* on 4 clips"):
            check_export(run, file, 4)
    finally:
        run.weights.write_bytes(weights)


def test_a_gap_and_a_short_clip_raise_no_alarm(run: Run, file: Path, tmp_path: Path) -> None:
    """A sound that begins late, with a masked second before it, and one of 50 samples, less than a frame."""
    rng = np.random.default_rng(2)
    folder = tmp_path / "set"
    folder.mkdir()
    write_media(folder / "gap.mkv", None, sound_of([("low", 0.2, 0.8)], 1.0, rng).astype(np.float32), 1.0, RATE_HZ)
    write_sound(folder / "short.wav", sound_of([], 50 / RATE_HZ, rng), RATE_HZ)
    write_sound(folder / "plain.wav", sound_of([("high", 0.0, 1.0)], 1.5, rng), RATE_HZ)
    clips = [Clip(path.stem, {"audio": path.name}, "test", path.stem, labels=()) for path in sorted(folder.iterdir())]
    write_manifest(folder / "manifest.jsonl", clips)
    other = Run(run.folder, replace(run.config, data=replace(run.config.data, manifest=str(folder / "manifest.jsonl"))))
    inputs, _ = Predictor(other).read(replace(clips[0], media={"audio": str(folder / "gap.mkv")}))
    assert not inputs["audio"].mask.all()
    difference, num = check_export(other, file, 10)
    assert difference < 1e-4 and num == 3


def test_every_window_is_checked(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """5.5 s in windows of 2 s every second: a file that is wrong in the last one, of 1.5 s, alone is found out."""
    plain, lengths = OnnxTagger.__call__, []

    def spoilt(self: OnnxTagger, waveform: np.ndarray) -> np.ndarray:
        lengths.append(waveform.shape[1])
        return plain(self, waveform) + (0.01 if waveform.shape[1] == 12000 else 0.0)

    monkeypatch.setattr(OnnxTagger, "__call__", spoilt)
    with pytest.raises(InputError, match="differs from"):
        check_export(run, file, 2)
    assert lengths == [16000, 16000, 16000, 16000, 12000] * 2


def test_the_tool_says_what_it_did(told: dict[str, Any], file: Path) -> None:
    assert told["num_checked"] == 3 and told["largest_difference"] < 1e-4
    assert told["num_bytes"] == file.stat().st_size and [path.name for path in file.parent.iterdir()] == ["tagger.onnx"]


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "other.onnx").write_bytes(b"no graph")
    with pytest.raises(InputError, match=r"other\.onnx: is not a tagger"):
        OnnxTagger(tmp_path / "other.onnx")
    with pytest.raises(InputError, match=r"none\.onnx: no such file"):
        OnnxTagger(tmp_path / "none.onnx")


def test_what_is_no_tagger_of_sound_is_named(tmp_path: Path) -> None:
    features = config_of(write_set(tmp_path / "set"), tmp_path)
    run = Run.create(features)
    with pytest.raises(InputError, match=r"reads audio \(features\); only a tagger that reads nothing but the samples"):
        export_onnx(run, tmp_path / "tagger.onnx")
    assert not (tmp_path / "tagger.onnx").exists()
    tree = {"audio": {"kind": "waveform", "sample_rate_hz": 8000}, "video": {"kind": "frames"}}
    encoders = {"audio": TAGGING, "video": {"kind": "frame_cnn"}}
    seen = tagger_of(tmp_path / "m", tmp_path, name="seen", data__inputs=tree, model__encoders=encoders,
                     model__fusion={"depth": "deep"})  # fmt: skip
    with pytest.raises(InputError, match=r"reads video \(frames\)"):
        export_onnx(Run.create(seen), tmp_path / "tagger.onnx")
