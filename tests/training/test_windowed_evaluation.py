"""Evaluation in windows, activity and events second by second, and thresholds that validation alone decides."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_run import config_of, write_set
from tiny_sounds import LABELS, LENGTHS_S, SIZES, tagger_of, write_sounds

from mmfusion.activity import EventsConfig, score_all_thresholds, score_events
from mmfusion.config import load, save
from mmfusion.data.manifest import read_manifest, write_manifest
from mmfusion.ensemble import evaluate_ensemble
from mmfusion.evaluate import chances_of, evaluate, label_truth, read_rows
from mmfusion.metrics.labels import label_metrics
from mmfusion.metrics.resampled import label_statistic
from mmfusion.metrics.thresholds import tune_thresholds
from mmfusion.predict import Asked, predict_files
from mmfusion.training.loop import train
from mmfusion.training.run import Run, RunConfig
from mmfusion.types import InputError

WINDOWS = {"length_s": 2.0, "hop_s": 1.0, "aggregate": "mean"}
TUNED = {"kind": "labels", "per_second": True, "thresholds": "tuned"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained on 2 s, evaluated on 5.5 s in windows, with tuned thresholds."""
    folder = tmp_path_factory.mktemp("windows")
    config = tagger_of(write_sounds(folder / "set"), folder, windows=WINDOWS, model__heads={"labels": TUNED})
    made = train(config, quiet=True)
    evaluate(made, quiet=True)
    return made


def rows_of(run: Run, split: str = "test") -> list[dict[str, Any]]:
    return read_rows(run.folder / f"predictions.{split}.jsonl")


def files_of(run: Run, split: str = "test") -> list[Path]:
    manifest = read_manifest(run.config.data.manifest)
    return [manifest.locate(clip.media["audio"]) for clip in manifest.split(split)]


def test_a_clip_is_the_mean_of_its_windows(run: Run) -> None:
    rows = rows_of(run)
    assert len(rows) == SIZES["test"]
    for row, found in zip(rows, predict_files(run, files_of(run)), strict=True):
        spans = [(part["start_s"], part["end_s"]) for part in found["windows"]]
        assert spans == [(0, 2), (1, 3), (2, 4), (3, 5), (4, 5.5)]
        for kept, part in zip(row["windows"], found["windows"], strict=True):
            assert (kept["start_s"], kept["end_s"]) == (part["start_s"], part["end_s"])
            assert kept["labels"] == pytest.approx(part["labels"], abs=1e-5)
        for label in LABELS:
            parts = [part["labels"][label] for part in found["windows"]]
            assert row["labels"][label] == pytest.approx(np.mean(parts), abs=1e-5)
            assert found["labels"][label] == pytest.approx(row["labels"][label], abs=1e-5)
            assert len(row["activity"][label]) == 6
            np.testing.assert_allclose(found["activity"][label], row["activity"][label], atol=2e-4)


def test_windows_see_what_the_beginning_does_not(run: Run) -> None:
    """The first 2 s alone, which is all that training reads, say something else of a longer clip."""
    heard = [found["labels"] for found in predict_files(run, files_of(run), Asked())]
    assert any(abs(row["labels"][label] - own[label]) > 0.1
               for row, own in zip(rows_of(run), heard, strict=True) for label in LABELS)  # fmt: skip


def test_other_windows_and_other_answers(run: Run) -> None:
    (path, *_) = files_of(run)
    (found,) = predict_files(run, [path], Asked(2.0, 0.5, "han2016"))
    assert [part["start_s"] for part in found["windows"]] == [0.5 * k for k in range(8)]
    total = {label: sum(part["labels"][label] for part in found["windows"]) for label in LABELS}
    assert max(found["labels"].values()) == 1
    for label in LABELS:
        assert found["labels"][label] == pytest.approx(total[label] / max(total.values()), abs=1e-6)


def test_events_are_scored_and_found(run: Run) -> None:
    metrics = run.read_json("metrics.test.json")
    rows = rows_of(run)
    figures = metrics["activity"]
    assert figures["num_clips"] == len(rows) and figures["segment_based"]["resolution_s"] == 1
    assert figures["segment_based"]["f1_micro"] > 0.7, "the tones are easy to hear"
    assert 0 <= figures["segment_based"]["error_rate"] < 1
    assert figures["event_based"]["num_reference"] == sum(len(row["truth"]["events"]) for row in rows)
    row = next(row for row in rows if row["truth"]["events"])
    label, start_s, end_s = max(row["truth"]["events"], key=lambda event: event[2] - event[1])
    (found,) = predict_files(run, [files_of(run)[rows.index(row)]])
    assert [event for event in found["events"] if event["label"] == label and event["start_s"] < end_s > start_s]
    assert all(0 <= event["start_s"] < event["end_s"] <= LENGTHS_S["test"] for event in found["events"])


def test_true_activity_has_perfect_figures(run: Run) -> None:
    """Whole seconds: what is said is exactly what is, and every figure must be best."""
    rows = []
    for row in rows_of(run):
        said = {label: [0.0] * 6 for label in LABELS}
        for label, start_s, end_s in row["truth"]["events"]:
            said[label][int(start_s) : int(np.ceil(end_s))] = [1.0] * (int(np.ceil(end_s)) - int(start_s))
        rows.append({**row, "activity": said})
    figures = score_events(rows, LABELS, None, EventsConfig())["activity"]
    assert figures["segment_based"]["f1_micro"] == 1 and figures["segment_based"]["error_rate"] == 0
    assert figures["event_based"]["f1_micro"] == 1 and figures["event_based"]["error_rate"] == 0
    assert score_all_thresholds(rows, LABELS, EventsConfig())["psds"] > 0.99
    silent = [{**row, "activity": {label: [0.0] * 6 for label in LABELS}} for row in rows]
    assert score_events(silent, LABELS, None, EventsConfig())["activity"]["segment_based"]["error_rate"] == 1
    unknown = [{**row, "truth": {**row["truth"], "events": []}} for row in rows]
    assert score_events(unknown, LABELS, None, EventsConfig()) == {}


def test_psds_is_the_share_that_some_threshold_finds_without_false_events(run: Run) -> None:
    """Of two events of two hours the louder is found at every threshold below 0.9; a false one comes below 0.4."""
    said = {"rain": [0.9] * 3 + [0.0] * 3 + [0.2] * 3 + [0.0] * 3 + [0.4] * 3 + [0.0] * 7185}
    row = {"id": "a", "activity": said, "truth": {"events": [("rain", 0.0, 3.0), ("rain", 6.0, 9.0)]}}
    found = score_all_thresholds([row], ["rain"], EventsConfig())
    # Half of the events without a false one; all of them from one false one in two hours on.
    assert found["psds"] == pytest.approx((0.5 * 0.5 + 1.0 * 99.5) / 100)
    assert (found["dtc"], found["gtc"], found["num_thresholds"]) == (0.5, 0.5, 50)
    assert 0 <= run.read_json("metrics.test.json")["activity"]["intersection_based"]["psds"] <= 1
    assert score_all_thresholds([], ["rain"], EventsConfig()) == {}


def test_gaps_and_specks_go_where_the_run_says_so() -> None:
    """Of 13 seconds, 0-5 and 6-9 are said with one at 11; the truth is 1-9."""
    said = {"rain": [1.0] * 5 + [0.0] + [1.0] * 3 + [0.0, 0.0, 1.0, 0.0]}
    row = {"id": "a", "activity": said, "truth": {"events": [("rain", 1.0, 9.0)]}}

    def figures(**more: float) -> dict[str, Any]:
        return score_events([row], ["rain"], None, EventsConfig(**more))["activity"]["event_based"]

    assert (figures()["num_estimated"], figures()["f1_micro"]) == (3, 0.5)
    assert figures(min_gap_s=1)["num_estimated"] == figures(median_s=1.4)["num_estimated"] == 3
    assert figures(median_s=1.6)["num_estimated"] == 1
    assert figures(min_gap_s=2)["num_estimated"] == 2 and figures(min_gap_s=2)["f1_micro"] == pytest.approx(2 / 3)
    assert figures(min_gap_s=2, min_length_s=2)["f1_micro"] == 1
    assert figures(median_s=3)["f1_micro"] == 1
    assert figures(median_s=3, collar_s=0.5)["f1_micro"] == 0


def test_thresholds_come_from_validation_and_decide(run: Run) -> None:
    found = run.thresholds()
    assert set(found) == {"labels", "activity"} and set(found["labels"]) == set(LABELS)
    evaluate(run, "val", quiet=True)
    rows = rows_of(run, "val")
    reference, known = label_truth(rows, LABELS)
    best = tune_thresholds(reference, chances_of(rows, "labels", LABELS), known)
    np.testing.assert_allclose([found["labels"][label] for label in LABELS], best, atol=1e-6)
    metrics, rows = run.read_json("metrics.test.json")["labels"], rows_of(run)
    reference, known = label_truth(rows, LABELS)
    chances = chances_of(rows, "labels", LABELS)
    tuned = label_metrics(reference, chances, LABELS, known, thresholds=best)
    plain = label_metrics(reference, chances, LABELS, known)
    assert metrics["f1_macro"] == tuned["f1_macro"] and metrics["map"] == plain["map"]
    drawn = label_statistic("f1_macro", reference, chances, known, thresholds=best)
    assert drawn.value == pytest.approx(tuned["f1_macro"])
    assert metrics["per_class"]["low"]["threshold"] == pytest.approx(best[LABELS.index("low")])
    for found_file in predict_files(run, files_of(run)):
        above = [label for label in LABELS if found_file["labels"][label] >= found["labels"][label]]
        assert found_file["detected"] == above and found_file["thresholds"] == found["labels"]


def test_thresholds_decide_only_what_they_were_tuned_for(run: Run) -> None:
    config = run.config.windows
    assert config is not None
    other = Asked(config.length_s, config.hop_s, "max" if config.aggregate != "max" else "mean")
    for found in predict_files(run, files_of(run)[:2], other):
        assert "thresholds" not in found
        assert found["detected"] == [name for name, chance in found["labels"].items() if chance >= 0.5]
        assert any("tuned on other windows" in warning for warning in found["warnings"])
    (usual,) = predict_files(run, files_of(run)[:1])
    assert "thresholds" in usual and "warnings" not in usual


def test_test_labels_do_not_move_thresholds(run: Run, tmp_path: Path) -> None:
    """The same training on a manifest whose test truth is turned round."""
    folder = Path(run.config.data.manifest).parent
    shutil.copytree(folder, tmp_path / "set")
    manifest = read_manifest(tmp_path / "set" / "manifest.jsonl")
    turned = []
    for clip in manifest.clips:
        other = tuple(label for label in LABELS if label not in (clip.labels or ()))
        turned.append(clip if clip.split != "test" else type(clip)(
            clip.id, clip.media, clip.split, clip.group, labels=other))  # fmt: skip
    write_manifest(manifest.path, turned)
    other = train(tagger_of(manifest.path, tmp_path, windows=WINDOWS, model__heads={"labels": TUNED}), quiet=True)
    assert other.thresholds() == run.thresholds()
    assert evaluate(other, quiet=True)["labels"]["map"] != run.read_json("metrics.test.json")["labels"]["map"]


def test_tuned_thresholds_that_are_missing_are_named(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "copy")
    (tmp_path / "copy" / "thresholds.json").unlink()
    with pytest.raises(InputError, match=r"thresholds\.json: no such file"):
        evaluate(Run.open(tmp_path / "copy"), quiet=True)


def test_an_ensemble_tunes_its_own(run: Run, tmp_path: Path) -> None:
    config = tagger_of(Path(run.config.data.manifest), tmp_path, windows=WINDOWS, model__heads={"labels": TUNED})
    together = evaluate_ensemble([run.folder, run.folder], config, "test")
    mine, theirs = together.thresholds()["labels"], run.thresholds()["labels"]
    assert [mine[label] for label in LABELS] == pytest.approx([theirs[label] for label in LABELS], abs=1e-4)
    for row, own in zip(rows_of(together), rows_of(run), strict=True):
        assert list(row["labels"].values()) == pytest.approx(list(own["labels"].values()), abs=1e-5)


def test_an_ensemble_says_when(run: Run, tmp_path: Path) -> None:
    """Two runs that differ: the activity of every second is the mean of theirs, is scored, and has its thresholds."""
    manifest = Path(run.config.data.manifest)
    settings = {"windows": WINDOWS, "model__heads": {"labels": TUNED}, "data__cache": run.config.data.cache}
    other = train(tagger_of(manifest, tmp_path, seed=1, training__epochs=4, **settings), quiet=True)
    evaluate(other, quiet=True)
    together = evaluate_ensemble(
        [run.folder, other.folder], tagger_of(manifest, tmp_path, name="two", **settings), "test"
    )
    for row, *parts in zip(rows_of(together), rows_of(run), rows_of(other), strict=True):
        for label in LABELS:
            mean = np.mean([part["activity"][label] for part in parts], axis=0)
            np.testing.assert_allclose(row["activity"][label], mean, atol=2e-4)
            assert row["labels"][label] == pytest.approx(np.mean([part["labels"][label] for part in parts]), abs=1e-5)
    assert set(together.thresholds()) == {"labels", "activity"}
    assert together.read_json("metrics.test.json")["activity"]["num_clips"] == SIZES["test"]
    settings |= {"model__heads": {"labels": {"kind": "labels"}}, "training__epochs": 0}
    plain = train(tagger_of(manifest, tmp_path, name="plain", **settings), quiet=True)
    with pytest.raises(InputError, match="differs in per_second"):
        evaluate_ensemble([run.folder, plain.folder], tagger_of(manifest, tmp_path, name="none"), "test")


def test_settings_that_make_no_sense_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="windows are for label heads"):
        config_of(write_set(tmp_path / "set"), tmp_path, windows={"length_s": 1.0})
    with pytest.raises(InputError, match="nothing to tune"):
        tagger_of(tmp_path / "m", tmp_path, model__heads__labels={**TUNED, "target": "single"})
    config = tagger_of(write_sounds(tmp_path / "sounds"), tmp_path, data__validation_split="none",
                       model__heads={"labels": TUNED})  # fmt: skip
    with pytest.raises(InputError, match="'none'"):
        train(config, quiet=True)


def test_windows_and_thresholds_are_added_to_a_finished_run(run: Run, tmp_path: Path) -> None:
    """Trained without them, and taken up as docs/predicting.md says: as if they had been there from the start."""
    manifest = Path(run.config.data.manifest)
    plain = train(tagger_of(manifest, tmp_path), quiet=True)
    with pytest.raises(InputError, match=r"was trained with windows = null, .*; give the run another name"):
        train(tagger_of(manifest, tmp_path, windows=WINDOWS), quiet=True)
    settings = [
        "name=whole",
        f"training.start_from={plain.folder}",
        "training.epochs=0",
        "windows={length_s: 2.0, hop_s: 1.0, aggregate: mean}",
        "model.heads.labels.thresholds=tuned",
    ]
    whole = train(load(RunConfig, plain.folder / "config.yaml", settings), quiet=True)
    assert whole.weights_hash() == plain.weights_hash() == run.weights_hash()
    assert whole.thresholds() == run.thresholds()
    assert evaluate(whole, quiet=True) == run.read_json("metrics.test.json")
    with pytest.raises(InputError, match="takes all weights from one run"):
        tagger_of(manifest, tmp_path, training__start_from="a", training__parts_from={"audio": "b"})


def test_old_run_folders_have_no_windows(run: Run, tmp_path: Path) -> None:
    """A configuration that was written before there were any still opens."""
    save(tagger_of(tmp_path / "m", tmp_path), tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text().replace("windows: null\n", "")
    (tmp_path / "config.yaml").write_text(text.replace("      thresholds: fixed\n", ""))
    opened = Run.open(tmp_path)
    assert opened.config.windows is None and opened.thresholds() == {}
    assert json.loads(json.dumps(run.thresholds())) == run.thresholds()
