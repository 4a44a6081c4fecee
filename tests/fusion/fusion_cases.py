"""Streams and settings that the fusion tests share."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mmfusion.fusion.bottleneck import BottleneckConfig
from mmfusion.fusion.pointwise import ConcatConfig, FilmConfig, GatedConfig, LowRankConfig, SumConfig
from mmfusion.types import Stream

WIDTHS = {"audio": 5, "video": 7, "flow": 3}
JOINS = {
    "concat": ConcatConfig(),
    "projected": ConcatConfig(size=8),
    "sum": SumConfig(size=8),
    "gated": GatedConfig(size=8),
    "film": FilmConfig(size=8, modulated="video"),
    "lowrank": LowRankConfig(size=8, rank=3),
    "bottleneck": BottleneckConfig(size=8, heads=2),
    "bottleneck-mean": BottleneckConfig(size=8, heads=2, layers=3, num_bottlenecks=2, output="mean"),
}


def make_streams(
    num_clips: int = 3, num_steps: int = 6, rate: float = 4.0, seed: int = 0, widths: dict[str, int] = WIDTHS
) -> dict[str, Stream]:
    """Random streams on one clock, every step real."""
    random = torch.Generator().manual_seed(seed)
    return {
        name: Stream(
            torch.randn(num_clips, num_steps, width, generator=random),
            torch.ones(num_clips, num_steps, dtype=torch.bool),
            rate,
        )
        for name, width in widths.items()
    }


def masked(stream: Stream, mask: Tensor) -> Stream:
    return replace(stream, mask=stream.mask & mask)


def without_clip(stream: Stream, clip: int) -> Stream:
    mask = stream.mask.clone()
    mask[clip] = False
    return replace(stream, mask=mask)


def with_garbage(stream: Stream) -> Stream:
    """Other data, nan among it, wherever the mask is False."""
    garbage = torch.full_like(stream.data, 1e6)
    garbage[..., 0] = torch.nan
    return stream.with_data(torch.where(stream.mask[..., None], stream.data, garbage))


def padded(stream: Stream, num_steps: int) -> Stream:
    clips, _, width = stream.data.shape
    return Stream(
        torch.cat([stream.data, torch.full((clips, num_steps, width), 9.0)], dim=1),
        torch.cat([stream.mask, torch.zeros(clips, num_steps, dtype=torch.bool)], dim=1),
        stream.rate,
    )


def clip_of(stream: Stream, clip: int) -> Stream:
    return Stream(stream.data[clip : clip + 1], stream.mask[clip : clip + 1], stream.rate)
