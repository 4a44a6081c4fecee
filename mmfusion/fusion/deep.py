"""Deep fusion: each modality has its own recurrent network; their states are joined before any output layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from mmfusion.config import configclass
from mmfusion.fusion.align import align
from mmfusion.fusion.join import JoinConfig, build_join
from mmfusion.fusion.pointwise import ConcatConfig
from mmfusion.types import Stream


@configclass
class DeepConfig:
    """Join states."""

    depth: Literal["deep"] = "deep"
    rate: Annotated[float, Field(gt=0)] | None = None
    """Steps a second of the common grid; None: the lowest rate among the streams."""
    join: JoinConfig = ConcatConfig()
    """How the states are joined."""


class DeepFusion(nn.Module):
    """Streams of recurrent states (B, T_m, F_m) -> {"fused": joined states (B, T, F)}."""

    def __init__(self, config: DeepConfig, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.rate = config.rate
        self.join = build_join(config.join, widths)
        self.widths = {"fused": self.join.width}

    def forward(self, streams: Mapping[str, Stream]) -> dict[str, Stream]:
        return {"fused": self.join(align(streams, self.rate))}
