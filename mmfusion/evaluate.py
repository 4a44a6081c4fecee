"""A split through a model: predictions first, as a file that anybody can read, then scores computed from that file.

`predictions.<split>.jsonl` has one object a clip, in manifest order:

    id        the clip's id
    <label head>    {class: probability}
    <caption head>  the sentence
    <separation head>  [figures of one source, ...] (`mmfusion/separated.py`)
    activity  {class: [probability in second 0, 1, ...]} when a label head was asked for per-second output
    truth     {"labels": [...] or null, "captions": [...], "relevances": {class: number} where there are any,
               "sources": [{"label", "clip"}, ...] of a mixture,
               "events": [[class, start_s, end_s], ...] of what is heard or seen when, where that is known}

With `windows` in the configuration each row joins what is said of the windows of a clip, which it keeps as `windows`
[{"start_s", "end_s", <label head>: {class: probability}}, ...], on the clip's clock.

`metrics.<split>.json` holds, for every head by its name, what `mmfusion.metrics` makes of these rows, under `activity`
the segment-based and event-based figures of it, and what the numbers depend on: split, number and fingerprint of the
clips, scorer versions.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import gather_object
from tqdm import tqdm

from mmfusion.activity import score_all_thresholds, score_events
from mmfusion.data.manifest import Manifest
from mmfusion.data.windows import WindowReader
from mmfusion.describe import Row, Said, describe, join_windows, window_rows
from mmfusion.heads.caption import CaptionConfig
from mmfusion.heads.labels import LabelsConfig
from mmfusion.language.search import SearchConfig
from mmfusion.metrics.captions import caption_metrics
from mmfusion.metrics.labels import label_metrics
from mmfusion.metrics.ranking import ranking_metrics
from mmfusion.model import FusionModel
from mmfusion.separated import score_sources, source_rows, source_truth
from mmfusion.training.checkpoint import fit_weights, load_weights
from mmfusion.training.run import Run
from mmfusion.training.setup import Material, batches_of, knows_training_clips, open_material
from mmfusion.types import Batch, Clip, Decision, InputError, Separated

Thresholds = Mapping[str, Mapping[str, float]]


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
    if accelerator.is_main_process and not knows_training_clips(run, material):
        said = "its training split is not that of the run's training; is a clip scored here that the run has learnt?"
        print(f"warning: {material.manifest.path}: {said}", file=sys.stderr)
    model = accelerator.prepare_model(load_model(run, material), evaluation_mode=True)
    return score_split(model, material, run, split, accelerator, quiet)


def in_float32() -> Accelerator:
    """What evaluation runs on, whatever precision a training in this process may have left behind."""
    AcceleratorState._reset_state()
    return Accelerator(mixed_precision="no")


def score_split(model: Any, material: Material, run: Run, split: str, accelerator: Accelerator, quiet: bool
                ) -> dict[str, Any]:  # fmt: skip
    """Predicts and scores a split with a model that is ready; as `keep_scores`."""
    clips, rows = predict_split(model, material, run, split, accelerator, run.config.search, quiet)
    if not accelerator.is_main_process:
        return {}
    return keep_scores(rows, run, split, clips, material.manifest, material.facts.labels)


def predict_split(model: Any, material: Material, run: Run, split: str, accelerator: Accelerator,
                  search: SearchConfig | None, quiet: bool) -> tuple[tuple[Clip, ...], list[Row]]:  # fmt: skip
    """The clips of a split and their rows, in order; in windows where the run has them. In float32."""
    config, quiet = run.config, quiet or not accelerator.is_main_process
    if config.windows is None:
        clips = material.clips(split)
        return clips, predict_clips(model, material, clips, run, accelerator, search, quiet, exact=True)[0]
    with accelerator.main_process_first():
        clips, reader = material.in_windows(split, config.data, config.windows, quiet)
    windows = [window for own in reader.windows.values() for window in own]
    found, _ = _go_through(model, material, windows, run, accelerator, None, quiet, exact=True, reader=reader)
    rows = []
    for clip in clips:
        parts = [(window, found[window.id]) for window in reader.windows[clip.id]]
        joined = join_windows([said for _, said in parts], config.windows.aggregate)
        row = _row(clip, joined, material, config.windows.max_duration_s)
        rows.append(row | {"windows": window_rows(parts, material.facts.labels)})
    return clips, rows


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
    thresholds = run.thresholds() if labels else {}
    metrics = {
        "split": split,
        "num_clips": len(clips),
        "clips": manifest.fingerprint(clips),
        "manifest": manifest.file_hash(),
        **score_labels(rows, run, labels, thresholds),
        **score_events(rows, labels, levels_of(thresholds, "activity", labels), run.config.events),
        **score_sources(rows, run.config),
    }
    if "activity" in metrics:
        metrics["activity"]["intersection_based"] = score_all_thresholds(rows, labels, run.config.events)
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
    """Sums of a split's losses, in batch order so that any number of processes adds alike.

    A head's batch weighs as much as it has of what the head's loss is the mean of: words, known labels, clips. So the
    means do not depend on how clips are batched.
    """

    rows: list[tuple[int, dict[str, int], dict[str, float]]]
    """(batch number, weights by head, the heads' losses and figures as `FusionModel.loss` names them)"""

    def means(self, loss_weights: Mapping[str, float]) -> dict[str, float]:
        """Means by name (0 where nothing is known), and "loss", the heads' losses by their weights."""
        total: dict[str, float] = {}
        known: dict[str, int] = {}
        for _, counts, losses in sorted(self.rows, key=lambda row: row[0]):
            for name, value in losses.items():
                count = counts[name.partition(".")[0]]
                known[name] = known.get(name, 0) + count
                total[name] = total.get(name, 0.0) + value * count
        means = {name: value / max(known[name], 1) for name, value in total.items()}
        return {"loss": sum(weight * means.get(f"{head}.loss", 0.0) for head, weight in loss_weights.items()), **means}


def _known(model: FusionModel, outputs: Mapping[str, Decision], batch: Batch) -> dict[str, int]:
    """Of how much each head's loss in a batch is the mean: words that are real, labels that are known, or clips."""
    mask, found = batch.targets.label_mask, {}
    for name, output in outputs.items():
        if isinstance(output, Separated):
            found[name] = len(batch.ids)
        elif name in model.steppers:
            found[name] = len(output.logits)
        elif output.family == "categorical":
            found[name] = 0 if mask is None else int(mask.any(dim=1).sum())
        else:
            found[name] = 0 if mask is None else int(mask.sum())
    return found


def predict_clips(model: Any, material: Material, clips: Sequence[Clip], run: Run, accelerator: Accelerator,
                  search: SearchConfig | None, quiet: bool = True, exact: bool = False
                  ) -> tuple[list[Row], dict[str, float]]:  # fmt: skip
    """Rows of predictions in the order of `clips`, and mean losses; captions only when a search is given.

    `exact` computes in float32 also where the accelerator trains in less.
    """
    found, losses = _go_through(model, material, clips, run, accelerator, search, quiet, exact)
    # A mixture is as long as it is made, whatever is read of the clips that it is made from.
    read_s = run.config.data.max_duration_s if material.mixtures is None else math.inf
    rows = [_row(clip, found[clip.id], material, read_s) for clip in clips]
    return rows, losses.means(accelerator.unwrap_model(model).loss_weights)


def _go_through(model: Any, material: Material, clips: Sequence[Clip], run: Run, accelerator: Accelerator,
                search: SearchConfig | None, quiet: bool, exact: bool, reader: WindowReader | None = None
                ) -> tuple[dict[str, Said], Losses]:  # fmt: skip
    """What is said of each clip by its id, and the losses. The clips are windows where their reader is given."""
    plain: FusionModel = accelerator.unwrap_model(model)
    plain.eval()
    numbered = batches_of(len(clips), run.config.training.batch_size)
    mine = list(enumerate(numbered))[accelerator.process_index :: accelerator.num_processes]
    loader = material.loader(clips, [indices for _, indices in mine], run.config, training=False, reader=reader)
    said: list[tuple[str, Said]] = []
    losses = Losses([])
    bar = tqdm(zip(mine, loader, strict=True), total=len(mine), desc="evaluate", unit="batch", leave=False,
               disable=quiet or not accelerator.is_main_process)  # fmt: skip
    for (number, indices), batch in bar:
        with torch.inference_mode(), nullcontext() if exact else accelerator.autocast():
            batch = batch.to(accelerator.device)
            fused = plain.fusion(plain.encode(batch))
            outputs = plain.decide(fused, batch)
            _, parts = plain.loss(outputs, batch.targets)
        losses.rows.append((number, _known(plain, outputs, batch), {key: float(v) for key, v in parts.items()}))
        starts_s = [clips[index].start_s for index in indices] if reader else None
        told = describe(plain, fused, outputs, batch, material.vocabulary, search, starts_s)
        parted = source_rows(run.config, plain.as_sources(outputs, batch.targets), batch)
        said += [(clip, replace(one, sources=own)) for clip, one, own in zip(batch.ids, told, parted, strict=True)]
    losses.rows = gather_object(losses.rows)
    return dict(gather_object(said)), losses


def _row(clip: Clip, said: Said, material: Material, read_s: float) -> Row:
    known = truth(clip, read_s) | source_truth(clip, material)
    return {"id": clip.id, **said.row(material.facts.labels), "truth": known}


def truth(clip: Clip, read_s: float = math.inf) -> Row:
    """What the manifest knows of a clip of which the first `read_s` seconds are read."""
    known: Row = {"labels": None if clip.labels is None else list(clip.labels), "captions": list(clip.captions)}
    known |= {"relevances": dict(clip.relevances)} if clip.relevances else {}
    if not clip.sources:
        return known | ({"events": []} if clip.labels == () else {})
    end_s = min(read_s, math.inf if clip.end_s is None else clip.end_s - clip.start_s)
    times = [(one.label, max(0.0, one.start_s), min(one.end_s, end_s)) for one in clip.sources]
    rounded = [(label, round(start_s, 6), round(stop_s, 6)) for label, start_s, stop_s in times]
    return known | {"events": [list(event) for event in rounded if event[1] < event[2]]}


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


def score_labels(rows: Sequence[Row], run: Run, labels: Sequence[str], thresholds: Thresholds | None = None
                 ) -> dict[str, Any]:  # fmt: skip
    """Metrics of every label head by its name; heads about which nothing is known are left out.

    Decisions are those of the run's `thresholds`; without them, at 0.5.
    """
    scores: dict[str, Any] = {}
    for name, head in run.config.model.heads.items():
        if isinstance(head, LabelsConfig) and rows and name in rows[0]:
            reference, known = label_truth(rows, labels)
            if known.any():
                levels = levels_of(thresholds, name, labels)
                scores[name] = label_metrics(
                    reference, chances_of(rows, name, labels), labels, known, head.scored_as, levels
                )
                if any(line["truth"].get("relevances") for line in rows):
                    ranks = ranking_metrics(reference, chances_of(rows, name, labels), labels, known)
                    scores[name] = _with_ranks(scores[name], ranks)
    return scores


def levels_of(thresholds: Thresholds | None, name: str, labels: Sequence[str]) -> list[float] | None:
    """The thresholds of a head in the order of `labels`; None where they are not tuned."""
    own = (thresholds or {}).get(name)
    return None if own is None else [own[label] for label in labels]


def chances_of(rows: Sequence[Row], name: str, labels: Sequence[str]) -> np.ndarray:
    """(N, C): what a label head says of each row."""
    return np.array([[row[name][label] for label in labels] for row in rows], dtype=float)


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
