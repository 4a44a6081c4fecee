"""Sound encoders out of transformers: the Audio Spectrogram Transformer, and wav2vec 2.0 and its relatives."""

from __future__ import annotations

from math import ceil
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from mmfusion.config import configclass
from mmfusion.encoders.logmel import frame_sound, frames_per_step
from mmfusion.encoders.pretrained import Weights, load_input_settings, load_transformer
from mmfusion.encoders.steps import StepEncoder, encode_real, group_steps
from mmfusion.types import InputError, Stream

HOP_S = 0.01  # Kaldi's frames, on which every published AST was trained
WINDOW_S = 0.025
AUDIOSET_MEAN, AUDIOSET_DEVIATION = -4.2677393, 4.5689974


@configclass
class TransformersAudioConfig:
    """A transformers audio model: AST, or one that reads waveforms (wav2vec 2.0, HuBERT, WavLM)."""

    kind: Literal["transformers_audio"] = "transformers_audio"
    input: str | None = None
    """Which input it reads; the encoder's own name when not given."""
    frozen: bool = False
    """Keeps the weights as they are."""
    model: str
    """Name on the Hugging Face hub, or a local folder."""
    weights: Weights = "pretrained"
    """pretrained, or none for the architecture with random weights."""
    rate: Annotated[float, Field(gt=0)] = 2.0
    """Steps a second; for AST it must divide its columns of patches a second (10 for the published ones)."""


def build_transformers_audio(config: TransformersAudioConfig) -> StepEncoder:
    """The encoder for this family of models; InputError when the model is of another."""
    network, settings = load_transformer(config.model, config.weights)
    given = load_input_settings(config.model)
    if settings.model_type == "audio-spectrogram-transformer":
        return SpectrogramTransformer(network, settings, given, config)
    if hasattr(settings, "conv_stride") and hasattr(settings, "conv_kernel"):
        return WaveformTransformer(network, settings, given, config)
    raise InputError(f"{config.model}: a {settings.model_type} model is neither AST nor one that reads waveforms")


class SpectrogramTransformer(StepEncoder):
    """Waveform (B, N) -> (B, T, width) at `rate`, by AST (Gong et al. 2021).

    The sound is read in stretches as long as the model's own input (10.24 s for the published ones), blank where the
    clip is over, as in its training. The patch tokens of one column stand for one moment; a step is the mean over its
    columns and all frequencies. Patches overlap in time: a column ends where its moment ends and reaches back.
    """

    def __init__(
        self, network: nn.Module, settings: Any, given: dict[str, Any], config: TransformersAudioConfig
    ) -> None:
        super().__init__()
        self.network = _PatchColumns(network, settings)
        self.width = settings.hidden_size
        self.rate, self.model = config.rate, config.model
        self.stride = settings.time_stride
        self.length, self.num_mels = settings.max_length, settings.num_mel_bins
        self.lead = max(settings.patch_size - self.stride, 0)
        self.columns = frames_per_step(HOP_S * self.stride, config.rate, "transformers_audio.rate")
        self.steps = self.network.times // self.columns
        if self.steps < 1:
            raise InputError(
                f"transformers_audio.rate: one step at {config.rate:g} is longer than {config.model} reads"
            )
        self.sample_rate_hz = given.get("sampling_rate", 16000)
        self.mean, self.deviation = given.get("mean", AUDIOSET_MEAN), given.get("std", AUDIOSET_DEVIATION)

    def forward(self, raw: Stream) -> Stream:
        _check_rate(raw, self.sample_rate_hz, self.model)
        with torch.autocast(raw.data.device.type, enabled=False):
            sound = kaldi_log_mel(raw, self.num_mels)
            stretches, real = self._stretches(sound)
        features = encode_real(self.network, lambda at: stretches.flatten(0, 1)[at], real)
        mask = group_steps(sound, self.columns * self.stride)[1].any(2)
        num = mask.shape[1]
        features = features.unflatten(2, (self.network.times, self.width))[:, :, : self.steps * self.columns]
        data = features.unflatten(2, (self.steps, self.columns)).mean(3).flatten(1, 2)[:, :num]
        steps = Stream(data, mask, self.rate)
        return steps.with_data(steps.zeroed())

    def _stretches(self, sound: Stream) -> tuple[Tensor, Tensor]:
        """The model's inputs (B, stretches, length, num_mels), and which of them hold anything real."""
        share = self.steps * self.columns * self.stride
        num = max(1, ceil(sound.mask.shape[1] / share))
        reach = (num - 1) * share + max(self.length, share + self.lead)
        blank = (0, 0, self.lead, reach - self.lead - sound.mask.shape[1])
        # Blank is 0 before normalisation, as the model's feature extractor fills up.
        data = (F.pad(sound.zeroed(), blank) - self.mean) / (2 * self.deviation)
        mask = F.pad(sound.mask, (0, num * share - sound.mask.shape[1])).unflatten(1, (num, share)).any(2)
        return data.unfold(1, self.length, share)[:, :num].transpose(2, 3), mask


class _PatchColumns(nn.Module):
    """AST as (M, length, num_mels) -> (M, times * width): its patch tokens, averaged over frequency."""

    def __init__(self, body: nn.Module, settings: Any) -> None:
        super().__init__()
        self.body = body
        self.bands = (settings.num_mel_bins - settings.patch_size) // settings.frequency_stride + 1
        self.times = (settings.max_length - settings.patch_size) // settings.time_stride + 1

    def forward(self, spectrograms: Tensor) -> Tensor:
        tokens = self.body(input_values=spectrograms).last_hidden_state[:, 2:]
        return tokens.unflatten(1, (self.bands, self.times)).mean(1).flatten(1)


class WaveformTransformer(StepEncoder):
    """Waveform (B, N) -> (B, T, width) at `rate`: the model reads each step's samples by themselves.

    So nothing of the padding or of another clip reaches a step, whatever norms the model has inside.
    """

    def __init__(
        self, network: nn.Module, settings: Any, given: dict[str, Any], config: TransformersAudioConfig
    ) -> None:
        super().__init__()
        self.network = _MeanOverTime(network)
        self.width = settings.hidden_size
        self.rate, self.model = config.rate, config.model
        self.sample_rate_hz = given.get("sampling_rate", 16000)
        self.normalize = given.get("do_normalize", True)
        self.samples = round(self.sample_rate_hz / config.rate)
        left = self.samples
        for kernel, stride in zip(settings.conv_kernel, settings.conv_stride, strict=True):
            left = (left - kernel) // stride + 1
        if left < 1 or abs(self.samples * config.rate - self.sample_rate_hz) > 1e-6:
            raise InputError(f"transformers_audio.rate: {config.rate:g} does not suit {config.model}")

    def forward(self, raw: Stream) -> Stream:
        _check_rate(raw, self.sample_rate_hz, self.model)
        pieces, real = group_steps(raw.with_data(raw.data.float()), self.samples)
        if self.normalize:
            num = real.sum(2, keepdim=True).clamp(min=1)
            mean = pieces.sum(2, keepdim=True) / num
            variance = ((pieces - mean).square() * real).sum(2, keepdim=True) / num
            pieces = (pieces - mean) / (variance + 1e-7).sqrt() * real
        mask = real.any(2)
        return Stream(encode_real(self.network, lambda at: pieces.flatten(0, 1)[at], mask), mask, self.rate)


class _MeanOverTime(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, sound: Tensor) -> Tensor:
        return self.body(input_values=sound).last_hidden_state.mean(1)


def kaldi_log_mel(raw: Stream, num_mels: int) -> Stream:
    """Kaldi's log-mel energies (B, T, num_mels) float32, 100 frames a second, as AST's feature extractor makes them.

    No mean in the window, pre-emphasis 0.97, Hann window, power, triangles on Kaldi's mel scale from 20 Hz, logarithm.
    """
    from torchaudio.compliance.kaldi import get_mel_banks

    frames, mask = frame_sound(raw, HOP_S, round(WINDOW_S * raw.rate))
    frames = frames - frames.mean(2, keepdim=True)
    frames = frames - 0.97 * F.pad(frames, (1, 0), mode="replicate")[..., :-1]
    size = frames.shape[2]
    num_freqs = 1 << (size - 1).bit_length()
    power = torch.fft.rfft(frames * torch.hann_window(size, False, device=frames.device), n=num_freqs).abs().square()
    bank = F.pad(get_mel_banks(num_mels, num_freqs, raw.rate, 20.0, 0.0, 100.0, -500.0, 1.0)[0], (0, 1))
    energy = power @ bank.T.to(power)
    return Stream(energy.clamp(min=torch.finfo(torch.float32).eps).log(), mask, 1 / HOP_S)


def _check_rate(raw: Stream, sample_rate_hz: float, model: str) -> None:
    if raw.rate != sample_rate_hz:
        raise InputError(f"{model}: needs sound at {sample_rate_hz} Hz (sample_rate_hz of its input), got {raw.rate:g}")
