"""The attention bottleneck join (Nagrani et al. 2021, "Attention Bottlenecks for Multimodal Fusion", section 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from mmfusion.config import configclass
from mmfusion.fusion.pointwise import Join, Probability, Size


@configclass
class BottleneckConfig:
    """Transformers that exchange only through a few shared tokens."""

    kind: Literal["bottleneck"] = "bottleneck"
    size: Size = 128
    """Width of every token."""
    heads: Size = 4
    """Attention heads; `size` must be a multiple."""
    layers: Annotated[int, Field(ge=2)] = 2
    """Transformer layers: what one stream writes into the bottleneck, another reads one layer later."""
    num_bottlenecks: Size = 4
    """Shared tokens."""
    output: Literal["concat", "mean"] = "concat"
    """How the streams' tokens of one step leave: side by side, or their mean over the streams that are there."""
    dropout: Probability = 0.0
    """Probability of dropping attention, hidden units and joined features in training."""

    def __post_init__(self) -> None:
        if self.size % self.heads:
            raise ValueError(f"size ({self.size}) must be a multiple of heads ({self.heads})")


class BottleneckJoin(Join):
    """Attention among the steps of each stream; between streams only through bottleneck tokens.

        [x_m'; z_m'] = Transformer_m([x_m; z])  for every stream m          z' = mean_m z_m'

    Streams are projected to `size` and carry sinusoidal positions. Missing steps are never attended to; a stream that
    a clip does not have leaves the mean of z; a missing step is zero in "concat" and left out of "mean".
    """

    def __init__(self, config: BottleneckConfig, widths: Mapping[str, int]) -> None:
        width = config.size * (len(widths) if config.output == "concat" else 1)
        super().__init__(widths, width, config.dropout)
        self.output = config.output
        self.projections = nn.ModuleDict({name: nn.Linear(width, config.size) for name, width in widths.items()})
        self.bottlenecks = nn.Parameter(0.02 * torch.randn(config.num_bottlenecks, config.size))
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: AttentionLayer(config.size, config.heads, config.dropout) for name in widths})
            for _ in range(config.layers)
        )
        self.norms = nn.ModuleDict({name: nn.LayerNorm(config.size) for name in widths})

    def combine(self, data: Sequence[Tensor], present: Tensor) -> Tensor:
        num_clips, num_steps, _ = present.shape
        positions = sinusoids(num_steps, self.bottlenecks.shape[1], data[0].device)
        tokens = [self.projections[name](values) + positions for name, values in zip(self.names, data, strict=True)]
        shared = self.bottlenecks.expand(num_clips, -1, -1)
        real = torch.cat([present, present.new_ones(num_clips, shared.shape[1], len(tokens))], dim=1)
        shares = _shares(present.any(dim=1))
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleDict)
            both = [
                layer[name](torch.cat([own, shared.to(own.dtype)], dim=1), real[..., m])
                for m, (name, own) in enumerate(zip(self.names, tokens, strict=True))
            ]
            tokens = [each[:, :num_steps] for each in both]
            shared = torch.stack([each[:, num_steps:] for each in both], dim=-1) @ shares[:, None, :, None].to(both[0])
            shared = shared.squeeze(-1)
        states = torch.stack([self.norms[name](own) for name, own in zip(self.names, tokens, strict=True)], dim=-2)
        states = states * present[..., None]
        if self.output == "concat":
            return states.flatten(-2)
        return states.sum(dim=-2) / present.sum(dim=-1, keepdim=True).clamp_min(1)


class AttentionLayer(nn.Module):
    """One pre-norm transformer layer: tokens (B, S, F) and a mask (B, S), True for what may be attended to."""

    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(size)
        self.queries_keys_values = nn.Linear(size, 3 * size, bias=False)
        self.attention_output = nn.Linear(size, size)
        self.hidden = nn.Sequential(
            nn.LayerNorm(size), nn.Linear(size, 4 * size), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * size, size)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, real: Tensor) -> Tensor:
        parts = self.queries_keys_values(self.attention_norm(tokens)).unflatten(-1, (3, self.heads, -1))
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        dropout = self.dropout.p if self.training else 0.0
        seen = scaled_dot_product_attention(queries, keys, values, real[:, None, None, :], dropout)
        tokens = tokens + self.dropout(self.attention_output(seen.transpose(1, 2).flatten(-2)))
        return tokens + self.dropout(self.hidden(tokens))


def sinusoids(num_steps: int, size: int, device: torch.device) -> Tensor:
    """(num_steps, size) float32 position codes (Vaswani et al. 2017, section 3.5)."""
    frequency = torch.exp(torch.arange(0, size, 2, device=device) * (-math.log(10000.0) / size))
    angle = torch.arange(num_steps, device=device)[:, None] * frequency
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)[:, :size]


def _shares(present: Tensor) -> Tensor:
    """(B, M) float32 weights of the mean over a clip's streams; a clip without any takes all of them alike."""
    counted = torch.where(present.any(dim=1, keepdim=True), present, torch.ones_like(present)).float()
    return counted / counted.sum(dim=1, keepdim=True)
