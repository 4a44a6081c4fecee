"""A convolutional network over the whole log-mel spectrogram, for naming what is heard in a clip.

Where `spectrogram_cnn` looks at each step by itself, here a step knows what is before and after it: convolutions run
across steps, as in VGGish (Hershey et al. 2017) and PANNs' CNN10 (Kong et al. 2020, table 1), of which this is a small
relative.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmfusion.config import configclass
from mmfusion.encoders.logmel import LogMel, LogMelConfig
from mmfusion.encoders.steps import StepEncoder, group_steps
from mmfusion.types import InputError, Stream


@configclass
class TaggingCnnConfig:
    """Settings of a `TaggingCnn`."""

    kind: Literal["tagging_cnn"] = "tagging_cnn"
    input: str | None = None
    """Which input it reads; the encoder's own name when not given."""
    frozen: bool = False
    """Keeps weights and statistics as they are."""
    channels: tuple[Annotated[int, Field(gt=0)], ...] = (32, 64, 128, 256)
    """Channels of each block; every block halves time and frequency."""
    convs: Annotated[int, Field(ge=1)] = 1
    """Convolutions a block."""
    stem: Annotated[int, Field(gt=0)] = 16
    """Channels of the first convolution, which works at full size."""
    width: Annotated[int, Field(gt=0)] = 256
    """Features a step."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping a feature before the last layer, in training."""
    logmel: LogMelConfig = field(default_factory=LogMelConfig)
    """The picture of the sound that it looks at."""


class TaggingCnn(StepEncoder):
    """Waveform (B, N) -> (B, T, width); a step is 2 ** blocks frames of the log-mel, T = ceil(frames / frames a step).

    A step is real when one of its frames is. Maps are zeroed where nothing is real before every convolution, so padding
    changes nothing; batch norm in training counts those zeros. Over frequency the mean and the maximum are taken.
    Raises InputError when there are more blocks than the bands can be halved.
    """

    def __init__(self, config: TaggingCnnConfig) -> None:
        super().__init__()
        if not config.channels:
            raise InputError("tagging_cnn.channels: needs at least one block")
        if config.logmel.num_mels >> len(config.channels) < 1:
            raise InputError(
                f"tagging_cnn.channels: {config.logmel.num_mels} bands cannot be halved {len(config.channels)} times"
            )
        self.logmel = LogMel(config.logmel)
        self.frames = 2 ** len(config.channels)
        self.stem = _Conv(1, config.stem)
        sizes = (config.stem, *config.channels)
        self.blocks = nn.ModuleList(
            nn.ModuleList(_Conv(before if first == 0 else after, after) for first in range(config.convs))
            for before, after in zip(sizes, config.channels, strict=False)
        )
        last = [nn.Dropout(config.dropout), nn.Linear(2 * config.channels[-1], config.width), nn.ReLU()]
        self.last = nn.Sequential(*last)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.rate, self.width = 1 / (config.logmel.hop_s * self.frames), config.width

    def forward(self, raw: Stream) -> Stream:
        frames, real = group_steps(self.logmel(raw), self.frames)
        maps, mask = frames.flatten(1, 2).unsqueeze(1), real.flatten(1, 2)
        maps = self.stem(maps.contiguous(memory_format=torch.channels_last), mask)
        for block in self.blocks:
            for conv in block:  # type: ignore[union-attr]
                maps = conv(maps, mask)
            maps, mask = F.avg_pool2d(maps, 2), mask.unflatten(1, (-1, 2)).any(2)
        features = torch.cat([maps.mean(3), maps.amax(3)], dim=1).transpose(1, 2)
        steps = self.last(features).float() * mask.unsqueeze(2)
        return Stream(steps, mask, self.rate)


class _Conv(nn.Module):
    """(B, C, T, F), mask (B, T) -> (B, C', T, F), zero where the mask is False."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, maps: Tensor, mask: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(maps)), inplace=True) * mask[:, None, :, None]
