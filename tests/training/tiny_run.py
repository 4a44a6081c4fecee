"""A tiny data set of features with labels and captions, and runs on it that take a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mmfusion.config import validate
from mmfusion.data.features import write_features
from mmfusion.data.manifest import write_manifest
from mmfusion.training.run import RunConfig
from mmfusion.types import Clip, Source

LABELS = ("bell", "drum", "rain")


def write_set(folder: Path, sizes: dict[str, int] | None = None, seed: int = 0) -> Path:
    """Clips whose audio features tell the first two classes and whose video features tell the last two."""
    generator = np.random.default_rng(seed)
    clips = []
    for split, size in (sizes or {"train": 20, "val": 9, "test": 11}).items():
        for number in range(size):
            present = generator.random(len(LABELS)) < 0.5
            names = tuple(name for name, there in zip(LABELS, present, strict=True) if there)
            media = {}
            for stream, visible, width, rate in (("audio", (0, 1), 5, 4.0), ("video", (1, 2), 7, 2.0)):
                steps = int(rate * generator.integers(2, 4))
                data = generator.normal(scale=0.3, size=(steps, width)).astype(np.float32)
                data[:, list(visible)] += 2 * present[list(visible)]
                path = folder / stream / f"{split}-{number}.npz"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_features(path, data, rate)
                media[stream] = f"{stream}/{path.name}"
            told = " and ".join(f"a {name}" for name in names) or "nothing"
            clips.append(
                Clip(
                    id=f"{split}-{number}", media=media, split=split, group=f"{split}-{number}", end_s=3.0,
                    labels=names, captions=(told, f"there is {told}"),
                    sources=tuple(Source(name, 0.0, 2.0) for name in names),
                )
            )  # fmt: skip
    write_manifest(folder / "manifest.jsonl", clips)
    return folder / "manifest.jsonl"


def tree_of(manifest: Path, folder: Path, **settings: Any) -> dict[str, Any]:
    """A run on that set as a nested dict; settings are dotted with double underscores (training__epochs=3)."""
    tree: dict[str, Any] = {
        "name": "tiny",
        "runs": str(folder / "runs"),
        "data": {
            "manifest": str(manifest),
            "cache": str(folder / "cache"),
            "cache_workers": 0,
            "inputs": {"audio": {"kind": "features"}, "video": {"kind": "features"}},
            "modality_dropout": {"audio": 0.2},
        },
        "model": {
            "encoders": {
                "audio": {"kind": "precomputed", "width": 8, "dropout": 0.1},
                "video": {"kind": "precomputed", "width": 8},
            },
            "recurrent": {"size": 8, "dropout": 0.1},
            "fusion": {"depth": "deep", "join": {"kind": "concat"}},
            "heads": {
                "labels": {"kind": "labels"},
                "caption": {"kind": "caption", "embedding": 8, "hidden": 12, "dropout": 0.1},
            },
        },
        "training": {"epochs": 3, "batch_size": 6, "tensorboard": False, "optimiser": {"lr": 0.01}},
    }
    for key, value in settings.items():
        *path, last = key.split("__")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        if value is None:
            node.pop(last, None)
        else:
            node[last] = value
    return tree


def config_of(manifest: Path, folder: Path, **settings: Any) -> RunConfig:
    return validate(RunConfig, tree_of(manifest, folder, **settings), "tiny")
