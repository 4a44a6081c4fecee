"""A sound in 26 numbers: what a classical classifier is given, as in the baselines of ESC-50.

Mean and standard deviation over the frames of MFCC 1 to 12 (without the 0th, which is loudness) and of the rate of zero
crossings: K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", ACM Multimedia 2015. The MFCC are
torchaudio's: orthonormal DCT-II of a mel spectrogram in dB that is cut 80 dB below its loudest cell, as librosa has it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torchaudio.transforms import MFCC

NUM_COEFFICIENTS = 12
NUM_STATISTICS = 2 * (NUM_COEFFICIENTS + 1)
WINDOW_S, HOP_S, NUM_MELS = 0.032, 0.016, 40


def cepstral_statistics(sound: np.ndarray, mask: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """(26,) float64 of sound (N,), N >= 1, at least 1000 samples a second: 13 means, then 13 standard deviations.

    In each half stand MFCC 1-12 and, last, the share of neighbouring samples of a frame that differ in sign. Frames of
    which less than half is real (`mask` (N,) bool) do not count, unless all are like that.
    """
    size, hop = round(WINDOW_S * sample_rate_hz), round(HOP_S * sample_rate_hz)
    short = max(0, size - len(sound))
    wave = torch.from_numpy(np.pad(np.where(mask, sound, 0).astype(np.float32), (0, short)))
    real = torch.from_numpy(np.pad(mask, (0, short))).unfold(0, size, hop).float().mean(dim=1) >= 0.5
    if not real.any():
        real = torch.ones_like(real)
    below = wave.unfold(0, size, hop) < 0
    crossings = (below[:, 1:] != below[:, :-1]).float().mean(dim=1)
    frames = torch.cat([_cepstrum(sample_rate_hz)(wave)[1:], crossings[None]])[:, real].double()
    return torch.cat([frames.mean(dim=1), frames.std(dim=1, correction=0)]).numpy()


@lru_cache
def _cepstrum(sample_rate_hz: int) -> MFCC:
    """Waveform (N,) -> (13, T), its frames lying as `unfold` lays them."""
    size, hop = round(WINDOW_S * sample_rate_hz), round(HOP_S * sample_rate_hz)
    return MFCC(
        sample_rate_hz,
        n_mfcc=NUM_COEFFICIENTS + 1,
        melkwargs={"n_fft": size, "hop_length": hop, "n_mels": NUM_MELS, "center": False},
    )
