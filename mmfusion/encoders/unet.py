"""A 2-D U-Net over the spectrogram: a few numbers for every frequency of every spectrum."""

from __future__ import annotations

from dataclasses import field
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from mmfusion.config import configclass
from mmfusion.encoders.spectral import SpectraConfig, features, mean_step
from mmfusion.encoders.steps import StepEncoder
from mmfusion.types import Stream


@configclass
class UnetConfig:
    """A U-Net (Ronneberger et al. 2015; for sources of sound: Jansson et al. 2017)."""

    kind: Literal["unet"] = "unet"
    input: str | None = None
    """Which input it reads; the encoder's own name when not given."""
    frozen: bool = False
    """Keeps weights as they are."""
    channels: tuple[Annotated[int, Field(gt=0)], ...] = Field(default=(16, 32, 64, 96, 128), min_length=2)
    """Channels of each level; from one to the next, time and frequency are halved."""
    maps: Annotated[int, Field(gt=0)] = 4
    """Features of each frequency that come out: a step has `maps` times as many as there are frequencies."""
    positions: bool = False
    """Show it where in the spectrum each point is, as one more layer (CoordConv, Liu et al. 2018): convolutions alone
    cannot tell low from high."""
    context: bool = False
    """Tell every point of the lowest level the mean over the clip at its frequency, which lies beyond its reach."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping a channel of the lowest level, in training."""
    spectra: SpectraConfig = field(default_factory=SpectraConfig)
    """What it sees."""


class Unet(StepEncoder):
    """Waveform (B, N) -> (B, T, maps * bins), one step a spectrum; feature m * bins + k belongs to frequency k.

    A step sees at most `reach` steps to either side, and the clip's means where `context` or `spectra.relative` is
    set. Each level is normed over the channels of every single point, so nothing else depends on the length of the
    clip; what is not real is zero for every layer, at lower levels wherever nothing beneath is real.
    """

    def __init__(self, config: UnetConfig) -> None:
        super().__init__()
        self.spectra, self.rate = config.spectra, config.spectra.stft.rate
        channels = config.channels
        self.layers, self.positions = config.spectra.layers, config.positions
        self.width = config.maps * config.spectra.stft.num_bins
        self.enter = _Conv(self.layers + self.positions, channels[0])
        pairs = list(pairwise(channels))
        self.down = nn.ModuleList(_Conv(above, below, stride=2) for above, below in pairs)
        self.deepest = _Conv(channels[-1], channels[-1])
        self.context = _Context(channels[-1]) if config.context else None
        self.drop = nn.Dropout2d(config.dropout)
        self.up = nn.ModuleList(nn.Conv2d(below, above, 1) for above, below in pairs)
        self.merge = nn.ModuleList(_Conv(2 * above, above) for above, _ in pairs)
        self.leave = nn.Conv2d(channels[0], config.maps, 1)
        # A 3 x 3 convolution where a point is 2^l steps reaches 2^l further, and so does a point that is repeated.
        self.reach = config.spectra.stft.reach + 4 * 2 ** len(pairs) - 2
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, raw: Stream) -> Stream:
        seen = features(raw, self.spectra)
        num = seen.mask.shape[1]
        missing = -num % 2 ** len(self.down)
        real = pad(seen.mask, (0, missing))[:, None, :, None]
        picture = pad(seen.data, (0, 0, 0, missing)).unflatten(-1, (self.layers, -1)).permute(0, 2, 1, 3)
        maps = self._maps(picture.contiguous(memory_format=torch.channels_last), real)
        said = seen.with_data(maps[:, :, :num].transpose(1, 2).flatten(2).float())
        return said.with_data(said.zeroed())

    def _maps(self, picture: Tensor, real: Tensor) -> Tensor:
        """(B, layers, T, bins) and which steps are real (B, 1, T, 1) -> (B, maps, T, bins)."""
        if self.positions:
            where = torch.linspace(-1, 1, picture.shape[3], device=picture.device) * real
            picture = torch.cat([picture, where], dim=1).contiguous(memory_format=torch.channels_last)
        points = self.enter(picture, real)
        kept: list[tuple[Tensor, Tensor]] = []
        for down in self.down:
            kept.append((points, real))
            real = real[:, :, ::2] | real[:, :, 1::2]
            points = down(points, real)
        if self.context is not None:
            points = points + self.context(points, real) * real
        points = self.drop(self.deepest(points, real))
        for up, merge, (above, real) in reversed(list(zip(self.up, self.merge, kept, strict=True))):
            # Points repeated, then convolved: half the time of a transposed convolution.
            raised = interpolate(up(points), scale_factor=2)[..., : above.shape[-1]]
            points = merge(torch.cat([raised * real, above], dim=1), real)
        return self.leave(points)


class _Conv(nn.Module):
    """(B, C, T, bins) -> 3 x 3 convolution, layer norm over the channels of each point, ReLU; zero where not real."""

    def __init__(self, channels_in: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 3, stride, 1)
        self.norm = nn.LayerNorm(channels)

    def forward(self, points: Tensor, real: Tensor) -> Tensor:
        # Channels lie last in memory, so the norm reads them without a copy.
        normed = self.norm(self.conv(points).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return torch.relu(normed) * real


class _Context(nn.Module):
    """(B, C, T, bins) -> (B, C, 1, bins): a linear layer on the mean over the real steps."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(channels), nn.Linear(channels, channels)

    def forward(self, points: Tensor, real: Tensor) -> Tensor:
        mean = mean_step(points.transpose(1, 2).float(), real[:, 0, :, 0])[:, 0]
        return self.mix(self.norm(mean.transpose(1, 2))).transpose(1, 2)[:, :, None]
