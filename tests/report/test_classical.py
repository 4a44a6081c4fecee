"""Classical baselines: the numbers they are given, what they learn and must not see, and their rows in a table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.data import mfcc
from mmfusion.data.inputs import FeaturesInput
from mmfusion.data.manifest import read_manifest, write_manifest
from mmfusion.data.media import read_sound, write_sound
from mmfusion.data.mfcc import NUM_STATISTICS, cepstral_statistics
from mmfusion.data.windows import WindowsConfig
from mmfusion.evaluate import in_float32
from mmfusion.report import classical
from mmfusion.report.baseline_runs import baseline_done, make_baseline
from mmfusion.report.classical import ClassicalTagger, sound_statistics
from mmfusion.report.comparison import Baseline, ComparisonConfig, Job, LabelBaseline, jobs_of, load_comparison
from mmfusion.report.execute import make_ready
from mmfusion.report.page import write_page
from mmfusion.report.table import make_table
from mmfusion.report.write import as_csv, as_markdown
from mmfusion.training.run import Run
from mmfusion.training.setup import open_material
from mmfusion.types import Clip, InputError

KINDS: tuple[LabelBaseline, ...] = ("knn", "svm", "forest")
RATE_HZ = 8000


@pytest.fixture(autouse=True)
def small_forest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classical, "NUM_TREES", 25)


def sine(frequency_hz: float, seconds: float = 1.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ + 0.1)


def statistics_of(sound: np.ndarray, mask: np.ndarray | None = None, rate_hz: int = RATE_HZ) -> np.ndarray:
    return cepstral_statistics(sound, np.ones(len(sound), bool) if mask is None else mask, rate_hz)


def test_zero_crossings_are_those_of_the_tone() -> None:
    found = statistics_of(sine(1000.0))
    assert found.shape == (NUM_STATISTICS,) == (26,)
    assert found[12] == pytest.approx(2 * 1000 / RATE_HZ, abs=0.005)
    assert found[25] < 0.05
    residue = np.random.default_rng(0).normal(scale=1e-4, size=RATE_HZ)
    assert statistics_of(residue)[12] == 0
    for length in (1, 5, 100):
        assert np.isfinite(statistics_of(np.zeros(length))).all() and np.isfinite(statistics_of(np.ones(length))).all()


@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(200, 3000), rate_hz=st.sampled_from([8000, 11025, 16000, 44100]), seed=st.integers(0, 9),
    gain=st.floats(0.5, 2.0),
)  # fmt: skip
def test_level_and_what_is_masked_change_nothing(length: int, rate_hz: int, seed: int, gain: float) -> None:
    rng = np.random.default_rng(seed)
    sound = rng.normal(scale=0.1, size=length)
    mask = np.arange(length) < max(1, round(0.6 * length))
    found = statistics_of(sound, mask, rate_hz)
    assert found.shape == (26,) and np.isfinite(found).all()
    other = np.where(mask, gain * sound, rng.normal(size=length))
    assert statistics_of(other, mask, rate_hz) == pytest.approx(found, abs=2e-2)


def test_a_long_sound_is_heard_whole_and_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of blocks are those of the whole, the loudest cell and the masked stretch being in other blocks."""
    rng = np.random.default_rng(0)
    sound = np.concatenate([gain * rng.normal(size=RATE_HZ) for gain in (1e-4, 0.3, 1e-3, 0.05)])
    mask = np.ones(len(sound), bool)
    mask[RATE_HZ // 2 : RATE_HZ] = False
    whole = statistics_of(sound, mask)
    for block in (1, 7, 50):
        monkeypatch.setattr(mfcc, "BLOCK", block)
        assert statistics_of(sound, mask) == pytest.approx(whole, rel=1e-4, abs=1e-4)


def tagger(kind: LabelBaseline, single: bool, **settings: Any) -> ClassicalTagger:
    return ClassicalTagger(Baseline(kind, **settings), single, seed=0)


def blobs(seed: int, num: int, spread: float = 1.0, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Statistics (num, 6) around one centre a class, and the classes (num, C) as 0 and 1."""
    rng = np.random.default_rng(seed)
    label = np.arange(num) % classes
    centres = np.random.default_rng(7).normal(scale=2.0, size=(classes, 6))
    return centres[label] + rng.normal(scale=spread, size=(num, 6)), np.eye(classes)[label]


@pytest.mark.parametrize("kind", KINDS)
def test_the_highest_is_the_classifiers_own_decision(kind: LabelBaseline) -> None:
    """Classes that overlap, so that votes are split and tied; a class that nobody trains on is never said."""
    statistics, truth = blobs(0, 80, spread=3.0)
    truth = np.insert(truth, 2, 0.0, axis=1)
    learner = tagger(kind, single=True)
    learner.fit(statistics, truth, np.ones_like(truth, bool))
    heard, _ = blobs(1, 60, spread=3.0)
    chances = learner.chances(heard)
    assert chances.argmax(axis=1).tolist() == learner._fitted[0].predict(heard).tolist()
    assert chances.sum(axis=1) == pytest.approx(1) and (chances >= 0).all() and not chances[:, 2].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("single", [True, False])
def test_unknown_cells_and_scales_change_nothing(kind: LabelBaseline, single: bool) -> None:
    statistics, truth = blobs(0, 60)
    rng = np.random.default_rng(3)
    known = rng.random(truth.shape) < 0.7
    known = np.broadcast_to(known[:, :1], known.shape) if single else known
    heard, expected = blobs(1, 20)
    first = tagger(kind, single)
    first.fit(statistics, truth, known)
    chances = first.chances(heard)
    hidden = ~known.any(axis=1)
    assert hidden.any()
    second = tagger(kind, single)
    second.fit(np.where(hidden[:, None], 99.0, statistics), np.where(known, truth, 1 - truth), known)
    assert np.array_equal(second.chances(heard), chances)
    third = tagger(kind, single)
    third.fit(statistics * 8 - 4, truth, known)
    assert third.chances(heard * 8 - 4) == pytest.approx(chances, abs=1e-6)
    right = (chances.argmax(axis=1) == expected.argmax(axis=1)) if single else ((chances >= 0.5) == (expected >= 0.5))
    assert right.mean() > 0.9


def test_relevances_count_from_a_half_and_one_sided_classes_are_constant() -> None:
    statistics, truth = blobs(0, 40, spread=0.1, classes=2)
    rated = np.column_stack([np.where(truth[:, 0] > 0, 0.5, 0.49), np.full(40, 0.9), np.full(40, 0.2), truth[:, 1]])
    known = np.ones_like(rated, bool)
    known[:, 3] = False
    for kind in KINDS:
        learner = tagger(kind, single=False)
        learner.fit(statistics, rated, known)
        chances = learner.chances(statistics)
        assert ((chances[:, 0] >= 0.5) == (truth[:, 0] > 0)).all()
        assert chances[:, 1:].tolist() == [[1.0, 0.0, 0.0]] * 40


def test_a_clip_without_sound_is_as_the_mean() -> None:
    statistics, truth = blobs(0, 40)
    for kind in KINDS:
        learner = tagger(kind, single=True)
        learner.fit(statistics, truth, np.ones_like(truth, bool))
        silent = learner.chances(np.full((1, 6), np.nan))
        assert silent == pytest.approx(learner.chances(statistics.mean(axis=0)[None]))
    nobody = np.full((4, 6), np.nan)
    tagger("knn", single=True).fit(nobody, truth[:4], np.ones((4, 4), bool))
    with pytest.raises(InputError, match="a svm row needs training clips of two classes"):
        tagger("svm", single=True).fit(statistics[:1], truth[:1], np.ones((1, 4), bool))


RUN = {
    "name": "start",
    "data": {"inputs": {"audio": {"kind": "waveform", "sample_rate_hz": RATE_HZ}}, "cache_workers": 0},
    "model": {"encoders": {"audio": {"kind": "spectrogram_cnn"}}, "fusion": {"depth": "none"},
              "heads": {"labels": {"kind": "labels", "target": "single"}}},
}  # fmt: skip
CLASSES = ("high", "low", "noise")


def make_sounds(folder: Path, seed: int = 0) -> Path:
    """Three kinds of sound, half a second each: 8 of a kind to train, 3 to test."""
    rng = np.random.default_rng(seed)
    clips = []
    for split, size in (("train", 8), ("test", 3)):
        for name in CLASSES:
            for number in range(size):
                tone = sine(rng.uniform(*{"low": (200, 400), "high": (1500, 2500), "noise": (300, 2000)}[name]), 0.5)
                sound = 0.02 * rng.normal(size=4000) + (0.3 * rng.normal(size=4000) if name == "noise" else tone)
                clip = f"{split}-{name}-{number}"
                write_sound(folder / f"{clip}.wav", np.clip(sound, -1, 1), RATE_HZ)
                clips.append(Clip(clip, {"audio": f"{clip}.wav"}, split, clip, labels=(name,)))
    write_manifest(folder / "manifest.jsonl", clips)
    return folder / "manifest.jsonl"


def make_comparison(folder: Path, rows: dict[str, Any] | None = None, head: dict[str, Any] | None = None,
                    figure: str = "labels.accuracy", **data: Any) -> tuple[ComparisonConfig, list[Job]]:  # fmt: skip
    read = {**RUN["data"], "manifest": str(folder / "manifest.jsonl"), "cache": str(folder / "cache"), **data}
    model = {**RUN["model"], "heads": head or RUN["model"]["heads"]}
    (folder / "run.yaml").write_text(
        yaml.safe_dump({**RUN, "data": read, "model": model, "runs": str(folder / "runs")})
    )
    tree = {"name": "tiny", "title": "Classical", "config": "run.yaml", "seeds": [0, 1], "num_resamples": 100,
            "rows": rows or {kind: {"baseline": kind} for kind in KINDS},
            "figures": [{"name": figure, "title": "accuracy", "significance": True}]}  # fmt: skip
    (folder / "comparison.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    comparison = load_comparison(folder / "comparison.yaml")
    return comparison, jobs_of(comparison, folder / "comparison.yaml")


def predictions(run: Run) -> dict[str, dict[str, Any]]:
    lines = (run.folder / "predictions.test.jsonl").read_text().splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def test_rows_of_sounds_stand_in_one_table(tmp_path: Path) -> None:
    make_sounds(tmp_path)
    comparison, jobs = make_comparison(tmp_path)
    assert [(job.row, job.seed) for job in jobs] == [("knn", 0), ("svm", 0), ("forest", 0), ("forest", 1)]
    make_ready(comparison, jobs)
    for job in jobs:
        assert isinstance(job.instead, Baseline) and not baseline_done(job.config, job.instead, "test")
        run = make_baseline(job.config, job.instead, "test")
        assert baseline_done(job.config, job.instead, "test") and run.labels() == CLASSES
        assert run.read_json("metrics.test.json")["labels"]["accuracy"] == 1.0
    table = make_table(comparison, jobs)
    assert [row.num_parameters for row in table.rows] == [None] * 3
    assert all(row.training_s > 0 for row in table.rows)
    text = as_markdown(table, [])
    assert "| knn | 100.0 [100.0, 100.0] | - |" in text
    assert as_csv(table).splitlines()[1].split(",")[9] == ""
    write_page(table, jobs, [], tmp_path / "index.html")
    assert "forest" in (tmp_path / "index.html").read_text()


def test_test_clips_never_touch_what_is_learnt(tmp_path: Path) -> None:
    """All test clips but one get other sounds, and twice as many come in: what is said of the one stays the same."""
    said = []
    for number in range(2):
        folder = tmp_path / str(number)
        manifest = make_sounds(folder)
        if number:
            kept = read_manifest(manifest).clips
            for clip in kept:
                if clip.split == "test" and clip.id != "test-low-0":
                    write_sound(folder / clip.media["audio"], 0.9 * sine(3000.0, 0.5), RATE_HZ)
            more = [replace(clip, id=f"more-{clip.id}", group=clip.id) for clip in kept if clip.split == "test"]
            write_manifest(manifest, [*kept, *more])
        comparison, jobs = make_comparison(folder)
        make_ready(comparison, jobs)
        said.append([predictions(make_baseline(job.config, job.instead, "test"))["test-low-0"] for job in jobs])  # type: ignore[arg-type]
    assert said[0] == said[1]


def test_thresholds_are_tuned_as_those_of_a_network_are(tmp_path: Path) -> None:
    make_sounds(tmp_path)
    head = {"labels": {"kind": "labels", "thresholds": "tuned"}}
    rows = {"knn": {"baseline": "knn"}}
    comparison, jobs = make_comparison(tmp_path, rows, head, "labels.f1_macro", validation_split="train")
    make_ready(comparison, jobs)
    run = make_baseline(jobs[0].config, jobs[0].instead, "test")  # type: ignore[arg-type]
    found, metrics = run.thresholds()["labels"], run.read_json("metrics.test.json")["labels"]
    assert {name: own["threshold"] for name, own in metrics["per_class"].items()} == found
    assert [row["id"] for row in predictions(run).values()] == [f"test-{n}-{k}" for n in CLASSES for k in range(3)]
    (row,) = make_table(comparison, jobs).rows
    assert row.cells[0].values == (metrics["f1_macro"],)


def test_several_labels_and_relevances(tmp_path: Path) -> None:
    """Noise is unknown in half of the training clips, and ratings of the others say how much there is."""
    manifest = make_sounds(tmp_path)
    clips = []
    for number, clip in enumerate(read_manifest(manifest).clips):
        (name,) = clip.labels or ()
        rated = {other: 0.9 if other == name else 0.1 for other in CLASSES}
        if clip.split == "train" and number % 2:
            rated.pop("noise")
        clips.append(replace(clip, labels=None, relevances=rated))
    write_manifest(manifest, clips)
    comparison, jobs = make_comparison(tmp_path, head={"labels": {"kind": "labels", "target": "multi"}})
    make_ready(comparison, jobs)
    for job in jobs[:3]:
        assert isinstance(job.instead, Baseline)
        metrics = make_baseline(job.config, job.instead, "test").read_json("metrics.test.json")["labels"]
        assert metrics["map"] > 0.9 and metrics["num_known"] == 27


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": {"a": {"baseline": "svm", "neighbours": 3}}}, r"rows\.a\.neighbours: .*: nearest or knn has it"),
        ({"rows": {"a": {"baseline": "knn", "says": "x"}}}, r"rows\.a\.says: .*: constant has it"),
        ({"head": {"caption": {"kind": "caption"}}, "figure": "caption.cider"}, "row knn says labels only"),
        ({"two": True}, "takes exactly one class a clip"),
        ({"leak": True}, "group: 'train-high-0' is in two splits"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    manifest = make_sounds(tmp_path)
    clips = list(read_manifest(manifest).clips)
    if changes.pop("two", False):
        clips[0] = replace(clips[0], labels=("high", "low"))
    if changes.pop("leak", False):
        clips[-1] = replace(clips[-1], group="train-high-0")
    write_manifest(manifest, clips, allow_shared=True)
    with pytest.raises(InputError, match=message):
        comparison, jobs = make_comparison(tmp_path, **changes)
        make_ready(comparison, jobs)
        make_baseline(jobs[0].config, jobs[0].instead, "test")  # type: ignore[arg-type]


def test_listening_needs_sound() -> None:
    cache = SimpleNamespace(inputs={"audio": FeaturesInput()}, manifest=SimpleNamespace(path="manifest.jsonl"))
    with pytest.raises(InputError, match=r"manifest\.jsonl: a knn, svm or forest row listens"):
        sound_statistics(cache, [])  # type: ignore[arg-type]


def test_neighbours_can_be_chosen(tmp_path: Path) -> None:
    make_sounds(tmp_path)
    comparison, jobs = make_comparison(tmp_path, rows={"one": {"baseline": "knn", "neighbours": 1}})
    make_ready(comparison, jobs)
    assert isinstance(jobs[0].instead, Baseline)
    rows = predictions(make_baseline(jobs[0].config, jobs[0].instead, "test"))
    assert {chance for row in rows.values() for chance in row["labels"].values()} == {0.0, 1.0}


def test_clips_in_windows_are_heard_whole(tmp_path: Path) -> None:
    """Every clip begins with the same half second; what tells the classes apart comes after it."""
    manifest = make_sounds(tmp_path)
    beginning = sine(700.0, 0.5)
    for clip in read_manifest(manifest).clips:
        path = tmp_path / clip.media["audio"]
        sound = read_sound(path, RATE_HZ)
        assert sound is not None
        write_sound(path, np.concatenate([beginning, sound.data, sound.data]), RATE_HZ)
    comparison, jobs = make_comparison(tmp_path, max_duration_s=0.5)
    make_ready(comparison, jobs)
    assert isinstance(jobs[0].instead, Baseline)
    deaf = make_baseline(jobs[0].config, jobs[0].instead, "test").read_json("metrics.test.json")
    assert deaf["labels"]["accuracy"] < 0.7
    jobs = [replace(job, config=replace(job.config, name=f"whole-{job.row}", windows=WindowsConfig(length_s=0.5)))
            for job in jobs]  # fmt: skip
    make_ready(comparison, jobs)
    for job in jobs:
        assert isinstance(job.instead, Baseline)
        metrics = make_baseline(job.config, job.instead, "test").read_json("metrics.test.json")
        assert metrics["labels"]["accuracy"] == 1.0


def test_windows_are_made_ready_with_everything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After make_ready a windowed network decodes nothing more, for its figures nor for its thresholds."""
    make_sounds(tmp_path)
    head = {"labels": {"kind": "labels", "thresholds": "tuned"}}
    comparison, jobs = make_comparison(tmp_path, {"cnn": {}}, head, "labels.map", max_duration_s=0.2,
                                       validation_split="train")  # fmt: skip
    jobs = [replace(job, config=replace(job.config, windows=WindowsConfig(length_s=0.2))) for job in jobs[:1]]
    make_ready(comparison, jobs)
    material = open_material(Run.create(jobs[0].config), in_float32(), quiet=True)
    monkeypatch.setattr("mmfusion.data.cache.build_shards", lambda *_: pytest.fail("something was not made ready"))
    for split, size in (("test", 9), ("train", 24)):
        clips, reader = material.in_windows(split, jobs[0].config.data, WindowsConfig(length_s=0.2))
        assert len(clips) == size and {len(own) for own in reader.windows.values()} == {3}


def test_a_row_of_another_method_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_sounds(tmp_path)
    comparison, jobs = make_comparison(tmp_path, rows={"knn": {"baseline": "knn"}})
    make_ready(comparison, jobs)
    config, baseline = jobs[0].config, jobs[0].instead
    assert isinstance(baseline, Baseline)
    run = make_baseline(config, baseline, "test")
    assert baseline_done(config, baseline, "test")
    for module, name, value in ((mfcc, "SILENCE", 2e-3), (mfcc, "METHOD", 99), (classical, "METHOD", 99)):
        with monkeypatch.context() as changed:
            changed.setattr(module, name, value)
            assert not baseline_done(config, baseline, "test")
    assert baseline_done(config, baseline, "test")
    facts = run.read_json("provenance.json")
    facts.pop("method")  # as rows had it that were made before methods were noted
    run.write_json("provenance.json", facts)
    assert not baseline_done(config, baseline, "test")
