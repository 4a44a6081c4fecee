"""From configuration to fusion: the depth decides which class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from mmfusion.config import configclass
from mmfusion.fusion.deep import DeepConfig, DeepFusion
from mmfusion.fusion.early import EarlyConfig, EarlyFusion
from mmfusion.fusion.late import LateConfig, LateFusion
from mmfusion.types import InputError, Stream


@configclass
class NoFusionConfig:
    """A single modality."""

    depth: Literal["none"] = "none"


FusionConfig = Annotated[EarlyConfig | DeepConfig | LateConfig | NoFusionConfig, Field(discriminator="depth")]


class NoFusion(nn.Module):
    """The only stream, as it is."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        if len(widths) != 1:
            raise InputError(f"fusion.depth: none takes exactly one encoder, there are {', '.join(widths) or 'none'}")
        self.widths = dict(widths)

    def forward(self, streams: Mapping[str, Stream]) -> dict[str, Stream]:
        return {name: streams[name] for name in self.widths}


Fusion = EarlyFusion | DeepFusion | LateFusion | NoFusion


def build_fusion(
    config: FusionConfig, widths: Mapping[str, int], make_recurrent: Callable[[int], nn.Module | None] | None = None
) -> Fusion:
    """The fusion for streams of these widths: a module from {name: stream} to {name: stream} with `widths`.

    `widths` are those of the encoders' steps for early fusion, of the recurrent states elsewhere. `make_recurrent` is
    used where steps are joined; without it the joined steps stay as they are. Early and deep fusion return one stream
    called "fused", the others one a modality. Raises InputError for no encoder, and for several where depth is none.
    """
    if not widths:
        raise InputError("fusion: there is no encoder to fuse")
    if isinstance(config, EarlyConfig):
        return EarlyFusion(config, widths, make_recurrent)
    if isinstance(config, DeepConfig):
        return DeepFusion(config, widths)
    return LateFusion(widths) if config.depth == "late" else NoFusion(widths)
