"""The log-mel spectrogram as matrix products, for exporters that know no Fourier transform and no masks.

It gives what `LogMel` gives in evaluation for sound that is real from its first to its last sample. A last frame of
which less than half is there, which `LogMel` masks, is left out, so that everything that comes out is real. The number
of samples may stay open when a graph is traced: nothing here depends on the values of a tensor.
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor, nn

from mmfusion.encoders.logmel import LEAN, SCALE, LogMel, normalize_clips
from mmfusion.types import Stream


class LogMelProducts(nn.Module):
    """Waveform stream (B, N), all of it real, at `rate` samples a second -> log-mel stream (B, T, num_mels) float32.

    T = N / hop, rounded half up; N must be at least `min_samples`, one hop.
    """

    basis: Tensor
    bank: Tensor

    def __init__(self, logmel: LogMel, rate: float) -> None:
        super().__init__()
        self.config, self.rate = logmel.config, rate
        window, bank = logmel.tables(rate, torch.device("cpu"))
        num_freqs, size = bank.shape[0], len(window)
        turns = torch.outer(torch.arange(size), torch.arange(num_freqs)).double() / (2 * (num_freqs - 1))
        waves = torch.cat([torch.cos(2 * math.pi * turns), torch.sin(2 * math.pi * turns)], dim=1)
        self.register_buffer("basis", (window.double()[:, None] * waves).float())
        self.register_buffer("bank", bank)
        self.hop = Fraction(self.config.hop_s * rate).limit_denominator(1_000_000)
        self.min_samples = math.ceil(self.hop)

    def forward(self, raw: Stream) -> Stream:
        waves = self._frames(raw.data) @ self.basis
        real, imaginary = waves.square().chunk(2, dim=-1)
        data = torch.log1p((real + imaginary) @ self.bank / self.config.floor) / SCALE
        stream = Stream(data, torch.ones_like(data[..., 0], dtype=torch.bool), 1 / self.config.hop_s)
        return normalize_clips(stream) if self.config.normalize == "clip" else stream

    def _frames(self, sound: Tensor) -> Tensor:
        """Overlapping pieces (B, T, size) where `frame_sound` takes them."""
        size, hop = len(self.basis), self.config.hop_s * self.rate
        number = torch.arange(self._num_frames(sound.shape[1]), device=sound.device)
        if hop == round(hop):
            starts = round((0.5 - LEAN) * hop) + number * round(hop)
        else:
            starts = ((number.double() + 0.5 - LEAN) * hop).round().long()
        before = max(0, size // 2 - round((0.5 - LEAN) * hop))
        at = (starts - size // 2 + before).unsqueeze(1) + torch.arange(size, device=sound.device)
        padded = nn.functional.pad(sound.float(), (before, size))
        return padded.index_select(1, at.flatten()).unflatten(1, (-1, size))

    def _num_frames(self, num_samples: int) -> int:
        """The frames of which at least half is there: those that begin (rounded) half a hop before the end.

        round(j p/q) <= M with M = N - ceil(p/2q) holds for j < (2M + 1) q / 2p; whole numbers only, for the tracer.
        Nothing is negative, because ONNX divides towards zero and not downwards.
        """
        p, q = self.hop.numerator, self.hop.denominator
        last = num_samples - math.ceil(self.hop / 2)
        return ((2 * last + 1) * q + 2 * p - 1) // (2 * p)
