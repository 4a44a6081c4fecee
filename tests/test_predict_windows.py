"""Prediction beyond the beginning of a file: windows, feature files, captions checked by the sound, subtitles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmfusion.config import load_tree, validate
from mmfusion.data.features import write_features
from mmfusion.data.media import write_clip
from mmfusion.data.raw import Raw
from mmfusion.evaluate import evaluate, read_rows
from mmfusion.language.vocab import Vocabulary
from mmfusion.metrics.captions import CAPTION_METRICS
from mmfusion.model import build_model
from mmfusion.predict import Asked, as_text, predict_files
from mmfusion.predictor import Predictor
from mmfusion.report import grounding
from mmfusion.report.asking import asked_for
from mmfusion.report.grounding import Grounder, measure_grounding
from mmfusion.training.checkpoint import save_weights
from mmfusion.training.loop import train
from mmfusion.training.run import Run, RunConfig
from mmfusion.types import Facts, InputError

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "training"))
from tiny_run import config_of, write_set  # noqa: E402

NOTHING = {"features": [], "window": None, "hop": None, "aggregate": None, "events": False, "srt": None, "vtt": None,
           "ground": False, "rerank": False, "tagger": None, "ontology": None}  # fmt: skip


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """9.5 s of noise and moving colours, with and without sound."""
    folder, rng = tmp_path_factory.mktemp("films"), np.random.default_rng(0)
    frames = np.repeat(rng.integers(0, 255, (19, 64, 64, 3), dtype=np.uint8), 6, axis=0)
    sound = (0.1 * rng.standard_normal(int(9.5 * 16000))).astype(np.float32)
    write_clip(folder / "loud.mp4", frames, 12, sound, 16000)
    write_clip(folder / "mute.mp4", frames, 12, None, 16000)
    return {"loud": folder / "loud.mp4", "mute": folder / "mute.mp4"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of the synthetic set with random weights; every word that it can say is one to check."""
    tree = load_tree(ROOT / "configs/synthetic.yaml", ["name=random", "search={kind: beam, max_words: 6}"])
    tree |= {"runs": str(tmp_path_factory.mktemp("runs"))}
    tree["model"]["fusion"] = {"depth": "deep"}
    made = Run.create(validate(RunConfig, tree, "random"))
    made.write_json("labels.json", ["ball", "bell", "siren"])
    vocabulary = Vocabulary.build(["bell rings", "siren wails"])
    vocabulary.save(made.folder / "vocabulary.json")
    torch.manual_seed(1)
    model = build_model(made.config.model, Facts(made.labels(), vocabulary.words))
    save_weights(model.state_dict(), made.weights)
    return made


@pytest.fixture(scope="module")
def of_features(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("features")
    config = config_of(
        write_set(folder / "set"), folder, data__inputs__audio__standardize=True, search={"kind": "beam"}
    )
    return train(config, quiet=True)


def test_a_window_is_the_clip_that_it_says(run: Run, films: dict[str, Path]) -> None:
    (whole,) = predict_files(run, [films["loud"]], Asked(window_s=4.0))
    assert [(part["start_s"], round(part["end_s"], 1)) for part in whole["windows"]] == [(0, 4), (4, 8), (8, 9.5)]
    (first,) = predict_files(run, [films["loud"]])
    assert first["labels"] == whole["windows"][0]["labels"] and first["caption"] == whole["windows"][0]["caption"]
    assert whole["labels"] == {name: max(part["labels"][name] for part in whole["windows"]) for name in first["labels"]}
    (coarse,) = predict_files(run, [films["loud"]], Asked(window_s=100.0))
    assert len(coarse["windows"]) == 1 and coarse["windows"][0]["end_s"] == pytest.approx(9.5, abs=0.1)
    assert "8.0-9.5 s" in as_text(whole, 3)
    (joined,) = [line for line in as_text(whole, 1).splitlines() if line.startswith("  joined")]
    best = max(whole["labels"], key=whole["labels"].get)
    assert joined.split() == ["joined", best, f"{whole['labels'][best]:.2f}"] and "joined" not in as_text(first, 3)
    (overlapping,) = predict_files(run, [films["loud"]], asked_for(run, Namespace(**{
        **NOTHING, "files": [films["loud"]], "hop": 2.0, "aggregate": "mean"})))  # fmt: skip
    assert [part["start_s"] for part in overlapping["windows"]] == [0, 2, 4, 6]
    parts = [part["labels"]["bell"] for part in overlapping["windows"]]
    assert overlapping["labels"]["bell"] == pytest.approx(np.mean(parts))


def test_a_picture_and_a_broken_file_in_windows(run: Run, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (64, 64), (200, 30, 30)).save(tmp_path / "red.png")
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    still, broken = predict_files(run, [tmp_path / "red.png", tmp_path / "broken.mp4"], Asked(window_s=4.0))
    assert len(still["windows"]) == 1 and still["caption"]
    assert set(broken) == {"path", "error"}


def test_captions_are_checked_by_the_sound_alone(run: Run, films: dict[str, Path]) -> None:
    grounder = Grounder(run)
    loud, mute = predict_files(run, [films["loud"], films["mute"]], Asked(checker=grounder))
    assert loud["grounding"]["words"] and "no sound" not in " ".join(loud["grounding"]["notes"])
    assert any("not tuned" in note for note in loud["grounding"]["notes"])
    for word in loud["grounding"]["words"]:
        assert word["verdict"] in ("supported", "contradicted", "silent", "unchecked")
    assert mute["grounding"]["notes"][0] == "no sound to check against"
    assert all(word["verdict"] == "unchecked" for word in mute["grounding"]["words"])
    # The pictures must not be heard: the same sound under other pictures, or none, has the same probabilities.
    predictor = grounder.ear
    inputs, _ = predictor.read(replace(_clip(films["loud"]), end_s=4.0))
    assert set(inputs) == {"audio", "video"}
    assert predictor.hear(inputs) == predictor.hear({"audio": inputs["audio"]}) != loud["labels"]
    assert predictor.hear({"video": inputs["video"]}) is None


def _clip(path: Path):
    from mmfusion.types import Clip

    return Clip("x", {"audio": str(path), "video": str(path)}, "test", "x")


def test_features_predict_what_the_evaluation_did(of_features: Run) -> None:
    """Standardized by the training split, and with one of two streams missing."""
    evaluate(of_features, quiet=True)
    folder = Path(of_features.config.data.manifest).parent
    for row in read_rows(of_features.folder / "predictions.test.jsonl")[:3]:
        features = {name: folder / name / f"{row['id']}.npz" for name in ("audio", "video")}
        (found,) = predict_files(of_features, [], Asked(features=features))
        assert found["caption"] == row["caption"] and not found["has_audio"]
        np.testing.assert_allclose(list(found["labels"].values()), list(row["labels"].values()), atol=1e-5)
        (half,) = predict_files(of_features, [], Asked(features={"video": features["video"]}, window_s=1.0))
        assert len(half["windows"]) in (2, 3) and half["labels"] != found["labels"]


def test_an_input_that_is_not_there_keeps_its_rate(of_features: Run) -> None:
    """The rate of the grid must not depend on whether a clip has a file."""
    facts = of_features.feature_facts()
    assert facts["audio"]["rate"] == 4.0 and facts["video"]["width"] > 1
    predictor = Predictor(of_features)
    raw = Raw(np.zeros((4, facts["video"]["width"]), np.float32), np.ones(4, bool), facts["video"]["rate"])
    batch = predictor.batch({"video": raw})
    assert batch.inputs["audio"].rate == facts["audio"]["rate"] and not batch.inputs["audio"].mask.any()


def test_features_that_do_not_fit_are_named(of_features: Run, run: Run, tmp_path: Path) -> None:
    write_features(tmp_path / "wide.npz", np.zeros((4, 9), np.float32), 2.0)
    (found,) = predict_files(of_features, [], Asked(features={"video": tmp_path / "wide.npz"}))
    assert "(9,)" in found["error"] and "(7,)" in found["error"]
    with pytest.raises(InputError, match="give --features audio=FILE"):
        next(predict_files(of_features, ["film.mp4"]))
    with pytest.raises(InputError, match="no input of precomputed features"):
        next(predict_files(run, [], Asked(features={"audio": tmp_path / "wide.npz"})))


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({}, "give a FILE"),
        ({"files": ["a", "b"], "srt": "out.srt"}, "one FILE"),
        ({"files": ["a"], "window": -1.0}, "--window"),
        ({"files": ["a"], "window": 2.0, "hop": 3.0}, "--hop: must be above 0 and at most the window's 2 s"),
        ({"files": ["a"], "hop": 0.0}, "--hop"),
        ({"files": ["a"], "hop": 1.0, "srt": "out.srt"}, "leave --hop out"),
        ({"files": ["a"], "events": True}, "no label head with per_second"),
        ({"files": ["a"], "features": ["audio"]}, "NAME=FILE.npz"),
        ({"files": ["a"], "tagger": "runs/x"}, "--tagger"),
        ({"files": ["a"], "rerank": True}, "tools/ground.py"),
    ],
)
def test_what_cannot_be_asked_is_refused(run: Run, given: dict, what: str) -> None:
    with pytest.raises(InputError, match=what):
        asked_for(run, Namespace(**{**NOTHING, "files": [], **given}))


def test_measured_tuned_and_recalled(of_features: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures' form, thresholds for these weights alone, and re-ranking by what was tuned (scores without Java)."""

    def scores(references, candidates):
        clips = {clip: {name: float(len(said)) for name in CAPTION_METRICS} for clip, said in candidates.items()}
        return {name: float(np.mean([row[name] for row in clips.values()])) for name in CAPTION_METRICS} | {
            "per_clip": clips
        }

    monkeypatch.setattr(grounding, "caption_metrics", scores)
    found = measure_grounding(of_features, "test")
    assert found["num_clips"] == 11 and set(found["verdicts"]) == {"said", "nbest", "references", "swapped"}
    # The tiny set's captions are true, and a plain mention is never contradicted.
    assert found["verdicts"]["references"]["contradicted"]["words"] == 0
    assert found["verdicts"]["references"]["supported"]["words"] > 0
    gain = found["rerank"]
    assert gain["weight"] == 0 or gain["after"]["cider"] >= gain["before"]["cider"] or gain["num_changed"]
    assert "re-ranking" in grounding.as_table(found)
    assert set(Grounder(of_features).thresholds) == set(of_features.labels())
    clip = Path(of_features.config.data.manifest).parent / "audio" / "test-0.npz"
    given = {**NOTHING, "files": [], "features": [f"audio={clip}"], "rerank": True}
    (row,) = predict_files(of_features, [], asked_for(of_features, Namespace(**given)))
    assert row["caption"] and row["grounding"]["notes"][-1] == "thresholds tuned on val"
    tuned = of_features.folder / "grounding.json"
    tuned.write_text(json.dumps(json.loads(tuned.read_text()) | {"weights": "others"}))
    assert "other weights" in Grounder(of_features).notes[1] and not Grounder(of_features).thresholds


def test_the_tool_writes_subtitles_and_verdicts(run: Run, films: dict[str, Path], tmp_path: Path) -> None:
    words = ["tools/predict.py", run.folder, films["mute"], "--srt", tmp_path / "out.srt", "--ground", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert row["grounding"]["notes"][0] == "no sound to check against" and len(row["windows"]) == 3
    assert (tmp_path / "out.srt").read_text().startswith("1\n00:00:00,000 --> 00:00:04,000\n")
