"""Figures of the validation split during training."""

from __future__ import annotations

import math
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from mmfusion.activity import score_events
from mmfusion.evaluate import predict_clips, score_captions, score_labels
from mmfusion.separated import score_sources
from mmfusion.training.run import Run
from mmfusion.training.setup import Material
from mmfusion.types import InputError


def validate(model: Any, material: Material, run: Run, accelerator: Accelerator) -> dict[str, float]:
    """Every figure by its dotted name: loss, <head>.loss, <head>.<metric>; the same in every process.

    {} when the manifest has no validation split and nothing is selected by it.
    """
    config = run.config
    if config.data.validation_split not in material.manifest.splits and config.training.select is None:
        return {}
    clips = material.clips(config.data.validation_split)
    search = config.search if config.training.validate_captions else None
    rows, losses = predict_clips(model, material, clips, run, accelerator, search)
    figures: list[dict[str, float]] = [{}]
    if accelerator.is_main_process:
        labels = material.facts.labels
        scored = {**score_labels(rows, run, labels), **score_events(rows, labels, None, config.events)}
        scored |= score_sources(rows, config)
        figures = [{**losses, **flatten({**scored, **score_captions(rows, run)})}]
    broadcast_object_list(figures)
    return figures[0]


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a nest of dicts under dotted names; lists, texts and per-class tables are left out."""
    flat: dict[str, float] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and key not in ("per_class", "per_clip", "per_label"):
            flat.update(flatten(value, f"{prefix}{key}."))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            flat[f"{prefix}{key}"] = float(value)
    return flat


def figure_of(figures: dict[str, float], name: str, run: Run) -> float:
    """One figure by its name; InputError lists the names there are."""
    if name not in figures:
        known = ", ".join(sorted(figures))  # a figure that is not defined on this split is not among them
        raise InputError(f"{run.folder / 'config.yaml'}: training.select: no figure {name!r} (there are: {known})")
    return figures[name]


def is_better(value: float, best: float, name: str) -> bool:
    """Losses get better downwards, everything else upwards."""
    if math.isnan(best):
        return not math.isnan(value)
    return value < best if name.endswith("loss") else value > best
