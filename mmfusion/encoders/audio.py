"""Sound encoders made of convolutions: our own small one, and any torchvision image network on a log-mel picture."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmfusion.config import configclass
from mmfusion.encoders.logmel import LogMel, LogMelConfig, frames_per_step
from mmfusion.encoders.steps import StepEncoder, encode_real
from mmfusion.types import InputError, Stream


@configclass
class SpectrogramCnnConfig:
    """A small convolutional network over the log-mel spectrogram that keeps the time axis."""

    kind: Literal["spectrogram_cnn"] = "spectrogram_cnn"
    input: str | None = None
    """Which input it reads; the encoder's own name when not given."""
    frozen: bool = False
    """Keeps weights and statistics as they are."""
    rate: Annotated[float, Field(gt=0)] = 4.0
    """Steps a second; must divide the frames a second of the log-mel."""
    width: Annotated[int, Field(gt=0)] = 128
    """Features a step."""
    channels: tuple[Annotated[int, Field(gt=0)], ...] = (16, 32, 64, 96)
    """Channels of each block; every block halves the frequency axis."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping a feature before the last layer, in training."""
    logmel: LogMelConfig = field(default_factory=LogMelConfig)
    """The picture of the sound that it looks at."""


@configclass
class TorchvisionAudioConfig:
    """Any torchvision image classifier, without its classifier, on one log-mel picture a step."""

    kind: Literal["torchvision_audio"] = "torchvision_audio"
    input: str | None = None
    """Which input it reads; the encoder's own name when not given."""
    frozen: bool = False
    """Keeps weights and statistics as they are."""
    model: str = "resnet18"
    """Name in torchvision.models."""
    weights: str = "none"
    """none, one of torchvision's names for the model (DEFAULT is the best), or a local .pth or .safetensors file."""
    rate: Annotated[float, Field(gt=0)] = 2.0
    """Steps a second; must divide the frames a second of the log-mel."""
    window_s: Annotated[float, Field(gt=0)] | None = None
    """Length of the picture around each step; exactly the step when not given."""
    size_px: Annotated[int, Field(gt=0)] | None = None
    """Side to which the picture is resized; as it comes (bands by frames) when not given."""
    logmel: LogMelConfig = field(default_factory=LogMelConfig)
    """The picture of the sound that it looks at."""


class SpectrogramCnn(StepEncoder):
    """Waveform (B, N) -> (B, T, width) at `rate`; T = ceil(frames / frames a step).

    Its convolutions run inside each step, with the first and last frame repeated at the edges, so an event shows in
    the step that it falls into and nowhere else; what spans several steps is for the LSTM. Time is halved twice where
    the frames of a step allow; of what is left the mean and the maximum over time are taken, band by band.
    """

    def __init__(self, config: SpectrogramCnnConfig) -> None:
        super().__init__()
        if not config.channels:
            raise InputError("spectrogram_cnn.channels: needs at least one block")
        self.logmel = LogMel(config.logmel)
        self.frames = frames_per_step(config.logmel.hop_s, config.rate, "spectrogram_cnn.rate")
        layers: list[nn.Module] = []
        left, size, bands = self.frames, 1, config.logmel.num_mels
        for index, channels in enumerate(config.channels):
            halve = index < 2 and left % 2 == 0
            layers += [_RepeatEdges(), *_conv(size, channels, halve), nn.BatchNorm2d(channels), nn.ReLU(True)]
            left, size, bands = left // 2 if halve else left, channels, (bands + 1) // 2
        last = [nn.Dropout(config.dropout), nn.Linear(2 * size * bands, config.width), nn.ReLU()]
        self.network = nn.Sequential(*layers, _MeanAndPeak(), *last)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.rate, self.width = config.rate, config.width

    def forward(self, raw: Stream) -> Stream:
        sound, mask = _whole_steps(self.logmel(raw), self.frames)
        pictures = sound.unflatten(1, (-1, self.frames)).flatten(0, 1)
        steps = mask.unflatten(1, (-1, self.frames)).any(2)
        return Stream(encode_real(self.network, lambda at: pictures[at].unsqueeze(1), steps), steps, self.rate)


def _conv(channels_in: int, channels: int, halve_time: bool) -> list[nn.Module]:
    """Halves the frequency axis, and time when asked to (4 taps then reach equally far to both sides of a pair)."""
    taps, stride = (4, 2) if halve_time else (3, 1)
    return [nn.Conv2d(channels_in, channels, (taps, 3), (stride, 2), (0, 1), bias=False)]


class _RepeatEdges(nn.Module):
    """(M, C, T, F) -> (M, C, T + 2, F): zeros would look like an onset at every step's edge."""

    def forward(self, maps: Tensor) -> Tensor:
        return F.pad(maps, (0, 0, 1, 1), mode="replicate").contiguous(memory_format=torch.channels_last)


class _MeanAndPeak(nn.Module):
    """(M, C, T, F) -> (M, 2CF): each band's mean and maximum over time."""

    def forward(self, maps: Tensor) -> Tensor:
        peak = F.max_pool2d(maps, (maps.shape[2], 1)).squeeze(2)  # its gradient is cheaper than that of amax
        return torch.cat([maps.mean(2), peak], dim=1).flatten(1)


class TorchvisionAudio(StepEncoder):
    """Waveform (B, N) -> (B, T, width) at `rate`: each step is one picture, bands by frames, seen by itself.

    With `window_s` longer than a step neighbouring pictures overlap, and an event shows in each picture that holds it.
    """

    def __init__(self, config: TorchvisionAudioConfig) -> None:
        super().__init__()
        from mmfusion.encoders.cnn import load_image_network

        self.logmel = LogMel(config.logmel)
        self.frames = frames_per_step(config.logmel.hop_s, config.rate, "torchvision_audio.rate")
        self.window = self.frames if config.window_s is None else round(config.window_s / config.logmel.hop_s)
        if self.window < self.frames:
            raise InputError(f"torchvision_audio.window_s: {config.window_s:g} s is shorter than a step")
        self.network, self.width = load_image_network(config.model, config.weights, channels=1)
        self.rate, self.size_px = config.rate, config.size_px

    def forward(self, raw: Stream) -> Stream:
        sound, mask = _whole_steps(self.logmel(raw), self.frames)
        before = (self.window - self.frames) // 2
        sound = F.pad(sound, (0, 0, before, self.window - self.frames - before))
        pictures = sound.unfold(1, self.window, self.frames).flatten(0, 1)
        steps = mask.unflatten(1, (-1, self.frames)).any(2)
        return Stream(encode_real(self.network, lambda at: self._pictures(pictures, at), steps), steps, self.rate)

    def _pictures(self, pictures: Tensor, at: Tensor) -> Tensor:
        chosen = pictures[at].unsqueeze(1)
        if self.size_px is None:
            return chosen
        return F.interpolate(chosen, (self.size_px, self.size_px), mode="bilinear", align_corners=False)


def _whole_steps(sound: Stream, frames: int) -> tuple[Tensor, Tensor]:
    """Data and mask with blank frames added until they make whole steps."""
    missing = -sound.mask.shape[1] % frames
    return F.pad(sound.data, (0, 0, 0, missing)), F.pad(sound.mask, (0, missing))
