"""Features that somebody else computed, as an encoder like any other."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from mmfusion.config import configclass
from mmfusion.encoders.steps import StepEncoder
from mmfusion.types import InputError, Stream


@configclass
class PrecomputedConfig:
    """Takes a stream of features as it is, or normalised, projected and dropped out."""

    kind: Literal["precomputed"] = "precomputed"
    input: str | None = None
    """Which input it reads; the encoder's own name when not given."""
    frozen: bool = False
    """Keeps the weights as they are."""
    width: Annotated[int, Field(gt=0)] | None = None
    """Projects each step linearly to this many features; None leaves them as they are."""
    norm: bool = False
    """Layer norm of each step, before the projection."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping a feature in training."""


class Precomputed(StepEncoder):
    """Features (B, T, F) -> (B, T, width) at the same rate: layer norm, linear, dropout, each where asked for."""

    def __init__(self, config: PrecomputedConfig, width: int | None) -> None:
        super().__init__()
        if width is None:
            raise InputError("precomputed: its input is not a stream of features")
        self.norm = nn.LayerNorm(width) if config.norm else nn.Identity()
        self.project = nn.Linear(width, config.width) if config.width else nn.Identity()
        self.drop = nn.Dropout(config.dropout)
        self.width = config.width or width

    def forward(self, raw: Stream) -> Stream:
        features = self.drop(self.project(self.norm(raw.zeroed().float()))).float()
        steps = raw.with_data(features)
        return steps.with_data(steps.zeroed())
