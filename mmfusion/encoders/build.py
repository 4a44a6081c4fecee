"""From an encoder's configuration to the encoder."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mmfusion.encoders.audio import SpectrogramCnn, SpectrogramCnnConfig, TorchvisionAudio, TorchvisionAudioConfig
from mmfusion.encoders.audio_tagging import TaggingCnn, TaggingCnnConfig
from mmfusion.encoders.audio_transformer import TransformersAudioConfig, build_transformers_audio
from mmfusion.encoders.precomputed import Precomputed, PrecomputedConfig
from mmfusion.encoders.spectral import DenseCnn, DenseCnnConfig, StftEncoder, StftEncoderConfig
from mmfusion.encoders.steps import StepEncoder
from mmfusion.encoders.unet import Unet, UnetConfig
from mmfusion.encoders.video import FrameCnn, FrameCnnConfig, TorchvisionVideo, TorchvisionVideoConfig
from mmfusion.encoders.video_transformer import TransformersVideo, TransformersVideoConfig

SpectralConfig = StftEncoderConfig | DenseCnnConfig | UnetConfig
"""those that read spectra, `spectra.stft`"""
EncoderConfig = Annotated[
    SpectrogramCnnConfig
    | TaggingCnnConfig
    | TorchvisionAudioConfig
    | TransformersAudioConfig
    | StftEncoderConfig
    | DenseCnnConfig
    | UnetConfig
    | FrameCnnConfig
    | TorchvisionVideoConfig
    | TransformersVideoConfig
    | PrecomputedConfig,
    Field(discriminator="kind"),
]


def build_steps(config: EncoderConfig, width: int | None) -> StepEncoder:
    """The encoder of steps, without an LSTM; `width` is that of its input where the input is features, else None.

    Has `.width`, and maps a raw `Stream` to a `Stream` of steps. Raises InputError.
    """
    encoder = _build(config, width)
    return encoder.freeze() if config.frozen else encoder


def _build(config: EncoderConfig, width: int | None) -> StepEncoder:  # noqa: PLR0911
    match config:
        case SpectrogramCnnConfig():
            return SpectrogramCnn(config)
        case TaggingCnnConfig():
            return TaggingCnn(config)
        case TorchvisionAudioConfig():
            return TorchvisionAudio(config)
        case TransformersAudioConfig():
            return build_transformers_audio(config)
        case StftEncoderConfig():
            return StftEncoder(config)
        case DenseCnnConfig():
            return DenseCnn(config)
        case UnetConfig():
            return Unet(config)
        case FrameCnnConfig():
            return FrameCnn(config)
        case TorchvisionVideoConfig():
            return TorchvisionVideo(config)
        case TransformersVideoConfig():
            return TransformersVideo(config)
        case PrecomputedConfig():
            return Precomputed(config, width)
