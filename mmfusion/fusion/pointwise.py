"""Join operators that work on every step by itself: concat, sum, gated, film, lowrank; and what all joins share.

Every operator takes n >= 2 streams of any widths. At a step where a stream is missing, it contributes what leaves the
others alone (each class says what that is); where all are missing, the result is zero with mask False.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mmfusion.config import configclass
from mmfusion.types import InputError, Stream

Size = Annotated[int, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, lt=1)]


@configclass
class ConcatConfig:
    """Feature vectors side by side."""

    kind: Literal["concat"] = "concat"
    size: Size | None = None
    """Width after a linear projection; None: no projection, the widths add up."""
    dropout: Probability = 0.0
    """Probability of zeroing a joined feature in training."""


@configclass
class SumConfig:
    """Sum of linear projections."""

    kind: Literal["sum"] = "sum"
    size: Size = 128
    """Width of the projections."""
    dropout: Probability = 0.0
    """Probability of zeroing a joined feature in training."""


@configclass
class GatedConfig:
    """Gated multimodal units."""

    kind: Literal["gated"] = "gated"
    size: Size = 128
    """Number of gated units."""
    dropout: Probability = 0.0
    """Probability of zeroing a joined feature in training."""


@configclass
class FilmConfig:
    """Feature-wise linear modulation of one stream by the others."""

    kind: Literal["film"] = "film"
    size: Size = 128
    """Number of modulated features."""
    modulated: str | None = None
    """Name of the stream that is modulated; None: the first encoder's."""
    dropout: Probability = 0.0
    """Probability of zeroing a joined feature in training."""


@configclass
class LowRankConfig:
    """Low-rank multimodal fusion: the outer product of all streams, through factors."""

    kind: Literal["lowrank"] = "lowrank"
    size: Size = 128
    """Width of the result."""
    rank: Size = 4
    """Number of rank-one terms."""
    dropout: Probability = 0.0
    """Probability of zeroing a joined feature in training."""


class Join(nn.Module, ABC):
    """What all operators share: order, masks and the zeros where nothing is there.

    `forward(streams)` takes aligned streams (B, T, F_m) and gives a stream (B, T, width) with the union of their masks.
    Streams are read by name, in the order of `widths`; the order of the mapping does not matter. Raises ValueError
    for streams that are not aligned.
    """

    def __init__(self, widths: Mapping[str, int], width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.names = tuple(widths)
        self.width = width
        self.dropout = nn.Dropout(dropout)

    def forward(self, streams: Mapping[str, Stream]) -> Stream:
        ordered = [streams[name] for name in self.names]
        clocks = {(tuple(stream.mask.shape), stream.rate) for stream in ordered}
        if len(clocks) > 1:
            raise ValueError(f"streams must be aligned before they are joined, got (B, T) and rates {sorted(clocks)}")
        present = torch.stack([stream.mask for stream in ordered], dim=-1)
        union = present.any(dim=-1)
        joined = self.dropout(self.combine([stream.zeroed() for stream in ordered], present))
        return Stream(joined.masked_fill(~union[..., None], 0), union, ordered[0].rate)

    @abstractmethod
    def combine(self, data: Sequence[Tensor], present: Tensor) -> Tensor:
        """data: M tensors (B, T, F_m), zero where missing; present: (B, T, M) bool -> (B, T, width)."""


class AloneJoin(Join):
    """A single stream needs no operator: its data comes back as it is."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__(widths, next(iter(widths.values())))

    def combine(self, data: Sequence[Tensor], present: Tensor) -> Tensor:
        return data[0]


class ConcatJoin(Join):
    """y = [x_1; ...; x_M], or W [x_1; ...; x_M] + b. A missing stream is zeros (Ngiam et al. 2011)."""

    def __init__(self, config: ConcatConfig, widths: Mapping[str, int]) -> None:
        total = sum(widths.values())
        super().__init__(widths, config.size or total, config.dropout)
        self.projection = nn.Linear(total, config.size) if config.size else nn.Identity()

    def combine(self, data: Sequence[Tensor], present: Tensor) -> Tensor:
        return self.projection(torch.cat(list(data), dim=-1))


class SumJoin(Join):
    """y = sum_m W_m x_m + b_m. A missing stream adds nothing, not even its b_m."""

    def __init__(self, config: SumConfig, widths: Mapping[str, int]) -> None:
        super().__init__(widths, config.size, config.dropout)
        self.projections = nn.ModuleDict({name: nn.Linear(width, config.size) for name, width in widths.items()})

    def combine(self, data: Sequence[Tensor], present: Tensor) -> Tensor:
        terms = _projected(self.projections, data)
        return (terms * present[..., None]).sum(dim=-2)


class GatedJoin(Join):
    """Gated multimodal units (Arevalo et al. 2017, section 3; gating one modality by another: Kiela et al. 2018).

        h_m = tanh(W_m x_m + b_m)      g = softmax_m(U_m [x_1; ...; x_M] + c_m), unit by unit      y = sum_m g_m h_m

    For two streams the softmax is the pair z, 1 - z of Arevalo et al. The gate of a missing stream is closed (0) and
    the open gates share what it leaves.
    """

    def __init__(self, config: GatedConfig, widths: Mapping[str, int]) -> None:
        super().__init__(widths, config.size, config.dropout)
        self.projections = nn.ModuleDict({name: nn.Linear(width, config.size) for name, width in widths.items()})
        self.gates = nn.Linear(sum(widths.values()), len(widths) * config.size)

    def combine(self, data: Sequence[Tensor], present: Tensor) -> Tensor:
        states = torch.tanh(_projected(self.projections, data))
        scores = self.gates(torch.cat(list(data), dim=-1)).float().unflatten(-1, states.shape[-2:])
        # The lowest finite number, not -inf: a step without any stream would otherwise be NaN in the backward pass.
        scores = scores.masked_fill(~present[..., None], torch.finfo(scores.dtype).min)
        return (torch.softmax(scores, dim=-2) * states).sum(dim=-2)


class FilmJoin(Join):
    """Feature-wise linear modulation (Perez et al. 2018, eq. 1-2) of one stream x_c by all others.

        gamma = 1 + sum_{m != c} (G_m x_m + g_m)        beta = sum_{m != c} (B_m x_m + b_m)
        y = gamma * (W x_c + b) + beta

    A missing modulator changes nothing (gamma 1, beta 0); without the modulated stream the result is beta.
    """

    def __init__(self, config: FilmConfig, widths: Mapping[str, int]) -> None:
        super().__init__(widths, config.size, config.dropout)
        modulated = config.modulated or self.names[0]
        if modulated not in widths:
            raise InputError(f"join.modulated: no stream is called {modulated} (there are {', '.join(widths)})")
        self.content = self.names.index(modulated)
        self.projection = nn.Linear(widths[modulated], config.size)
        others = {name: width for name, width in widths.items() if name != modulated}
        self.modulations = nn.ModuleDict({name: nn.Linear(width, 2 * config.size) for name, width in others.items()})

    def combine(self, data: Sequence[Tensor], present: Tensor) -> Tensor:
        others = [position for position in range(len(data)) if position != self.content]
        terms = _projected(self.modulations, [data[position] for position in others])
        gamma, beta = (terms * present[..., others][..., None]).sum(dim=-2).chunk(2, dim=-1)
        content = self.projection(data[self.content]) * present[..., self.content, None]
        return (1 + gamma) * content + beta


class LowRankJoin(Join):
    """Low-rank multimodal fusion (Liu et al. 2018, section 3): the tensor fusion of Zadeh et al. 2017, factorised.

        y = sum_r a_r prod_m W_m^(r) [x_m; 1] + b        (the product is element-wise, over vectors of `size`)

    The factor of a missing stream is the neutral 1: the result is that of the streams that are there.
    """

    def __init__(self, config: LowRankConfig, widths: Mapping[str, int]) -> None:
        super().__init__(widths, config.size, config.dropout)
        self.rank = config.rank
        outputs = config.rank * config.size
        self.factors = nn.ModuleDict({name: nn.Linear(width, outputs) for name, width in widths.items()})
        for name, width in widths.items():
            factor = self.factors[name]
            assert isinstance(factor, nn.Linear)
            nn.init.normal_(factor.weight, std=width**-0.5)
            # The row of [x; 1]'s constant: of the order of the rest, else only the product of all streams passes.
            nn.init.normal_(factor.bias)
        self.rank_weights = nn.Parameter(torch.full((config.rank,), config.rank**-0.5))
        self.bias = nn.Parameter(torch.zeros(config.size))

    def combine(self, data: Sequence[Tensor], present: Tensor) -> Tensor:
        factors = _projected(self.factors, data).masked_fill(~present[..., None], 1)
        terms = factors.prod(dim=-2).unflatten(-1, (self.rank, self.width))
        return (terms * self.rank_weights[:, None]).sum(dim=-2) + self.bias


def _projected(layers: nn.ModuleDict, data: Sequence[Tensor]) -> Tensor:
    """M tensors (B, T, F_m) through their M layers, in order -> (B, T, M, size)."""
    return torch.stack([layer(values) for layer, values in zip(layers.values(), data, strict=True)], dim=-2)
