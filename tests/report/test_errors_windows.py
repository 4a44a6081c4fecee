"""Error analysis of runs with windows, and of runs on mixtures: what is graded, what is played, what is left behind."""

from __future__ import annotations

import csv
import json
import sys
import wave
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_page import Elements

from mmfusion.config import validate
from mmfusion.data.manifest import read_manifest, write_manifest
from mmfusion.data.media import read_sound
from mmfusion.data.mixtures.make import Order, make_mixtures
from mmfusion.data.windows import aggregate
from mmfusion.evaluate import evaluate, truth, write_rows
from mmfusion.report.errors import analyse_errors
from mmfusion.report.findings import find_errors
from mmfusion.report.hardest import gradient_norms
from mmfusion.training.loop import train
from mmfusion.training.run import Run, RunConfig
from mmfusion.types import InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
import sound_set
from tiny_run import tree_of
from tiny_sounds import LABELS, RATE_HZ, tagger_of, write_sounds

WINDOWS = {"length_s": 2.0, "hop_s": 1.0, "aggregate": "mean"}
SPANS = [(0.0, 2.0), (1.0, 3.0), (2.0, 4.0), (3.0, 5.0), (4.0, 5.5)]


def said_run(folder: Path, chances: Sequence[np.ndarray], how: str = "mean") -> Run:
    """A run without weights whose windows of the test clips, in order, were given these chances (5, 3) each."""
    manifest = write_sounds(folder / "set")
    windows = {**WINDOWS, "aggregate": how}
    run = Run.create(tagger_of(manifest, folder, windows=windows, model__heads={"labels": {"kind": "labels"}}))
    rows = []
    for clip, own in zip(read_manifest(manifest).split("test"), chances, strict=True):
        parts = [{"start_s": start_s, "end_s": end_s, "labels": dict(zip(LABELS, each.tolist(), strict=True))}
                 for (start_s, end_s), each in zip(SPANS, own, strict=True)]  # fmt: skip
        joined = aggregate(own, how)  # type: ignore[arg-type]
        row = {"id": clip.id, "labels": dict(zip(LABELS, joined.tolist(), strict=True)), "truth": truth(clip)}
        rows.append(row | {"windows": parts})
    write_rows(rows, run.folder / "predictions.test.jsonl")
    return run


def right(folder: Path) -> list[np.ndarray]:
    """Chances of 0.9 for what is true and 0.1 for what is not, in every window."""
    clips = read_manifest(write_sounds(folder / "set")).split("test")
    true = [np.array([label in (clip.labels or ()) for label in LABELS]) for clip in clips]
    return [np.repeat(np.where(own, 0.9, 0.1)[None], len(SPANS), axis=0) for own in true]


def samples(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def test_the_page_plays_the_worst_window(tmp_path: Path) -> None:
    chances = right(tmp_path)
    chances[2][3] = 1 - chances[2][3]  # from 3 s to 5 s all is wrong
    run, out = said_run(tmp_path, chances), tmp_path / "out"
    found = analyse_errors(run, "test", out, number=2)
    assert found.windows == "mean"
    (worst, _) = sorted(found.clips, key=lambda one: -one.loss)[:2]
    assert worst.clip == "test-2" and worst.window is not None
    assert (worst.window.start_s, worst.window.end_s, worst.window.num, worst.window.clip_s) == (3.0, 5.0, 5, 5.5)
    assert worst.window.loss == pytest.approx(-np.log(0.1))
    # The loss is that of the joined probabilities.
    assert worst.loss == pytest.approx(-np.log((4 * 0.9 + 0.1) / 5))
    whole = samples(tmp_path / "set" / "test-2.wav")
    np.testing.assert_array_equal(samples(out / "sounds" / "test-2.wav"), whole[3 * RATE_HZ : 5 * RATE_HZ])
    np.testing.assert_array_equal(samples(out / "whole" / "test-2.wav"), whole)
    text = (out / "index.html").read_text()
    assert "shown from 3 s to 5 s of 5.5 s, the worst of 5 windows (loss 2.3)" in text
    assert "<span>3 s</span><span>4 s</span><span>5 s</span>" in text and "the mean of its windows" in text
    assert next(one["src"] for one in Elements(text).all("audio")) == "sounds/test-2.wav"
    # Labels are of whole clips, so whole clips are what is relabelled.
    (task, _) = json.loads((out / "label_studio_audio.json").read_text())
    assert task["data"]["audio"].endswith("whole/test-2.wav") and task["data"]["worst_start_s"] == 3.0
    with (out / "clips.csv").open() as file:
        assert next(csv.DictReader(file))["worst_start_s"] == "3.0"


def test_a_sum_that_is_no_probability_is_not_ranked_by(tmp_path: Path) -> None:
    """Under han2016 the likeliest class has 1 however unsure the windows are: their own losses rank."""
    chances = [np.full((5, 3), 0.5) for _ in range(6)]
    clips = read_manifest(write_sounds(tmp_path / "set")).split("test")
    one = next(place for place, clip in enumerate(clips) if len(clip.labels or ()) == 1)
    here = LABELS.index((clips[one].labels or ("",))[0])
    chances[one] = np.full((5, 3), 1e-6)
    chances[one][:, here] = 1e-3
    run = said_run(tmp_path, chances, "han2016")
    found = find_errors(run, "test", gradients=False)
    graded = {own.clip: own for own in found.clips}
    assert found.windows == "han2016"
    # By the joined scores (1, 0.001, 0.001) this clip would have next to no loss; no window hears its class.
    assert graded[clips[one].id].loss == pytest.approx(-np.log(1e-3) / 3, rel=1e-3)
    assert max(found.clips, key=lambda own: own.loss).clip == clips[one].id
    assert graded[clips[one - 1].id].loss == pytest.approx(np.log(2))
    assert graded[clips[one - 1].id].score == pytest.approx(0.5), "not 1, which the highest sum always has"
    analyse_errors(run, "test", tmp_path / "out", number=2)
    assert "a score and no probability" in (tmp_path / "out" / "index.html").read_text()


def test_gradients_are_means_over_windows(tmp_path: Path) -> None:
    manifest = write_sounds(tmp_path / "set")
    run = train(tagger_of(manifest, tmp_path, windows=WINDOWS, model__heads={"labels": {"kind": "labels"}},
                          training__epochs=1), quiet=True)  # fmt: skip
    clips = read_manifest(manifest)
    parts = [replace(clip, id=f"{clip.id} {start_s:g}", start_s=start_s, end_s=end_s, sources=())
             for clip in clips.split("test") for start_s, end_s in SPANS]  # fmt: skip
    write_manifest(tmp_path / "set" / "parts.jsonl", [*clips.split("train"), *parts])
    data = replace(run.config.data, manifest=str(tmp_path / "set" / "parts.jsonl"))
    alone = gradient_norms(Run(run.folder, replace(run.config, windows=None, data=data)), "test", "labels")
    norms = gradient_norms(run, "test", "labels")
    assert list(norms) == [clip.id for clip in clips.split("test")]
    for clip, norm in norms.items():
        assert norm == pytest.approx(np.mean([alone[f"{clip} {start_s:g}"] for start_s, _ in SPANS]), rel=1e-4)


def test_predictions_of_before_are_refused_and_baselines_are_of_whole_clips(tmp_path: Path) -> None:
    run = said_run(tmp_path, right(tmp_path))
    path = run.folder / "predictions.test.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    write_rows([{key: value for key, value in row.items() if key != "windows"} for row in rows], path)
    with pytest.raises(InputError, match="evaluate it again"):
        find_errors(run, "test")
    run.write_json("provenance.json", {"baseline": {"kind": "knn"}})
    found = analyse_errors(run, "test", tmp_path / "out")
    assert found.windows is None and all(one.window is None for one in found.clips)
    np.testing.assert_array_equal(samples(tmp_path / "out/sounds/test-1.wav"), samples(tmp_path / "set/test-1.wav"))


def test_only_what_was_written_before_is_removed(tmp_path: Path) -> None:
    run, out = said_run(tmp_path, right(tmp_path)), tmp_path / "out"
    analyse_errors(run, "test", out, number=6)
    (out / "sounds" / "mine.wav").write_bytes(b"mine")
    sounds = {path.name for path in (out / "sounds").iterdir()}
    assert len(sounds) == 7 and len(list((out / "whole").iterdir())) == 6
    analyse_errors(run, "test", out, number=2)
    assert len(list((out / "sounds").iterdir())) == 3 and len(list((out / "whole").iterdir())) == 2
    assert (out / "sounds" / "mine.wav").read_bytes() == b"mine"
    listed = json.loads((out / "written.json").read_text())
    assert all((out / name).is_file() for name in listed) and "sounds/mine.wav" not in listed
    # A list that somebody changed does not reach beyond the folder.
    outside = tmp_path / "outside.txt"
    outside.write_text("stays")
    (out / "written.json").write_text(json.dumps([*listed, "../outside.txt"]))
    analyse_errors(run, "test", out, number=2)
    assert outside.exists()


@pytest.fixture(scope="module")
def mixing(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("mixing")
    manifest = sound_set.write_sounds(folder / "set").path
    tree = tree_of(
        manifest, folder,
        data__inputs={"audio": {"kind": "waveform", "sample_rate_hz": sound_set.RATE}},
        data__modality_dropout=None,
        data__mixture={"num_sources": 2, "duration_s": 1.0, "num_train": 4, "num_validation": 2, "num_test": 4},
        data__max_duration_s=3.0,
        model__encoders={"audio": {"kind": "spectrogram_cnn", "rate": 4, "width": 8, "channels": [4, 4],
                                   "logmel": {"num_mels": 16, "window_s": 0.05, "hop_s": 0.025}}},
        model__recurrent=None, model__fusion={"depth": "none"}, model__heads={"labels": {"kind": "labels"}},
        training__epochs=1,
    )  # fmt: skip
    run = train(validate(RunConfig, tree, "mixing"), quiet=True)
    evaluate(run, quiet=True)
    return run


def test_mixtures_can_be_heard(mixing: Run, tmp_path: Path) -> None:
    """The page plays the very mixtures: those that tools/mix.py writes with the same settings, but for their scale."""
    out = tmp_path / "out"
    found = analyse_errors(mixing, "test", out, number=4)
    text = (out / "index.html").read_text()
    assert len(Elements(text).all("audio")) == 4 and "Not shown" not in text and "only heard" in text
    assert found.clips[0].gradient is not None
    assert len(json.loads((out / "label_studio_audio.json").read_text())) == 4
    order = {"manifest": mixing.config.data.manifest, "out": str(tmp_path / "mixed"), "cache": str(tmp_path / "cache"),
             "mixture": {"num_sources": 2, "duration_s": 1.0}, "sample_rate_hz": sound_set.RATE, "count": 4,
             "splits": ["test"]}  # fmt: skip
    make_mixtures(validate(Order, order, "mix"), progress=False)
    for number in range(4):
        name = f"mix-test-{number:05d}.wav"
        ours, theirs = (
            read_sound(path, sound_set.RATE) for path in (out / "sounds" / name, tmp_path / "mixed/test" / name)
        )
        assert ours is not None and theirs is not None
        np.testing.assert_allclose(ours.data, theirs.data, atol=1e-3)
