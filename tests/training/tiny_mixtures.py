"""Runs on small mixtures that take a second: `tiny_run`'s settings with mixtures to tag or to separate."""

from __future__ import annotations

import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

from tiny_run import tree_of

from mmfusion.config import validate
from mmfusion.training.run import RunConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from sound_set import RATE

STFT = {"sample_rate_hz": RATE, "window_s": 0.032, "hop_s": 0.008}
MASK = {"kind": "mask", "stft": STFT}
MIXIT = {**MASK, "num_outputs": 4, "loss": {"objective": "mixit"}}
LENGTHS = {"duration_s": 1.0, "num_train": 8, "num_validation": 4, "num_test": 6}
MIXTURE = {"num_sources": 2, **LENGTHS}


def mixture_tree(manifest: Path, folder: Path, **settings: Any) -> dict[str, Any]:
    """A run that separates and tags mixtures of two, as a nested dict; settings as those of `tree_of`."""
    fixed: dict[str, Any] = {
        "data__inputs": {"audio": {"kind": "waveform", "sample_rate_hz": RATE}},
        "data__modality_dropout": None,
        "data__mixture": MIXTURE,
        "data__max_duration_s": 3.0,
        "model__encoders": {"audio": {"kind": "dense_cnn", "width": 16, "blocks": 2, "spectra": {"stft": STFT}}},
        "model__heads": {"separation": MASK, "labels": {"kind": "labels"}},
        "model__recurrent": None,
        "model__fusion": {"depth": "none"},
        "training__epochs": 2,
        "training__batch_size": 4,
        "training__select": "separation.si_sdri",
    }
    return tree_of(manifest, folder, **deepcopy({**fixed, **settings}))


def mixture_config(manifest: Path, folder: Path, **settings: Any) -> RunConfig:
    return validate(RunConfig, mixture_tree(manifest, folder, **settings), "tiny")
