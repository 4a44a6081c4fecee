"""Runs as parts of another run: weights taken over stream by stream, and mixing weights tuned on validation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from mmfusion.fusion.late import Mix
from mmfusion.model import FusionModel
from mmfusion.training.checkpoint import fit_weights, load_weights, save_weights
from mmfusion.training.run import Run
from mmfusion.training.setup import Material, batches_of
from mmfusion.types import InputError, Output, Targets


def load_parts(model: nn.Module, parts_from: Mapping[str, str], run: Run) -> None:
    """Copies, for each stream named, its encoder and its heads from another finished run.

    InputError when that run knows other classes or words, or when its weights do not fit or do not cover the stream.
    """
    where = run.folder / "config.yaml"
    weights = dict(model.state_dict())
    for stream, folder in parts_from.items():
        part = Run.open(folder)
        if not part.finished:
            raise InputError(f"{where}: training.parts_from.{stream}: {folder} is not trained to its end")
        if part.labels() != run.labels() or _words(part) != _words(run):
            raise InputError(f"{where}: training.parts_from.{stream}: {folder} has other classes or another vocabulary")
        wanted = [name for name in weights if _belongs(name, stream)]
        if not wanted:
            known = ", ".join(run.config.model.encoders)
            raise InputError(f"{where}: training.parts_from.{stream}: no such stream in this model (it has {known})")
        given = load_weights(part.weights)
        for name in wanted:
            if name not in given or given[name].shape != weights[name].shape:
                raise InputError(f"{part.weights}: has no {name} of the shape that {where} asks for")
            weights[name] = given[name]
    if parts_from:
        fit_weights(model, weights, where)


def _words(run: Run) -> tuple[str, ...] | None:
    vocabulary = run.vocabulary()
    return None if vocabulary is None else vocabulary.words


def _belongs(name: str, stream: str) -> bool:
    return name.startswith(f"encoders.{stream}.") or f".members.{stream}." in name


def tune_mixes(run: Run, material: Material, accelerator: Accelerator, quiet: bool) -> dict[str, list[float]]:
    """Sets every head's mixing weights that are tuned on validation, in the run's weights; returns them by head.

    The weights minimise the mean loss over the validation split. {} when no head has such weights.
    """
    model = material.build_model(run)
    tuned = {name: head for name, head in model.heads.items() if isinstance(head, Mix) and head.tunable}
    if not tuned:
        return {}
    found: list[dict[str, list[float]]] = [{}]
    if accelerator.is_main_process:
        fit_weights(model, load_weights(run.weights), run.weights)
        model.to(accelerator.device).eval()
        for name, head in tuned.items():
            weights = head.tune(_Decisions(model, head, run, material, accelerator.device))
            found[0][name] = [round(float(weight), 6) for weight in weights]
        save_weights(model.state_dict(), run.weights)
        if not quiet:
            print(f"{run.folder}: mixing weights tuned on validation: {found[0]}")
    broadcast_object_list(found)
    return found[0]


@dataclass
class _Decisions:
    """What a head and its members say about every validation batch, with the truth; computed anew at every pass."""

    model: FusionModel
    head: Mix
    run: Run
    material: Material
    device: torch.device

    def __iter__(self) -> Iterator[tuple[Output, Targets]]:
        config = self.run.config
        clips = self.material.clips(config.data.validation_split)
        batches = batches_of(len(clips), config.training.batch_size)
        for batch in self.material.loader(clips, batches, config, training=False):
            with torch.inference_mode():
                moved = batch.to(self.device)
                yield self.head(self.model.fusion(self.model.encode(moved)), moved.targets), moved.targets
