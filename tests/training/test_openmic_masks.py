"""OpenMIC-shaped ratings, from the npz to the weights: what nobody rated changes nothing, whatever is written there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_run import config_of

from mmfusion.data.catalog.registry import prepare_set, settings
from mmfusion.evaluate import evaluate
from mmfusion.training.checkpoint import load_weights
from mmfusion.training.loop import train
from mmfusion.training.run import Run

NUM_CLIPS, CLASSES = 24, ("banjo", "cello", "flute")


def openmic(root: Path, fill: float) -> Path:
    """Embeddings whose first features tell how much of each class there is; `fill` stands where nothing was rated."""
    rng = np.random.default_rng(0)
    keys = [f"{number:06d}_0" for number in range(NUM_CLIPS)]
    relevance = rng.uniform(size=(NUM_CLIPS, len(CLASSES)))
    mask = rng.uniform(size=relevance.shape) < 0.6
    mask[:, 0] |= ~mask.any(axis=1)
    features = rng.integers(0, 40, (NUM_CLIPS, 10, 6))
    features[:, :, : len(CLASSES)] = (255 * relevance)[:, None]
    (root / "partitions").mkdir(parents=True)
    truth = np.where(mask, relevance, fill)
    arrays = {"X": features.astype(np.uint8), "Y_true": truth, "Y_mask": mask}
    np.savez(root / "openmic-2018.npz", **arrays, sample_key=np.array(keys, object))
    (root / "class-map.json").write_text(json.dumps({name: number for number, name in enumerate(CLASSES)}))
    (root / "partitions" / "split01_train.csv").write_text("\n".join(keys[:16]) + "\n")
    (root / "partitions" / "split01_test.csv").write_text("\n".join(keys[16:]) + "\n")
    return root


def trained(folder: Path, fill: float, target: str) -> Run:
    prepared = prepare_set("openmic", openmic(folder / "set", fill), folder / "out", settings("openmic", ()))
    config = config_of(
        prepared.manifests[0], folder, data__inputs={"vggish": {"kind": "features", "standardize": True}},
        data__modality_dropout=None, model__encoders={"vggish": {"kind": "precomputed", "width": 8}},
        model__recurrent=None, model__fusion={"depth": "none"},
        model__heads={"labels": {"kind": "labels", "target": target, "hidden": 6, "per_class": True}},
        training__epochs=20,
    )  # fmt: skip
    return train(config, quiet=True)


@pytest.mark.parametrize("target", ["multi", "relevance"])
def test_unrated_cells_are_never_touched(target: str, tmp_path: Path) -> None:
    runs = [trained(tmp_path / str(fill), fill, target) for fill in (0.5, 0.0, 1.0)]
    weights = [load_weights(run.weights) for run in runs]
    for other in weights[1:]:
        assert all((weights[0][name] == value).all() for name, value in other.items())
    figures = [evaluate(run, quiet=True)["labels"] for run in runs]
    assert figures[0] == figures[1] == figures[2]
    assert figures[0]["num_known"] < 8 * len(CLASSES)
    # What was rated is learnt: clips can be sorted by how much of a class there is.
    assert figures[0]["spearman"] > 0.5 and figures[0]["lrap"] > 0.7
    assert set(figures[0]["per_class"]["cello"]) >= {"spearman", "average_precision"}
