"""Comparisons of tiny made-up runs: folders as training and evaluation leave them, without either."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mmfusion.metrics.labels import label_metrics
from mmfusion.report.comparison import ComparisonConfig, Job, jobs_of, load_comparison
from mmfusion.training.run import Run

CLASSES = ("bell", "rain")
TRUTH = {f"c{n}": [CLASSES[n % 2]] for n in range(8)}

RUN = {
    "name": "start",
    "data": {
        "manifest": "manifest.jsonl",
        "inputs": {
            "audio": {"kind": "waveform", "sample_rate_hz": 8000},
            "video": {"kind": "frames", "size_px": 16},
        },
    },
    "model": {
        "encoders": {"audio": {"kind": "spectrogram_cnn"}, "video": {"kind": "frame_cnn"}},
        "recurrent": {"size": 8},
        "fusion": {"depth": "deep"},
        "heads": {"labels": {"kind": "labels", "target": "single"}},
    },
}
AUDIO = {
    "model.encoders.video": None,
    "data.inputs.video": None,
    "model.fusion": {"depth": "none"},
}
COMPARISON = {
    "name": "tiny",
    "title": "Two variants & a <test>",
    "config": "run.yaml",
    "rows": {"audio": {"title": "audio alone", "set": AUDIO}, "both": {"title": "both (concat)"}},
    "seeds": [0, 1],
    "figures": [{"name": "labels.accuracy", "title": "accuracy", "significance": True}],
    "reference": ["audio"],
    "num_resamples": 200,
}

Chances = Callable[[Job, str], Sequence[float]]


def make_comparison(folder: Path, **changes: Any) -> tuple[ComparisonConfig, list[Job]]:
    """The comparison above with changes, written to `folder`, and its jobs, whose runs lie in `folder`/runs."""
    tree = json.loads(json.dumps({**COMPARISON, **changes}))
    start = {**RUN, "runs": str(folder / "runs")}
    start["data"] = {**RUN["data"], "manifest": str(folder / "manifest.jsonl")}
    (folder / "run.yaml").write_text(yaml.safe_dump(start))
    (folder / "comparison.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    comparison = load_comparison(folder / "comparison.yaml")
    return comparison, jobs_of(comparison, folder / "comparison.yaml")


def make_run(job: Job, chances: Chances, truth: Mapping[str, list[str]] = TRUTH, scored: str = "test", **facts: Any
             ) -> Run:  # fmt: skip
    """The folder of a finished, evaluated run whose label head gives `chances(job, clip)`; `facts` replace metrics."""
    run = Run.create(job.config)
    said = {clip: list(chances(job, clip)) for clip in truth}
    rows = [
        {
            "id": clip,
            "labels": dict(zip(CLASSES, said[clip], strict=True)),
            "truth": {"labels": labels, "captions": []},
        }
        for clip, labels in truth.items()
    ]
    (run.folder / f"predictions.{scored}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    reference = np.array([[name in labels for name in CLASSES] for labels in truth.values()], dtype=float)
    scores = label_metrics(reference, np.array(list(said.values())), CLASSES, target="single")
    metrics = {"split": scored, "num_clips": len(truth), "clips": " ".join(truth), "labels": scores}
    run.write_json(f"metrics.{scored}.json", {**metrics, **facts})
    run.write_json("labels.json", list(CLASSES))
    run.write_json("finished.json", {})
    run.weights.touch()
    hardware = {"processor": "a processor", "cores": 2, "gpu": None}
    run.write_json(
        "provenance.json",
        {
            "commit": "abc",
            "hardware": hardware,
            "packages": {"torch": "2"},
            "num_parameters": 1234567 if job.row == "both" else 12345,
            "training_s": 10.0 + 20 * job.seed,
        },
    )
    figures = (("train", "loss"), ("validation", "loss"), ("validation", "accuracy"))
    log = [f"{e},{e},{split},labels.{name},{0.5 / (e + 1)}" for e in range(3) for split, name in figures]
    (run.folder / "metrics.csv").write_text("\n".join(["update,epoch,split,figure,value", *log]) + "\n")
    return run


def right_first(number: int, truth: Mapping[str, list[str]] = TRUTH) -> Callable[[str], list[float]]:
    """Chances that are right for the first `number` clips and wrong for the others."""
    order = list(truth)

    def chances(clip: str) -> list[float]:
        right = order.index(clip) < number
        first = (truth[clip] == [CLASSES[0]]) == right
        return [0.9, 0.1] if first else [0.1, 0.9]

    return chances
