"""A run on mixtures that are made on the fly: trained, evaluated and described like any other."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_run import tree_of

from mmfusion.config import validate
from mmfusion.evaluate import evaluate, read_rows
from mmfusion.training.loop import train
from mmfusion.training.run import RunConfig
from mmfusion.types import InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from sound_set import write_sounds


def config_of(manifest: Path, folder: Path, **settings: Any) -> RunConfig:
    fixed: dict[str, Any] = {
        "data__inputs": {"audio": {"kind": "waveform", "sample_rate_hz": 8000}},
        "data__modality_dropout": None,
        "data__mixture": {"num_sources": 2, "duration_s": 1.0, "num_train": 8, "num_validation": 4, "num_test": 6},
        "model__encoders": {"audio": {"kind": "spectrogram_cnn", "rate": 2, "channels": [4, 4], "width": 8}},
        "model__heads": {"labels": {"kind": "labels"}},
        "model__recurrent": None,
        "model__fusion": {"depth": "none"},
        "training__epochs": 2,
        "training__batch_size": 4,
        "training__select": "labels.map",
    }
    return validate(RunConfig, tree_of(manifest, folder, **{**fixed, **settings}), "tiny")


def test_a_run_on_mixtures(tmp_path: Path) -> None:
    manifest = write_sounds(tmp_path / "set")
    run = train(config_of(manifest.path, tmp_path), quiet=True)
    figures = evaluate(run, quiet=True)
    assert figures["num_clips"] == 6 and 0 < figures["labels"]["map"] <= 1
    rows = read_rows(run.folder / "predictions.test.jsonl")
    assert [row["id"] for row in rows] == [f"mix-test-{number:05d}" for number in range(6)]
    assert all(len(row["truth"]["labels"]) == 2 for row in rows)
    assert list(rows[0]["labels"]) == list(run.labels()) == [f"class {number}" for number in range(5)]
    facts = run.read_json("provenance.json")
    assert set(facts["splits"]) == {"train", "val", "test"} and facts["splits"]["test"] == figures["clips"]
    # Another run seed sees the same test mixtures, another mixture seed others.
    other = evaluate(train(config_of(manifest.path, tmp_path, seed=1), quiet=True), quiet=True)
    assert other["clips"] == figures["clips"]
    mixture = {"num_sources": 2, "duration_s": 1.0, "num_train": 8, "num_validation": 4, "num_test": 6, "seed": 1}
    config = config_of(manifest.path, tmp_path, name="others", data__mixture=mixture, training__epochs=0)
    assert evaluate(train(config, quiet=True), quiet=True)["clips"] != figures["clips"]


def test_a_mixture_is_longer_than_what_is_read_of_its_clips(tmp_path: Path) -> None:
    manifest = write_sounds(tmp_path / "set")
    mixture = {"num_sources": 2, "duration_s": 3.0, "num_train": 4, "num_validation": 2, "num_test": 8}
    config = config_of(manifest.path, tmp_path, data__mixture=mixture, data__max_duration_s=1.0, training__epochs=0)
    run = train(config, quiet=True)
    evaluate(run, quiet=True)
    rows = read_rows(run.folder / "predictions.test.jsonl")
    events = [event for row in rows for event in row["truth"]["events"]]
    assert len(events) == 16 and max(end_s for _, _, end_s in events) > 2.0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model__heads__labels__target": "single"}, r"model\.heads\.labels: a mixture"),
        ({"training__cache_frozen": True}, r"training\.cache_frozen: mixtures"),
        ({"training__sampling": "balanced"}, r"training\.sampling: the classes of mixtures"),
    ],
)
def test_what_does_not_go_with_mixtures(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        config_of(tmp_path / "manifest.jsonl", tmp_path, **settings)
