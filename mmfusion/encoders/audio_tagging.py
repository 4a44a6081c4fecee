"""A convolutional network over the whole log-mel spectrogram, for naming what is heard in a clip.

Where `spectrogram_cnn` looks at each step by itself, here a step knows what is before and after it: convolutions run
across steps, as in VGGish (Hershey et al. 2017) and PANNs' CNN10 (Kong et al. 2020, table 1), of which this is a small
relative.
"""

from __future__ import annotations

import math
from dataclasses import field
from itertools import pairwise
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
    stem: Annotated[int, Field(gt=0)] = 32
    """Channels of the first convolution, which halves time and frequency."""
    channels: tuple[Annotated[int, Field(gt=0)], ...] = (64, 128, 256, 256)
    """Channels of each block; every block but the last halves time and frequency."""
    width: Annotated[int, Field(gt=0)] = 256
    """Features a step."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping a feature before the last layer, in training."""
    block_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping a channel between two blocks, in training."""
    logmel: LogMelConfig = field(default_factory=LogMelConfig)
    """The picture of the sound that it looks at."""


class TaggingCnn(StepEncoder):
    """Waveform (B, N) -> (B, T, width); a step is 2 ** blocks frames of the log-mel, T = ceil(frames / frames a step).

    A step is real when one of its frames is. Maps are zeroed where nothing is real before every convolution, so padding
    changes nothing; batch norm in training counts what is computed there. Over frequency the mean and the maximum are
    taken. A step sees `reach` steps to either side of its own.
    Raises InputError when there are more blocks than the bands can be halved.
    """

    def __init__(self, config: TaggingCnnConfig) -> None:
        super().__init__()
        if not config.channels:
            raise InputError("tagging_cnn.channels: needs at least one block")
        if config.logmel.num_mels % 2 ** len(config.channels):
            raise InputError(
                f"tagging_cnn.channels: {config.logmel.num_mels} bands cannot be halved {len(config.channels)} times"
            )
        self.logmel = LogMel(config.logmel)
        self.frames = 2 ** len(config.channels)
        # Four taps reach equally far to both sides of a pair.
        self.stem = _conv(1, config.stem, 4, 2)
        sizes = (config.stem, *config.channels)
        self.blocks = nn.ModuleList(_conv(before, after, 3, 1) for before, after in pairwise(sizes))
        self.drop = nn.Dropout2d(config.block_dropout)
        last = [nn.Dropout(config.dropout), nn.Linear(2 * config.channels[-1], config.width), nn.ReLU()]
        self.last = nn.Sequential(*last)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.rate, self.width = 1 / (config.logmel.hop_s * self.frames), config.width
        window = math.ceil(config.logmel.window_s / config.logmel.hop_s)
        self.reach = math.ceil((window + 2 * self.frames) / self.frames)

    def forward(self, raw: Stream) -> Stream:
        frames, real = group_steps(self.logmel(raw), self.frames)
        maps, mask = frames.flatten(1, 2).unsqueeze(1), real.flatten(1, 2)
        maps = self.stem(maps.contiguous(memory_format=torch.channels_last))
        maps, mask = _keep(maps, _halved(mask))
        for number, block in enumerate(self.blocks, start=1):
            maps = block(maps)
            if number < len(self.blocks):
                maps, mask = _keep(self.drop(F.avg_pool2d(maps, 2)), _halved(mask))
        features = torch.cat([maps.mean(3), maps.amax(3)], dim=1).transpose(1, 2)
        steps = self.last(features).float() * mask.unsqueeze(2)
        return Stream(steps, mask, self.rate)


def _conv(channels_in: int, channels: int, taps: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels, taps, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def _halved(mask: Tensor) -> Tensor:
    """(B, T) -> (B, T / 2): real when one of the two is."""
    return mask.unflatten(1, (-1, 2)).any(2)


def _keep(maps: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Maps (B, C, T, F), zero where the mask (B, T) is False."""
    return maps * mask[:, None, :, None], mask
