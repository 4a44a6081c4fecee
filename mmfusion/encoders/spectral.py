"""Sound encoders with one step a spectrum, for separation heads and any other: the spectra alone, or a 1-D network."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from mmfusion.config import configclass
from mmfusion.encoders.steps import StepEncoder
from mmfusion.spectrum import StftConfig, to_spectra
from mmfusion.types import Stream

SCALE = 4.0  # puts the logarithm of ordinary sounds near 1
LEVEL = 0.1  # root mean square to which a clip is brought: 20 dB under full scale


@configclass
class SpectraConfig:
    """What an encoder sees of the spectra."""

    stft: StftConfig = field(default_factory=StftConfig)
    """Sample rate, window and hop; a separation head behind it need not have the same."""
    phase: bool = False
    """Give real and imaginary part of the compressed spectra instead of their magnitude: twice the features."""
    relative: bool = False
    """Give beside them how far each frequency is above its own mean over the clip, so that what is steady is told from
    what happens: as many features more as there are frequencies."""
    floor: Annotated[float, Field(gt=0)] = 1e-7
    """Power (1 = a full-scale square) below which everything counts as silence."""
    normalize: Literal["none", "clip"] = "none"
    """clip: every clip is first brought to the same mean power over its real samples."""

    @property
    def layers(self) -> int:
        """Features for each frequency."""
        return 1 + self.phase + self.relative


@configclass
class StftEncoderConfig:
    """The compressed spectra themselves; nothing is learnt. With `recurrent` behind it: the BLSTM of the field."""

    kind: Literal["stft"] = "stft"
    input: str | None = None
    """Which input it reads; the encoder's own name when not given."""
    frozen: bool = False
    """Without effect: it has no weights."""
    spectra: SpectraConfig = field(default_factory=SpectraConfig)
    """What it gives."""


@configclass
class DenseCnnConfig:
    """Residual blocks of dense, dilated convolutions over time; all frequencies are mixed in every layer."""

    kind: Literal["dense_cnn"] = "dense_cnn"
    input: str | None = None
    """Which input it reads; the encoder's own name when not given."""
    frozen: bool = False
    """Keeps weights as they are."""
    width: Annotated[int, Field(gt=0)] = 256
    """Features a step, and channels of every layer."""
    blocks: Annotated[int, Field(ge=1)] = 10
    """Residual blocks; their dilations are 1, 2, 4, ... and begin again after `cycle` of them."""
    cycle: Annotated[int, Field(ge=1)] = 5
    """Blocks after which the dilation begins at 1 again."""
    taps: Annotated[int, Field(ge=1)] = 3
    """Steps that one convolution looks at; odd."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping a feature before each convolution, in training."""
    spectra: SpectraConfig = field(default_factory=SpectraConfig)
    """What it sees."""

    def __post_init__(self) -> None:
        if self.taps % 2 == 0:
            raise ValueError(f"taps must be odd, got {self.taps}")


class StftEncoder(StepEncoder):
    """Waveform (B, N) -> compressed spectra (B, T, layers * bins), see `SpectraConfig.layers`. It has no weights.

    A step sees `reach` steps to either side, and the clip's means where `spectra.relative` is set.
    """

    def __init__(self, config: StftEncoderConfig) -> None:
        super().__init__()
        self.spectra, self.rate = config.spectra, config.spectra.stft.rate
        self.width, self.reach = num_features(config.spectra), config.spectra.stft.reach

    def forward(self, raw: Stream) -> Stream:
        return features(raw, self.spectra)


class DenseCnn(StepEncoder):
    """Waveform (B, N) -> (B, T, width), one step a spectrum.

    A step sees `reach` steps to either side, and the clip's means where `spectra.relative` is set.

    Pre-activation residual blocks (He et al. 2016), x + W relu(norm(x)), whose convolution is one matrix product over
    the steps t - d, t, t + d side by side, so that bfloat16 speeds it. Layer norm over each step's own features:
    nothing else depends on the length of the clip, and what is not real is zero for every layer.
    """

    def __init__(self, config: DenseCnnConfig) -> None:
        super().__init__()
        self.spectra, self.rate, self.width = config.spectra, config.spectra.stft.rate, config.width
        self.enter = nn.Linear(num_features(config.spectra), config.width)
        dilations = [2 ** (number % config.cycle) for number in range(config.blocks)]
        self.blocks = nn.ModuleList(_Block(config, dilation) for dilation in dilations)
        self.norm = nn.LayerNorm(config.width)
        self.reach = config.spectra.stft.reach + (config.taps // 2) * sum(dilations)

    def forward(self, raw: Stream) -> Stream:
        seen = features(raw, self.spectra)
        real = seen.mask[..., None]
        steps = self.enter(seen.data)
        for block in self.blocks:
            steps = steps + block(steps, real)
        said = seen.with_data(torch.relu(self.norm(steps)).float())
        return said.with_data(said.zeroed())


class _Block(nn.Module):
    """(B, T, F) -> what is added to it; steps that are not real are read as zeros."""

    def __init__(self, config: DenseCnnConfig, dilation: int) -> None:
        super().__init__()
        self.taps, self.dilation = config.taps, dilation
        self.norm = nn.LayerNorm(config.width)
        self.drop = nn.Dropout(config.dropout)
        self.mix = nn.Linear(config.taps * config.width, config.width)

    def forward(self, steps: Tensor, real: Tensor) -> Tensor:
        ready = self.drop(torch.relu(self.norm(steps))) * real
        far, num = self.dilation * (self.taps // 2), steps.shape[1]
        padded = pad(ready, (0, 0, far, far))
        # One product over neighbours side by side: faster than a 1-D convolution, which wants another layout.
        beside = [padded[:, place * self.dilation :][:, :num] for place in range(self.taps)]
        return self.mix(torch.cat(beside, dim=-1))


def num_features(config: SpectraConfig) -> int:
    """Features a step that `features` gives."""
    return config.stft.num_bins * config.layers


def features(raw: Stream, config: SpectraConfig) -> Stream:
    """Waveform (B, N) -> (B, T, F) float32: c = log(1 + power / floor) / 4, or c times the spectrum's unit phase.

    Silence and padding are 0. With `relative`, c minus its mean over the clip's real steps comes behind.
    """
    with torch.autocast(raw.data.device.type, enabled=False):
        sound = raw.with_data(_levelled(raw)) if config.normalize == "clip" else raw
        spectra = to_spectra(sound, config.stft)
        # The Hann window's sum is half its length: a full-scale square has power 1 in its bin.
        power = (spectra.data.real.square() + spectra.data.imag.square()) / (config.stft.size / 2) ** 2
        level = torch.log1p(power / config.floor) / SCALE
        layers = [level]
        if config.phase:
            unit = spectra.data / spectra.data.abs().clamp(min=1e-12)
            layers = [level * unit.real, level * unit.imag]
        if config.relative:
            layers.append(level - mean_step(level, spectra.mask))
        seen = spectra.with_data(torch.cat(layers, dim=-1))
        return seen.with_data(seen.zeroed())


def mean_step(steps: Tensor, mask: Tensor) -> Tensor:
    """(B, 1, ...): the mean of the real ones of steps (B, T, ...); zero where there are none."""
    real = mask.reshape(*mask.shape, *[1] * (steps.ndim - 2)).to(steps.dtype)
    return (steps * real).sum(1, keepdim=True) / real.sum(1, keepdim=True).clamp(min=1)


def _levelled(raw: Stream) -> Tensor:
    """(B, N) with a mean power of LEVEL squared over the real samples; a silent clip stays silent."""
    sound = raw.zeroed().float()
    power = sound.square().sum(1, keepdim=True) / raw.mask.sum(1, keepdim=True).clamp(min=1)
    return sound * (LEVEL / power.sqrt().clamp(min=1e-5))
