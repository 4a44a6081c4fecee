"""The choice of a join operator (several aligned streams -> one stream); docs/fusion.md has all equations together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from mmfusion.fusion.bottleneck import BottleneckConfig, BottleneckJoin
from mmfusion.fusion.pointwise import (
    AloneJoin,
    ConcatConfig,
    ConcatJoin,
    FilmConfig,
    FilmJoin,
    GatedConfig,
    GatedJoin,
    Join,
    LowRankConfig,
    LowRankJoin,
    SumConfig,
    SumJoin,
)

JoinConfig = Annotated[
    ConcatConfig | SumConfig | GatedConfig | FilmConfig | LowRankConfig | BottleneckConfig,
    Field(discriminator="kind"),
]

_JOINS = {
    "concat": ConcatJoin,
    "sum": SumJoin,
    "gated": GatedJoin,
    "film": FilmJoin,
    "lowrank": LowRankJoin,
    "bottleneck": BottleneckJoin,
}


def build_join(config: JoinConfig, widths: Mapping[str, int]) -> Join:
    """The join that `config` asks for, for streams of these widths; its `width` is that of the result.

    One stream alone is passed on unchanged, whatever the operator: such a join has no parameters.
    """
    if len(widths) == 1:
        return AloneJoin(widths)
    return _JOINS[config.kind](config, widths)
