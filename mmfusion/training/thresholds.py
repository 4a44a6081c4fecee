"""Probabilities from which classes are decided to be there, tuned on a run's validation split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from accelerate import Accelerator
from torch import nn

from mmfusion.describe import Row, mean_chances
from mmfusion.evaluate import chances_of, label_truth, load_model, predict_split
from mmfusion.metrics.events import Event, roll
from mmfusion.metrics.thresholds import tune_thresholds
from mmfusion.training.run import THRESHOLDS, Run
from mmfusion.training.setup import Material


def tune_run(
    run: Run, material: Material, accelerator: Accelerator, quiet: bool, model: nn.Module | None = None
) -> None:
    """Leaves {head: {class: probability}} in thresholds.json where a label head asks for it.

    Each class's threshold has the best F1 on the validation split, predicted as an evaluation would (in float32, in
    windows where the run has them). Where seconds are classified too and it is known what happens when, "activity" has
    the thresholds of seconds. The model is the run's own unless one is given.
    """
    if not run.config.tuned_heads:
        return
    accelerator.wait_for_everyone()  # one process writes the weights that all read here
    model = load_model(run, material) if model is None else model
    split = run.config.data.validation_split
    _, rows = predict_split(model.to(accelerator.device), material, run, split, accelerator, None, quiet)
    if accelerator.is_main_process:
        tune_rows(run, rows, material.facts.labels)
    accelerator.wait_for_everyone()


def tune_rows(run: Run, rows: Sequence[Row], labels: Sequence[str]) -> None:
    """Leaves the thresholds of these validation rows in the run's thresholds.json, where a label head asks for it."""
    if not run.config.tuned_heads:
        return
    reference, known = label_truth(rows, labels)
    heads = run.config.tuned_heads
    found = {name: tune_thresholds(reference, chances_of(rows, name, labels), known) for name in heads}
    found |= _of_seconds(rows, labels)
    named = {name: dict(zip(labels, levels.tolist(), strict=True)) for name, levels in found.items()}
    run.write_json(THRESHOLDS, named)


def _of_seconds(rows: Sequence[Row], labels: Sequence[str]) -> dict[str, Any]:
    """Thresholds of the seconds of all clips whose events are known; {} without any."""
    timed = [row for row in rows if "activity" in row and "events" in row["truth"]]
    if not any(row["truth"]["events"] for row in timed):
        return {}
    column = {label: place for place, label in enumerate(labels)}
    said = [mean_chances(labels, row["activity"]) for row in timed]
    truth = [
        roll(
            (Event("", start_s, end_s, label) for label, start_s, end_s in row["truth"]["events"]),
            column,
            len(own),
            1.0,
        )
        for row, own in zip(timed, said, strict=True)
    ]
    return {"activity": tune_thresholds(np.concatenate(truth), np.concatenate(said))}
