"""Frame encoders out of transformers: ViT, DINOv2, CLIP, ConvNeXt ... by name or folder. One step a frame."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from mmfusion.config import configclass
from mmfusion.encoders.pretrained import Weights, load_input_settings, load_transformer
from mmfusion.encoders.steps import StepEncoder, encode_real
from mmfusion.encoders.video import IMAGENET_DEVIATION, IMAGENET_MEAN, check_frames, normalized, resized, unit_range
from mmfusion.types import InputError, Stream


@configclass
class TransformersVideoConfig:
    """Any transformers vision model on each frame."""

    kind: Literal["transformers_video"] = "transformers_video"
    input: str | None = None
    """Which input it reads; the encoder's own name when not given."""
    frozen: bool = False
    """Keeps the weights as they are."""
    model: str
    """Name on the Hugging Face hub, or a local folder."""
    weights: Weights = "pretrained"
    """pretrained, or none for the architecture with random weights."""
    pooling: Literal["mean", "first", "pooler"] = "mean"
    """mean over all tokens, the first (class) token, or the model's own pooler."""


class TransformersVideo(StepEncoder):
    """Frames (B, T, 3, H, W) uint8 -> (B, T, width) at the frame rate.

    Frames are resized to the model's own size and normalised by its own preprocessor settings (ImageNet's where it has
    none).
    """

    def __init__(self, config: TransformersVideoConfig) -> None:
        super().__init__()
        network, settings = load_transformer(config.model, config.weights)
        self.network = _Pooled(network, config.pooling, config.model)
        self.width = _width(settings, config.model)
        side = getattr(settings, "image_size", None)
        self.size_px = side if isinstance(side, int) else None
        given = load_input_settings(config.model)
        self.mean = tuple(given.get("image_mean") or IMAGENET_MEAN)
        self.deviation = tuple(given.get("image_std") or IMAGENET_DEVIATION)

    def forward(self, raw: Stream) -> Stream:
        frames = check_frames(raw)
        return raw.with_data(encode_real(self.network, lambda at: self._pictures(frames, at), raw.mask))

    def _pictures(self, frames: Tensor, at: Tensor) -> Tensor:
        return normalized(resized(unit_range(frames[at]), self.size_px), self.mean, self.deviation)


class _Pooled(nn.Module):
    """A vision model as pictures (M, 3, H, W) -> (M, width)."""

    def __init__(self, body: nn.Module, pooling: str, model: str) -> None:
        super().__init__()
        self.body, self.pooling, self.model = body, pooling, model

    def forward(self, pictures: Tensor) -> Tensor:
        output = self.body(pixel_values=pictures)
        if self.pooling == "pooler":
            pooled = getattr(output, "pooler_output", None)
            if pooled is None:
                raise InputError(f"{self.model}: has no pooler, so pooling must be mean or first")
            return pooled.flatten(1)
        hidden = output.last_hidden_state
        if hidden.ndim == 4:
            hidden = hidden.flatten(2).transpose(1, 2)
        return hidden[:, 0] if self.pooling == "first" else hidden.mean(1)


def _width(settings: Any, model: str) -> int:
    if isinstance(getattr(settings, "hidden_size", None), int):
        return settings.hidden_size
    if getattr(settings, "hidden_sizes", None):
        return settings.hidden_sizes[-1]
    raise InputError(f"{model}: not a vision model (its configuration names no hidden size)")
