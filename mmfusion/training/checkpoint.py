"""Checkpoints: tensors in safetensors, everything else in plain JSON; nothing in them runs code when it is loaded.

A checkpoint is a folder `checkpoint-<updates>.<epoch>` that appears by one rename, so a kill at any moment leaves the
last whole one. It holds the weights, the averaged weights, the optimiser's state, every process's random state and the
position in the data, so that a resumed run ends with the weights of an uninterrupted one (bit for bit on a CPU).
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from mmfusion.types import InputError

_NAME = re.compile(r"checkpoint-(\d+)\.(\d+)")


@dataclass
class Progress:
    """Where a training is: the next batch to read, what was found so far, and the time that it took."""

    epoch: int = 0
    batch: int = 0
    """batches of the current epoch that are already used"""
    update: int = 0
    best: float | None = None
    best_epoch: int | None = None
    stale: int = 0
    """epochs since the best one"""
    world: int = 1
    """processes that train together; a position counts batches of each of them"""
    seconds: float = 0.0
    data_seconds: float = 0.0
    """of these, seconds spent waiting for data"""
    sums: dict[str, float] = field(default_factory=dict)
    """running sums of this epoch's training losses"""
    counts: dict[str, int] = field(default_factory=dict)


def save_weights(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes tensors as safetensors, whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        # safetensors refuses tensors that share memory (tied weights), so each is written as its own copy.
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, part)
    except SafetensorError as error:
        raise InputError(f"{path}: cannot be written: {error}") from error
    os.replace(part, path)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name. InputError for anything but a safetensors file: pickled checkpoints run code, so are refused."""
    if not path.exists():
        raise InputError(f"{path}: no such file")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error}); pickled weights are refused") from error


def fit_weights(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Puts the tensors into the model; InputError names the file and the first one that does not fit."""
    try:
        model.load_state_dict(dict(tensors))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise InputError(f"{path}: does not fit this model: {lines[0] if lines else error}") from error


@dataclass
class State:
    """What a checkpoint keeps; `average` and `scaler` may be absent."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    average: AveragedModel | None
    scaler: Any | None
    progress: Progress


def save_checkpoint(folder: Path, state: State, random_states: list[dict[str, Tensor]]) -> None:
    """Writes `checkpoint-<updates>.<epoch>` below `folder`, then removes older ones."""
    target = folder / f"checkpoint-{state.progress.update}.{state.progress.epoch}"
    if target.exists():  # nothing has happened since; what is whole is never taken away
        return
    part = folder / "checkpoint.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_weights(state.model.state_dict(), part / "model.safetensors")
    if state.average is not None:
        save_weights(state.average.state_dict(), part / "average.safetensors")
    optimiser = state.optimiser.state_dict()["state"]
    flat = {
        f"{index}.{key}": torch.as_tensor(value) for index, kept in optimiser.items() for key, value in kept.items()
    }
    save_weights(flat, part / "optimiser.safetensors")
    for rank, states in enumerate(random_states):
        save_weights(states, part / f"random-{rank}.safetensors")
    scaler = state.scaler.state_dict() if state.scaler is not None else None
    (part / "progress.json").write_text(json.dumps({"progress": asdict(state.progress), "scaler": scaler}, indent=1))
    os.replace(part, target)
    for other in _checkpoints(folder):
        if other != target:
            shutil.rmtree(other, ignore_errors=True)


def load_checkpoint(folder: Path, state: State, rank: int) -> bool:
    """Restores everything from the newest checkpoint below `folder`; False when there is none.

    InputError when the checkpoint cannot be read or does not fit.
    """
    found = _checkpoints(folder)
    if not found:
        return False
    path = found[-1]
    world = state.progress.world
    try:
        stored = json.loads((path / "progress.json").read_text())
        state.progress.__dict__.update(asdict(Progress(**stored["progress"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path / 'progress.json'}: not a readable checkpoint: {error}") from error
    if state.progress.world != world:
        given = state.progress.world
        raise InputError(f"{path}: was written by {given} processes and cannot be taken up by {world}")
    fit_weights(state.model, load_weights(path / "model.safetensors"), path / "model.safetensors")
    if state.average is not None:
        fit_weights(state.average, load_weights(path / "average.safetensors"), path / "average.safetensors")
    _load_optimiser(state.optimiser, load_weights(path / "optimiser.safetensors"))
    if state.scaler is not None and stored["scaler"]:
        state.scaler.load_state_dict(stored["scaler"])
    states = path / f"random-{rank}.safetensors"
    if not states.exists():
        raise InputError(f"{states}: missing; resume with as many processes as the run was started with")
    restore_random_state(load_weights(states))
    return True


def remove_checkpoints(folder: Path) -> None:
    for path in _checkpoints(folder):
        shutil.rmtree(path, ignore_errors=True)


def random_state() -> dict[str, Tensor]:
    """This process's random state: torch's on the CPU and, where it is used, on its GPU."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_state(states: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _load_optimiser(optimiser: torch.optim.Optimizer, flat: Mapping[str, Tensor]) -> None:
    whole = optimiser.state_dict()
    entries: dict[int, dict[str, Tensor]] = {}
    for name, tensor in flat.items():
        index, key = name.split(".", 1)
        entries.setdefault(int(index), {})[key] = tensor
    whole["state"] = entries
    optimiser.load_state_dict(whole)


def _checkpoints(folder: Path) -> list[Path]:
    names = [(path, _NAME.fullmatch(path.name)) for path in folder.glob("checkpoint-*")]
    return [path for *_, path in sorted((int(name[1]), int(name[2]), path) for path, name in names if name)]
