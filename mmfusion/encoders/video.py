"""Frame encoders made of convolutions: our own small one, and any torchvision image network. One step a frame."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmfusion.config import configclass
from mmfusion.encoders.steps import StepEncoder, encode_real
from mmfusion.types import InputError, Stream

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


@configclass
class FrameCnnConfig:
    """A small convolutional network for frames of 28 to 128 px, made to be trained on a CPU."""

    kind: Literal["frame_cnn"] = "frame_cnn"
    input: str | None = None
    """Which input it reads; the encoder's own name when not given."""
    frozen: bool = False
    """Keeps weights and statistics as they are."""
    width: Annotated[int, Field(gt=0)] = 128
    """Features a frame."""
    channels: tuple[Annotated[int, Field(gt=0)], ...] = (16, 32, 64, 96)
    """Channels of each block; every block halves height and width."""
    motion: bool = False
    """Shows it each frame's difference to the frame before as three more channels (0 where there is none)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropping a feature before the last layer, in training."""


@configclass
class TorchvisionVideoConfig:
    """Any torchvision image classifier, without its classifier, on each frame."""

    kind: Literal["torchvision_video"] = "torchvision_video"
    input: str | None = None
    """Which input it reads; the encoder's own name when not given."""
    frozen: bool = False
    """Keeps weights and statistics as they are."""
    model: str = "resnet18"
    """Name in torchvision.models."""
    weights: str = "none"
    """none, one of torchvision's names for the model (DEFAULT is the best), or a local .pth or .safetensors file."""
    size_px: Annotated[int, Field(gt=0)] | None = None
    """Side to which frames are resized; as they come when not given."""


class FrameCnn(StepEncoder):
    """Frames (B, T, 3, H, W) uint8 -> (B, T, width) at the frame rate: mean and maximum over the last feature map."""

    def __init__(self, config: FrameCnnConfig) -> None:
        super().__init__()
        if not config.channels:
            raise InputError("frame_cnn.channels: needs at least one block")
        self.motion = config.motion
        layers: list[nn.Module] = []
        size = 6 if config.motion else 3
        for channels in config.channels:
            taps = 4 if not layers else 3
            layers += [nn.Conv2d(size, channels, taps, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(True)]
            size = channels
        last = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(2 * size, config.width), nn.ReLU())
        self.network = nn.Sequential(_ChannelsLast(), *layers, _MeanAndPeak(), last)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.width = config.width

    def forward(self, raw: Stream) -> Stream:
        frames = check_frames(raw)
        return raw.with_data(encode_real(self.network, lambda at: self._pictures(frames, raw.mask, at), raw.mask))

    def _pictures(self, frames: Tensor, mask: Tensor, at: Tensor) -> Tensor:
        now = unit_range(frames[at])
        if not self.motion:
            return (now - 0.5) * 4.0
        before = at - F.pad(mask[:, :-1], (1, 0)).flatten()[at].long()
        # Less of the difference than of the picture, else a flash shows more in the frame after it than in its own.
        return torch.cat([(now - 0.5).mul_(4.0), (now - unit_range(frames[before])).mul_(2.0)], dim=1)


class _ChannelsLast(nn.Module):
    """Convolutions on a CPU are twice as fast in this memory format; everything before them is faster in the other."""

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.contiguous(memory_format=torch.channels_last)


class _MeanAndPeak(nn.Module):
    """(M, C, H, W) -> (M, 2C): how much of a pattern there is, and how clearly it is there somewhere."""

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)


class TorchvisionVideo(StepEncoder):
    """Frames (B, T, 3, H, W) uint8 -> (B, T, width) at the frame rate, normalised as on ImageNet."""

    def __init__(self, config: TorchvisionVideoConfig) -> None:
        super().__init__()
        from mmfusion.encoders.cnn import load_image_network

        self.network, self.width = load_image_network(config.model, config.weights)
        self.size_px = config.size_px

    def forward(self, raw: Stream) -> Stream:
        frames = check_frames(raw)
        return raw.with_data(encode_real(self.network, lambda at: self._pictures(frames, at), raw.mask))

    def _pictures(self, frames: Tensor, at: Tensor) -> Tensor:
        return normalized(resized(unit_range(frames[at]), self.size_px), IMAGENET_MEAN, IMAGENET_DEVIATION)


def check_frames(raw: Stream) -> Tensor:
    """The frames of all clips in one row, (B * T, 3, H, W)."""
    if raw.data.ndim != 5 or raw.data.shape[2] != 3:
        raise ValueError(f"frames must be (batch, time, 3, height, width), got {tuple(raw.data.shape)}")
    return raw.data.flatten(0, 1)


def unit_range(frames: Tensor) -> Tensor:
    """uint8 frames as float32 in [0, 1]; float frames are taken to be in [0, 1] already."""
    return frames.float() if frames.is_floating_point() else frames.float() / 255.0


def resized(pictures: Tensor, size_px: int | None) -> Tensor:
    """Square pictures of side `size_px`, or the pictures as they are."""
    if size_px is None or tuple(pictures.shape[-2:]) == (size_px, size_px):
        return pictures
    return F.interpolate(pictures, (size_px, size_px), mode="bilinear", align_corners=False, antialias=True)


def normalized(pictures: Tensor, mean: tuple[float, ...], deviation: tuple[float, ...]) -> Tensor:
    """(pictures - mean) / deviation, channel by channel."""
    return (pictures - pictures.new_tensor(mean)[:, None, None]) / pictures.new_tensor(deviation)[:, None, None]
