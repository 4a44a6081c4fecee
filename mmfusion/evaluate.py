"""A split through a model: predictions first, as a file that anybody can read, then scores computed from that file.

`predictions.<split>.jsonl` has one object a clip, in manifest order:

    id        the clip's id
    <label head>    {class: probability}
    <caption head>  the sentence
    activity  {class: [probability in second 0, 1, ...]} when a label head was asked for per-second output
    truth     {"labels": [...] or null, "captions": [...], "relevances": {class: number} where there are any}

`metrics.<split>.json` holds, for every head by its name, what `mmfusion.metrics` makes of these rows, and what the
numbers depend on: split, number and fingerprint of the clips, scorer versions.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object
from tqdm import tqdm

from mmfusion.data.manifest import Manifest
from mmfusion.heads.caption import CaptionConfig
from mmfusion.heads.labels import LabelsConfig
from mmfusion.language.search import SearchConfig, search
from mmfusion.language.vocab import Vocabulary
from mmfusion.metrics.captions import caption_metrics
from mmfusion.metrics.labels import label_metrics
from mmfusion.metrics.ranking import ranking_metrics
from mmfusion.model import FusionModel
from mmfusion.training.checkpoint import fit_weights, load_weights
from mmfusion.training.run import Run
from mmfusion.training.setup import Material, batches_of, open_material
from mmfusion.types import Batch, Clip, InputError, Output, Stream

Row = dict[str, Any]


def evaluate(
    run: Run, split: str = "test", accelerator: Accelerator | None = None, quiet: bool = False
) -> dict[str, Any]:
    """Predicts and scores a split of a finished run; returns the metrics and leaves both files in the run's folder.

    Computed in float32 whatever the training's precision was. With several processes each takes its share of the
    batches; the figures are those of one process exactly.
    InputError when the run has no weights or the split no clips.
    """
    accelerator = accelerator or in_float32()
    material = open_material(run, accelerator, quiet=quiet)
    model = accelerator.prepare_model(load_model(run, material), evaluation_mode=True)
    return score_split(model, material, run, split, accelerator, quiet)


def in_float32() -> Accelerator:
    """What evaluation runs on, whatever precision a training in this process may have left behind."""
    AcceleratorState._reset_state()
    return Accelerator(mixed_precision="no")


def score_split(model: Any, material: Material, run: Run, split: str, accelerator: Accelerator, quiet: bool
                ) -> dict[str, Any]:  # fmt: skip
    """Predicts and scores a split with a model that is ready; as `keep_scores`."""
    clips = material.clips(split)
    rows, _ = predict_clips(model, material, clips, run, accelerator, search=run.config.search, quiet=quiet)
    if not accelerator.is_main_process:
        return {}
    return keep_scores(rows, run, split, clips, material.manifest, material.facts.labels)


def keep_scores(rows: Iterable[Row], run: Run, split: str, clips: Sequence[Clip], manifest: Manifest,
                labels: Sequence[str] = ()) -> dict[str, Any]:  # fmt: skip
    """Writes a split's predictions, scores what was written, and leaves the figures beside it; returns them.

    When the captions cannot be scored (no Java, say) the label figures are kept before the InputError.
    """
    path = run.folder / f"predictions.{split}.jsonl"
    write_rows(rows, path)
    train = run.config.data.train_split
    seen = {caption for clip in manifest.clips if clip.split == train for caption in clip.captions}
    rows = read_rows(path)
    metrics = {
        "split": split,
        "num_clips": len(clips),
        "clips": manifest.fingerprint(clips),
        "manifest": manifest.file_hash(),
        **score_labels(rows, run, labels),
    }
    try:
        metrics |= score_captions(rows, run, seen or None)
    except InputError as error:
        kept = run.write_json(f"metrics.{split}.json", {**metrics, "unscored": str(error)})
        raise InputError(f"{path}: {error} (what could be scored is in {kept.name})") from error
    run.write_json(f"metrics.{split}.json", metrics)
    return metrics


def load_model(run: Run, material: Material) -> FusionModel:
    """The run's model with the weights that training chose."""
    if not run.weights.exists():
        raise InputError(f"{run.weights}: no such file; train the run first")
    model = material.build_model(run)
    fit_weights(model, load_weights(run.weights), run.weights)
    return model.eval()


@dataclass
class Losses:
    """Sums of a split's losses, weighted by clips, in batch order so that any number of processes adds alike."""

    rows: list[tuple[int, int, dict[str, float]]]
    """(batch number, clips, loss by head name; "loss" is the weighted total)"""

    def means(self) -> dict[str, float]:
        total: dict[str, float] = {}
        clips = 0
        for _, count, losses in sorted(self.rows, key=lambda row: row[0]):
            clips += count
            for name, value in losses.items():
                total[name] = total.get(name, 0.0) + value * count
        return {name: value / clips for name, value in total.items()} if clips else {}


def predict_clips(model: Any, material: Material, clips: Sequence[Clip], run: Run, accelerator: Accelerator,
                  search: SearchConfig | None, quiet: bool = True) -> tuple[list[Row], dict[str, float]]:  # fmt: skip
    """Rows of predictions in the order of `clips`, and mean losses; captions only when a search is given."""
    plain: FusionModel = accelerator.unwrap_model(model)
    plain.eval()
    numbered = batches_of(len(clips), run.config.training.batch_size)
    mine = list(enumerate(numbered))[accelerator.process_index :: accelerator.num_processes]
    loader = material.loader(clips, [indices for _, indices in mine], run.config, training=False)
    rows: list[Row] = []
    losses = Losses([])
    bar = tqdm(zip(mine, loader, strict=True), total=len(mine), desc="evaluate", unit="batch", leave=False,
               disable=quiet or not accelerator.is_main_process)  # fmt: skip
    for (number, _), batch in bar:
        with torch.inference_mode(), accelerator.autocast():
            batch = batch.to(accelerator.device)
            fused = plain.fusion(plain.encode(batch))
            outputs = plain.decide(fused, batch.targets)
            total, parts = plain.loss(outputs, batch.targets)
        losses.rows.append((number, len(batch.ids), {"loss": float(total), **{k: float(v) for k, v in parts.items()}}))
        rows += describe(plain, fused, outputs, batch, material.facts.labels, material.vocabulary, search)
    found = {row["id"]: row for row in gather_object(rows)}
    losses.rows = gather_object(losses.rows)
    return [{**found[clip.id], "truth": truth(clip)} for clip in clips], losses.means()


def describe(model: FusionModel, fused: dict[str, Stream], outputs: dict[str, Output], batch: Batch,
             labels: Sequence[str], vocabulary: Vocabulary | None, how: SearchConfig | None) -> list[Row]:  # fmt: skip
    """One row a clip: probabilities of every label head, and sentences when a search is given."""
    rows: list[Row] = [{"id": clip} for clip in batch.ids]
    steppers = model.steppers
    for name, output in outputs.items():
        if name in steppers:
            continue
        for row, chances in zip(rows, output.log_probs().exp().tolist(), strict=True):
            row[name] = {label: float(f"{chance:.9g}") for label, chance in zip(labels, chances, strict=True)}
        if output.steps is not None:
            for row, seconds in zip(rows, _per_second(output), strict=True):
                row["activity"] = dict(zip(labels, seconds, strict=True))
    if how is not None and vocabulary is not None:
        for name, stepper in steppers.items():
            for row, best in zip(rows, search(stepper, fused, how), strict=True):
                row[name] = vocabulary.decode(best[0].words)
    return rows


def _per_second(output: Output) -> list[list[list[float]]]:
    """For each clip, for each class, the mean probability in each whole or partial second that is real."""
    assert output.steps is not None
    rate = output.steps.rate
    chances = Output(output.steps.data, output.family).log_probs().exp().cpu()
    second = (torch.arange(chances.shape[1]) / rate).long()
    clips = []
    for values, mask in zip(chances, output.steps.mask.cpu(), strict=True):
        spans = [(second == s) & mask for s in range(int(second[mask].max()) + 1 if mask.any() else 0)]
        means = (
            torch.stack([values[span].mean(0) if span.any() else values[0] * 0 for span in spans]) if spans else None
        )
        clips.append([] if means is None else [[round(v, 4) for v in column] for column in means.T.tolist()])
    return clips


def truth(clip: Clip) -> Row:
    known: Row = {"labels": None if clip.labels is None else list(clip.labels), "captions": list(clip.captions)}
    return known | ({"relevances": dict(clip.relevances)} if clip.relevances else {})


def write_rows(rows: Iterable[Row], path: Path) -> None:
    """One JSON object a line, written whole or not at all."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    os.replace(part, path)


def read_rows(path: Path) -> list[Row]:
    """The rows of a predictions file; InputError names the line that is not JSON."""
    rows = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    rows.append(json.loads(line))
                except ValueError as error:
                    raise InputError(f"{path}:{number}: not a JSON object: {error}") from error
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    return rows


def score_labels(rows: Sequence[Row], run: Run, labels: Sequence[str]) -> dict[str, Any]:
    """Metrics of every label head by its name; heads about which nothing is known are left out."""
    scores: dict[str, Any] = {}
    for name, head in run.config.model.heads.items():
        if isinstance(head, LabelsConfig) and rows and name in rows[0]:
            reference, known = label_truth(rows, labels)
            if known.any():
                estimate = np.array([[row[name][label] for label in labels] for row in rows], dtype=float)
                scores[name] = label_metrics(reference, estimate, labels, known, head.scored_as)
                if any(line["truth"].get("relevances") for line in rows):
                    scores[name] = _with_ranks(scores[name], ranking_metrics(reference, estimate, labels, known))
    return scores


def _with_ranks(figures: dict[str, Any], ranks: dict[str, Any]) -> dict[str, Any]:
    """Label figures with those of the relevances beside them, for each class too."""
    per_class = {name: {**own, **ranks["per_class"][name]} for name, own in figures["per_class"].items()}
    return {**figures, **ranks, "per_class": per_class}


def score_captions(rows: Sequence[Row], run: Run, seen: Collection[str] | None = None) -> dict[str, Any]:
    """Metrics of every caption head by its name; heads that said nothing are left out.

    `seen` are training captions, to tell which sentences are none of them.
    """
    scores: dict[str, Any] = {}
    spoken = [row for row in rows if row["truth"]["captions"]]
    references = {row["id"]: row["truth"]["captions"] for row in spoken}
    for name, head in run.config.model.heads.items():
        if isinstance(head, CaptionConfig) and spoken and name in spoken[0]:
            scores[name] = caption_metrics(references, {row["id"]: row[name] for row in spoken}, seen=seen)
    return scores


def label_truth(rows: Sequence[Row], labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Reference (N, C) in [0, 1] and what of it is known (N, C) bool: all of a labelled clip, else what was rated."""
    reference = np.zeros((len(rows), len(labels)))
    known = np.zeros(reference.shape, dtype=bool)
    for row, line in enumerate(rows):
        given = line["truth"]
        rated = given.get("relevances") or {}
        known[row] = [given["labels"] is not None or label in rated for label in labels]
        reference[row] = [rated.get(label, float(label in (given["labels"] or ()))) for label in labels]
    return reference, known
