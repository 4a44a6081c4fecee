"""A small data set of real files of every kind, made in a temporary folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mmfusion.config import validate
from mmfusion.data.features import write_features
from mmfusion.data.inputs import DataConfig
from mmfusion.data.manifest import Manifest, read_manifest, write_manifest
from mmfusion.data.media import write_clip, write_picture, write_sound
from mmfusion.types import Clip, Source

INPUTS = {
    "audio": {"kind": "waveform", "sample_rate_hz": 8000},
    "video": {"kind": "frames", "rate": 4.0, "size_px": 16},
    "flow": {"kind": "features"},
}


def make_set(folder: Path, num_clips: int = 8) -> Manifest:
    """Clips of four kinds in turn: wav + png + npz, mp4 with both, sound only, picture only; lengths differ."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    clips = [_clip(folder, number, rng) for number in range(num_clips)]
    write_manifest(folder / "manifest.jsonl", clips)
    return read_manifest(folder / "manifest.jsonl")


def _clip(folder: Path, number: int, rng: np.random.Generator) -> Clip:
    length_s = 0.5 + 0.25 * (number % 3)
    sound = rng.uniform(-0.5, 0.5, int(8000 * length_s))
    picture = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    media: dict[str, str] = {}
    if number % 4 == 1:
        frames = rng.integers(0, 256, (round(8 * length_s), 16, 16, 3), dtype=np.uint8)
        write_clip(folder / f"{number}.mp4", frames, 8, sound, 8000)
        media = {"audio": f"{number}.mp4", "video": f"{number}.mp4"}
    if number % 4 in (0, 2):
        write_sound(folder / f"{number}.wav", sound, 8000)
        media["audio"] = f"{number}.wav"
    if number % 4 in (0, 3):
        write_picture(folder / f"{number}.png", picture)
        media["video"] = f"{number}.png"
    if number % 4 == 0:
        features = rng.normal(3.0, 2.0, (2 + number % 3, 5)).astype(np.float32)
        write_features(folder / f"{number}.npz", features, 2.0)
        media["flow"] = f"{number}.npz"
    return Clip(
        id=f"clip{number}",
        media=media,
        split=("train", "train", "train", "train", "val", "test", "train", "train")[number % 8],
        group=f"g{number}",
        labels=("bell",) if number % 2 else (),
        captions=tuple(f"caption {letter} of {number}" for letter in "abcdefg"[: number % 8]),
        sources=(Source("bell", 0.25, 0.5),) if number % 2 else (),
    )


def data_config(manifest: Manifest, **changes: Any) -> DataConfig:
    """A configuration for the set, with its cache beside it."""
    tree = {
        "manifest": str(manifest.path),
        "cache": str(manifest.path.parent / "cache"),
        "inputs": INPUTS,
        "cache_workers": 0,
        **changes,
    }
    return validate(DataConfig, tree, "test")
