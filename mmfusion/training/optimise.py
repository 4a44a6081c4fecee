"""Optimiser, learning-rate schedule and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mmfusion.config import configclass
from mmfusion.types import InputError


@configclass
class OptimiserConfig:
    """AdamW (Loshchilov & Hutter 2019) or SGD with momentum."""

    kind: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    """acts on weight matrices and kernels only, never on biases and norms"""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """of SGD; the first-moment decay of AdamW"""
    lr_scale: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """parameter-name prefix -> factor on lr (encoders.video: 0.1 for a pre-trained backbone)"""


@configclass
class ScheduleConfig:
    """Linear warm-up, then constant, cosine to `final` or a step down every `step_epochs`."""

    kind: Literal["constant", "cosine", "step"] = "cosine"
    warmup: float = Field(default=0.1, ge=0, le=1)
    """share of all updates"""
    final: float = Field(default=0.0, ge=0, le=1)
    """factor on lr at the end of a cosine"""
    step_epochs: int = Field(default=10, ge=1)
    gamma: float = Field(default=0.1, gt=0, le=1)
    """factor at each step"""


def make_optimiser(config: OptimiserConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser over the parameters that need gradients, grouped by weight decay and `lr_scale`.

    InputError when a prefix of `lr_scale` fits no parameter.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    unused = set(config.lr_scale)
    for name, parameter in model.named_parameters():
        prefix = max((p for p in config.lr_scale if name.startswith(p)), key=len, default=None)
        unused.discard(prefix or "")
        if parameter.requires_grad:
            decay = config.weight_decay if parameter.ndim >= 2 else 0.0
            groups.setdefault((decay, config.lr_scale[prefix] if prefix else 1.0), []).append(parameter)
    if unused:
        raise InputError(f"training.optimiser.lr_scale.{min(unused)}: no parameter's name starts like this")
    settings = [
        {"params": parameters, "weight_decay": decay, "lr": config.lr * scale, "full_lr": config.lr * scale}
        for (decay, scale), parameters in groups.items()
    ]
    if not settings:  # everything is frozen: nothing to train, but the loop still wants an optimiser
        settings = [
            {"params": [nn.Parameter(torch.zeros(1))], "weight_decay": 0.0, "lr": config.lr, "full_lr": config.lr}
        ]
    if config.kind == "sgd":
        return torch.optim.SGD(settings, lr=config.lr, momentum=config.momentum)
    return torch.optim.AdamW(settings, lr=config.lr, betas=(config.momentum, 0.999))


def learning_rate_factor(config: ScheduleConfig, update: int, num_updates: int, updates_per_epoch: int) -> float:
    """The factor on the learning rate at an update counted from 0."""
    warmup = round(config.warmup * num_updates)
    if update < warmup:
        return (update + 1) / warmup
    if config.kind == "constant":
        return 1.0
    if config.kind == "step":
        return config.gamma ** (update // max(1, updates_per_epoch) // config.step_epochs)
    progress = (update - warmup) / max(1, num_updates - warmup)
    return config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def set_learning_rate(optimiser: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group's learning rate to its own full rate times `factor`."""
    for group in optimiser.param_groups:
        group["lr"] = group["full_lr"] * factor


def make_average(model: nn.Module, decay: float | None) -> AveragedModel | None:
    """Exponentially averaged weights (Polyak & Juditsky 1992); buffers are copied, not averaged."""
    return None if decay is None else AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))


def num_parameters(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
