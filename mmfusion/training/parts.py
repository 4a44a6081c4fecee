"""Runs as parts of another run: weights taken over stream by stream, and mixing weights tuned on validation."""

from __future__ import annotations

import re
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
        part = _finished_like(run, folder, f"training.parts_from.{stream}")
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


def load_start(model: nn.Module, folder: str | None, run: Run) -> None:
    """Copies all weights of another finished run, into which a language model may have been fused since.

    What the other run does not have keeps its first weights. InputError when something of it finds no place here.
    """
    if folder is None:
        return
    start = _finished_like(run, folder, "training.start_from")
    given = load_weights(start.weights)
    weights = dict(model.state_dict())
    # Only where a language model has come since have names moved.
    moved = not any(_WRAPPED.search(name) for name in given)
    places = {_WRAPPED.sub("", name): name for name in weights if moved and _WRAPPED.search(name)}
    for name, value in given.items():
        place = places.get(name, name)
        if place not in weights or weights[place].shape != value.shape:
            raise InputError(f"{start.weights}: {name} has no place of its shape in {run.folder / 'config.yaml'}")
        weights[place] = value
    fit_weights(model, weights, run.folder / "config.yaml")


# A fused language model puts the caption decoder, or the whole mixture of decoders, one level down.
_WRAPPED = re.compile(r"(\.members)?\.captioner(?=\.)")


def _finished_like(run: Run, folder: str, field: str) -> Run:
    """The run in `folder`; InputError when it is not finished or knows other classes or words than `run`."""
    where = f"{run.folder / 'config.yaml'}: {field}"
    other = Run.open(folder)
    if not other.finished:
        raise InputError(f"{where}: {folder} is not trained to its end")
    if other.labels() != run.labels() or _words(other) != _words(run):
        raise InputError(f"{where}: {folder} has other classes or another vocabulary")
    return other


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
    tuned = tunable(model)
    if not tuned:
        return {}
    found: list[dict[str, list[float]]] = [{}]
    if accelerator.is_main_process:
        fit_weights(model, load_weights(run.weights), run.weights)
        model.to(accelerator.device).eval()
        for name, head in tuned.items():
            try:
                weights = head.tune(_Decisions(model, head, run, material, accelerator.device))
            except InputError as error:
                raise InputError(f"{run.folder / 'config.yaml'}: model.heads.{name}: {error}") from error
            found[0][name] = [round(float(weight), 6) for weight in weights]
        save_weights(model.state_dict(), run.weights)
        if not quiet:
            print(f"{run.folder}: mixing weights tuned on validation: {found[0]}")
    broadcast_object_list(found)
    return found[0]


def tunable(model: FusionModel) -> dict[str, Mix]:
    """The mixtures to tune by their place below `heads`, the innermost first: the outer ones mix what these say."""
    mixes = [(name, module) for name, module in model.heads.named_modules() if isinstance(module, Mix)]
    return {name: mix for name, mix in reversed(mixes) if mix.tunable}


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
