"""One small encoder of every kind, and raw input for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mmfusion.config import validate
from mmfusion.encoders.build import EncoderConfig, build_steps
from mmfusion.encoders.steps import StepEncoder
from mmfusion.types import Stream

SMALL_MEL = {"num_mels": 32}

SETTINGS: dict[str, dict[str, Any]] = {
    "spectrogram_cnn": {"kind": "spectrogram_cnn", "rate": 4.0, "width": 10, "channels": [4, 6, 8]},
    "spectrogram_cnn_odd": {"kind": "spectrogram_cnn", "rate": 16.0, "width": 10, "logmel": {"normalize": "clip"}},
    "tagging_cnn": {"kind": "tagging_cnn", "width": 10, "stem": 6, "channels": [8, 8, 8, 10]},
    "torchvision_audio": {"kind": "torchvision_audio", "model": "resnet18", "logmel": SMALL_MEL},
    "torchvision_audio_wide": {"kind": "torchvision_audio", "model": "squeezenet1_1", "window_s": 1.0, "size_px": 32},
    "ast": {"kind": "transformers_audio", "rate": 5.0},
    "wav2vec2": {"kind": "transformers_audio", "rate": 4.0},
    "stft": {"kind": "stft"},
    "stft_phase": {"kind": "stft", "spectra": {"phase": True}},
    "dense_cnn": {"kind": "dense_cnn", "width": 12, "blocks": 4, "cycle": 2},
    "unet": {"kind": "unet", "channels": [4, 6, 8], "maps": 2},
    "unet_phase": {"kind": "unet", "channels": [4, 6], "maps": 1, "spectra": {"phase": True}},
    "unet_told": {"kind": "unet", "channels": [4, 6], "maps": 2, "positions": True, "context": True},
    "dense_cnn_relative": {"kind": "dense_cnn", "width": 12, "spectra": {"relative": True, "phase": True}},
    "frame_cnn": {"kind": "frame_cnn", "width": 12},
    "frame_cnn_motion": {"kind": "frame_cnn", "width": 12, "channels": [4, 8], "motion": True},
    "torchvision_video": {"kind": "torchvision_video", "model": "resnet18"},
    "torchvision_video_mobile": {"kind": "torchvision_video", "model": "mobilenet_v3_small", "size_px": 48},
    "vit": {"kind": "transformers_video", "pooling": "first"},
    "clip": {"kind": "transformers_video", "pooling": "pooler"},
    "convnext": {"kind": "transformers_video"},
    "precomputed": {"kind": "precomputed"},
    "precomputed_projected": {"kind": "precomputed", "width": 7, "norm": True},
}
# A step of these sees `encoder.reach` steps to either side of its own, and nothing beyond.
WIDE = ["stft", "stft_phase", "dense_cnn", "unet", "unet_phase"]
# A step of these sees means over the whole clip.
WHOLE = ["unet_told", "dense_cnn_relative"]
AUDIO = [
    "spectrogram_cnn", "spectrogram_cnn_odd", "tagging_cnn",
    "torchvision_audio", "torchvision_audio_wide", "ast", "wav2vec2", *WIDE, *WHOLE,
]  # fmt: skip
FEATURES = ["precomputed", "precomputed_projected"]
VIDEO = [name for name in SETTINGS if name not in AUDIO + FEATURES]

SAMPLE_RATE, FRAME_RATE, SIDE, FEATURES_IN = 16000, 4.0, 32, 5


def save_checkpoint(name: str, folder: Path) -> str:
    """A tiny transformers model of this family, saved as its own folder."""
    import transformers as hf

    torch.manual_seed(1)
    tiny: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    tiny["intermediate_size"] = 24
    if name == "ast":
        patches: dict[str, Any] = {
            "patch_size": 8,
            "frequency_stride": 5,
            "time_stride": 5,
            "num_mel_bins": 24,
            "max_length": 205,
        }
        model = hf.ASTModel(hf.ASTConfig(**tiny, **patches))
        hf.ASTFeatureExtractor(num_mel_bins=24, max_length=205).save_pretrained(folder)
    elif name == "wav2vec2":
        layers: dict[str, Any] = {"conv_dim": (8, 8, 8), "conv_kernel": (10, 8, 4), "conv_stride": (10, 8, 4)}
        positions: dict[str, Any] = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
        model = hf.Wav2Vec2Model(hf.Wav2Vec2Config(**tiny, **layers, **positions, mask_time_prob=0.0, layerdrop=0.0))
    elif name == "vit":
        model = hf.ViTModel(hf.ViTConfig(**tiny, image_size=32, patch_size=8))
    elif name == "clip":
        text = hf.CLIPTextConfig(**tiny, vocab_size=20, max_position_embeddings=8)
        vision = hf.CLIPVisionConfig(**tiny, image_size=32, patch_size=8)
        both: dict[str, Any] = {"text_config": text.to_dict(), "vision_config": vision.to_dict(), "projection_dim": 8}
        model = hf.CLIPModel(hf.CLIPConfig(**both))
    else:
        model = hf.ConvNextModel(hf.ConvNextConfig(hidden_sizes=[8, 12], depths=[1, 1], num_stages=2))
    model.save_pretrained(folder)
    return str(folder)


def make(name: str, folder: Path, **more: Any) -> StepEncoder:
    """The encoder of this kind in evaluation mode, always with the same weights."""
    settings = {**SETTINGS[name], **more}
    if settings["kind"].startswith("transformers"):
        path = folder / name
        settings["model"] = str(path) if path.exists() else save_checkpoint(name, path)
    config = validate(EncoderConfig, settings, "test")  # type: ignore[arg-type]
    torch.manual_seed(2)
    encoder = build_steps(config, FEATURES_IN if name in FEATURES else None)
    return encoder if encoder.frozen else warmed(encoder, make_raw(name, [3.0, 3.0], seed=9)).eval()


@torch.no_grad()
def warmed(encoder: StepEncoder, raw: Stream) -> StepEncoder:
    """The same with batch-norm statistics of some input: with none, features of a random network fade to nothing."""
    norms = [module for module in encoder.train().modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    encoder(raw)
    for norm in norms:
        norm.momentum = 0.1
    return encoder


def make_raw(name: str, seconds: list[float], padded_s: float = 0.0, seed: int = 3) -> Stream:
    """Raw input of these lengths (0 = a clip without this modality), with noise under the mask, not zeros."""
    generator = torch.Generator().manual_seed(seed)
    rate = SAMPLE_RATE if name in AUDIO else FRAME_RATE
    total = max(1, round((max(seconds) + padded_s) * rate))
    rows = []
    for index, _ in enumerate(seconds):
        own = torch.Generator().manual_seed(seed * 100 + index)
        length = round(max(seconds) * rate)
        rows.append(_noise(name, length, own))
        rows[-1] = torch.cat([rows[-1], _noise(name, total - length, generator)])
    lengths = torch.tensor([round(length * rate) for length in seconds])
    return Stream(torch.stack(rows), torch.arange(total) < lengths[:, None], rate)


def _noise(name: str, num: int, generator: torch.Generator) -> torch.Tensor:
    if name in AUDIO:
        return torch.randn(num, generator=generator) * 0.1
    if name in FEATURES:
        return torch.randn(num, FEATURES_IN, generator=generator)
    return torch.randint(0, 256, (num, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
