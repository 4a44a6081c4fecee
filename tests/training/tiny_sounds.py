"""A tiny data set of sounds: tones and noise that begin and end, and runs on it that take a few seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mmfusion.config import validate
from mmfusion.data.manifest import write_manifest
from mmfusion.data.media import write_sound
from mmfusion.training.run import RunConfig
from mmfusion.types import Clip, Source

LABELS = ("high", "low", "noise")
RATE_HZ = 8000
SIZES = {"train": 16, "val": 8, "test": 6}
LENGTHS_S = {"train": 2.0, "val": 2.0, "test": 5.5}


def sound_of(events: list[tuple[str, float, float]], length_s: float, rng: np.random.Generator) -> np.ndarray:
    """Faint noise with a tone of 2 kHz, a tone of 300 Hz or loud noise where the events are."""
    time_s = np.arange(round(length_s * RATE_HZ)) / RATE_HZ
    sound = 0.003 * rng.standard_normal(len(time_s))
    for label, start_s, end_s in events:
        waves = {"high": np.sin(2 * np.pi * 2000 * time_s), "low": np.sin(2 * np.pi * 300 * time_s),
                 "noise": rng.standard_normal(len(time_s))}[label]  # fmt: skip
        sound += 0.2 * waves * ((time_s >= start_s) & (time_s < end_s))
    return sound


def write_sounds(folder: Path, seed: int = 0) -> Path:
    """Clips with up to three sounds, each from one whole second to another; test clips are longer than the others."""
    rng = np.random.default_rng(seed)
    clips = []
    for split, size in SIZES.items():
        for number in range(size):
            length_s, events = LENGTHS_S[split], []
            for label in LABELS:
                if rng.random() < 0.5:
                    first = int(rng.integers(0, int(length_s)))
                    events.append((label, float(first), float(first + 1 + rng.integers(0, int(length_s) - first))))
            path = folder / f"{split}-{number}.wav"
            write_sound(path, sound_of(events, length_s, rng), RATE_HZ)
            clips.append(
                Clip(
                    id=path.stem, media={"audio": path.name}, split=split, group=path.stem,
                    labels=tuple(sorted({label for label, *_ in events})),
                    sources=tuple(Source(label, start_s, min(end_s, length_s)) for label, start_s, end_s in events),
                )
            )  # fmt: skip
    write_manifest(folder / "manifest.jsonl", clips)
    return folder / "manifest.jsonl"


def tagger_of(manifest: Path, folder: Path, **settings: Any) -> RunConfig:
    """A tagger of these sounds; settings are dotted with double underscores (model__recurrent=None)."""
    tree: dict[str, Any] = {
        "name": "tagger",
        "runs": str(folder / "runs"),
        "data": {
            "manifest": str(manifest),
            "cache": str(folder / "cache"),
            "cache_workers": 0,
            "max_duration_s": 2.0,
            "inputs": {"audio": {"kind": "waveform", "sample_rate_hz": RATE_HZ}},
        },
        "model": {
            "encoders": {
                "audio": {
                    "kind": "spectrogram_cnn", "rate": 4, "width": 16, "channels": [8, 16],
                    "logmel": {"num_mels": 16, "window_s": 0.05, "hop_s": 0.025},
                }
            },
            "recurrent": {"size": 16},
            "fusion": {"depth": "none"},
            "heads": {"labels": {"kind": "labels", "per_second": True}},
        },
        "training": {"epochs": 12, "batch_size": 8, "tensorboard": False, "optimiser": {"lr": 0.01}},
    }  # fmt: skip
    for key, value in settings.items():
        *path, last = key.split("__")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return validate(RunConfig, tree, "tagger")
