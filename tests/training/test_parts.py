"""Runs as parts of others, frozen encoders from the cache, and what is chosen on validation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import config_of, write_set

from mmfusion.config import load
from mmfusion.data.synthetic import SyntheticConfig, make_synthetic
from mmfusion.evaluate import evaluate, read_rows
from mmfusion.training.checkpoint import load_weights
from mmfusion.training.log import read_log
from mmfusion.training.loop import train
from mmfusion.training.run import Run, RunConfig
from mmfusion.types import InputError

ALONE = {"model__fusion": {"depth": "none"}, "data__modality_dropout": {}}


def parts(manifest: Path, folder: Path) -> dict[str, str]:
    """Finished runs of the audio and of the video alone."""
    found = {}
    for stream, other in (("audio", "video"), ("video", "audio")):
        config = config_of(manifest, folder, name=stream, **ALONE, **{f"model__encoders__{other}": None})
        found[stream] = str(train(config, quiet=True).folder)
    return found


def chances(run: Run) -> np.ndarray:
    evaluate(run, quiet=True)
    rows = read_rows(run.folder / "predictions.test.jsonl")
    return np.array([[row["labels"][name] for name in run.labels()] for row in rows])


def late(manifest: Path, folder: Path, runs: dict[str, str], name: str, **mix: object) -> Run:
    fusion = {"depth": "late", "mix": mix}
    settings = {"model__fusion": fusion, "training__parts_from": runs, "training__epochs": 0}
    return train(config_of(manifest, folder, name=name, **settings), quiet=True)


def test_late_from_parts_mixes_the_very_runs(tmp_path: Path) -> None:
    manifest = write_set(tmp_path / "set")
    runs = parts(manifest, tmp_path)
    alone = [chances(Run.open(folder)) for folder in runs.values()]
    mean = late(manifest, tmp_path, runs, "mean", rule="linear")
    np.testing.assert_allclose(chances(mean), np.mean(alone, axis=0), atol=1e-6)
    product = late(manifest, tmp_path, runs, "product", rule="loglinear", normalize=False)
    odds = np.prod([one / (1 - one) for one in alone], axis=0)
    np.testing.assert_allclose(chances(product), odds / (1 + odds), atol=1e-5)


def test_tuned_weights_are_stored_and_no_worse_on_validation(tmp_path: Path) -> None:
    manifest = write_set(tmp_path / "set", {"train": 20, "val": 40, "test": 11})
    runs = parts(manifest, tmp_path)
    tuned = late(manifest, tmp_path, runs, "tuned", rule="linear", weights={"kind": "tuned"})
    weights = load_weights(tuned.weights)["heads.labels.weights"]
    assert weights.sum().item() == pytest.approx(1) and (weights >= 0).all()
    again = late(manifest, tmp_path, runs, "again", rule="linear", weights={"kind": "tuned"})
    assert torch.equal(load_weights(again.weights)["heads.labels.weights"], weights)


def test_parts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    manifest = write_set(tmp_path / "set")
    runs = parts(manifest, tmp_path)
    with pytest.raises(InputError, match="no such stream"):
        late(manifest, tmp_path, {"sound": runs["audio"]}, "a", rule="linear")
    (Path(runs["audio"]) / "finished.json").unlink()
    with pytest.raises(InputError, match="not trained to its end"):
        late(manifest, tmp_path, runs, "b", rule="linear")


def test_select_keeps_the_best_epoch_of_validation(tmp_path: Path) -> None:
    manifest = write_set(tmp_path / "set")
    settings = {"training__epochs": 6, "training__select": "labels.loss", "training__optimiser": {"lr": 0.2}}
    run = train(config_of(manifest, tmp_path, **settings), quiet=True)
    rows = [row for row in read_log(run.folder / "metrics.csv") if row["figure"] == "labels.loss"]
    losses = {row["epoch"]: row["value"] for row in rows if row["split"] == "validation"}
    assert len(losses) == 6
    assert json.loads((run.folder / "finished.json").read_text())["best_epoch"] == min(losses, key=losses.__getitem__)
    impatient = train(config_of(manifest, tmp_path, name="impatient", training__patience=1, **settings), quiet=True)
    assert json.loads((impatient.folder / "finished.json").read_text())["epochs"] <= 6
    with pytest.raises(InputError, match=r"training\.select: no figure 'labels\.mpa'"):
        train(config_of(manifest, tmp_path, name="typo", training__select="labels.mpa"), quiet=True)


def test_single_label_heads_want_exactly_one_class(tmp_path: Path) -> None:
    manifest = write_set(tmp_path / "set")
    with pytest.raises(InputError, match="takes exactly one class a clip"):
        train(
            config_of(manifest, tmp_path, model__heads={"labels": {"kind": "labels", "target": "single"}}), quiet=True
        )


def test_frozen_encoders_train_from_the_cache_alike(tmp_path: Path, root: Path) -> None:
    """The same weights come out whether frozen encoders run in every epoch or once."""
    sizes = SyntheticConfig(train_clips=6, val_clips=2, test_clips=2)
    manifest = make_synthetic(tmp_path / "set", sizes, workers=1, progress=False)
    found = []
    for cached in (True, False):
        overrides = [
            f"name=cached-{cached}", f"runs={tmp_path / 'runs'}", f"data.manifest={manifest}", "data.cache_workers=0",
            f"data.cache={tmp_path / 'cache'}", "training.epochs=2", "training.batch_size=3", "training.precision=fp32",
            "training.tensorboard=false", "model.encoders.audio.frozen=true", "model.encoders.video.frozen=true",
            f"training.cache_frozen={str(cached).lower()}",
        ]  # fmt: skip
        run = train(load(RunConfig, root / "configs/synthetic/deep.yaml", overrides), quiet=True)
        found.append(load_weights(run.weights))
    for name, tensor in found[0].items():
        torch.testing.assert_close(tensor, found[1][name], atol=1e-4, rtol=1e-3, msg=name)
    assert any("encoders.audio" in name for name in found[0])
