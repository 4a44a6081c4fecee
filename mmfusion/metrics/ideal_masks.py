"""What a separator could do at best by masking spectra, and what needs no learning at all: estimates to compare with.

Masks are computed from the true sources' spectra and laid on the mixture's (Wang & Chen 2018, "Supervised speech
separation based on deep learning", section III):

    ideal ratio mask, of magnitudes    M_s = |S_s| / sum_k |S_k|
    ideal binary mask                  M_s = 1 where |S_s| is the largest, else 0
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mmfusion.spectrum import StftConfig, to_sound, to_spectra
from mmfusion.types import InputError, Stream

IdealMask = Literal["ratio", "binary"]
NUM_WINDOW, NUM_HOP = 512, 128  # samples, as usual at 16 kHz


def ideal_estimates(sources: Tensor, mixture: Stream, kind: IdealMask) -> Tensor:
    """(B, S, N) float32 estimates of the sources (B, S, N) of mixtures (B, N), by the ideal mask of this kind."""
    rate = round(mixture.rate)
    stft = StftConfig(sample_rate_hz=rate, window_s=NUM_WINDOW / rate, hop_s=NUM_HOP / rate)
    every = Stream(sources.flatten(0, 1), mixture.mask.repeat_interleave(sources.shape[1], 0), mixture.rate)
    magnitude = to_spectra(every, stft).data.abs().unflatten(0, sources.shape[:2])
    if kind == "ratio":
        mask = magnitude / magnitude.sum(1, keepdim=True).clamp(min=1e-12)
    else:
        mask = torch.nn.functional.one_hot(magnitude.argmax(1), sources.shape[1]).permute(0, 3, 1, 2)
    spectra = to_spectra(mixture, stft)
    return to_sound(mask * spectra.data[:, None], stft, sources.shape[2], spectra.mask[:, None])


def split_at(mixture: Stream, split_hz: float) -> Tensor:
    """(B, 2, N) float32: the lower and the upper part of a mixture (B, N), which sum to it.

    A crossover without delay, M(f) = 1 / (1 + (f / split_hz)^2) and 1 - M. A steep one is worse: a source that has
    nothing on its side of the edge is lost, where a gentle one leaves it some of itself. InputError for a frequency
    that the mixture does not reach.
    """
    if not 0 < split_hz < mixture.rate / 2:
        raise InputError(f"split_hz: must lie between 0 and {mixture.rate / 2:g} Hz, got {split_hz:g}")
    sound = mixture.zeroed().float()
    low = torch.zeros_like(sound)
    for row, length in enumerate(mixture.lengths.tolist()):
        if not length:
            continue
        frequency = torch.fft.rfftfreq(length, 1 / mixture.rate, device=sound.device)
        spectrum = torch.fft.rfft(sound[row, :length]) / (1 + (frequency / split_hz).square())
        low[row, :length] = torch.fft.irfft(spectrum, n=length)
    return torch.stack([low, sound - low], dim=1)
