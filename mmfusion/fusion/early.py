"""Early fusion: the modalities' steps are joined on one time grid, then read by ONE recurrent network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from mmfusion.config import configclass
from mmfusion.fusion.align import align
from mmfusion.fusion.join import JoinConfig, build_join
from mmfusion.fusion.pointwise import ConcatConfig
from mmfusion.types import Stream


@configclass
class EarlyConfig:
    """Join steps."""

    depth: Literal["early"] = "early"
    rate: Annotated[float, Field(gt=0)] | None = None
    """Steps a second of the common grid; None: the lowest rate among the streams."""
    join: JoinConfig = ConcatConfig()
    """How the steps are joined."""


class EarlyFusion(nn.Module):
    """Streams of encoder steps (B, T_m, F_m) -> {"fused": states (B, T, F)}.

    `make_recurrent(width)` builds the network that reads the joined steps: a module from stream to stream with a
    `width`; where it is None or gives None, the joined steps themselves are the result.
    """

    def __init__(
        self, config: EarlyConfig, widths: Mapping[str, int], make_recurrent: Callable[[int], nn.Module | None] | None
    ) -> None:
        super().__init__()
        self.rate = config.rate
        self.join = build_join(config.join, widths)
        recurrent = make_recurrent(self.join.width) if make_recurrent else None
        self.recurrent = nn.Identity() if recurrent is None else recurrent
        self.widths = {"fused": int(getattr(self.recurrent, "width", self.join.width))}

    def forward(self, streams: Mapping[str, Stream]) -> dict[str, Stream]:
        return {"fused": self.recurrent(self.join(align(streams, self.rate)))}
