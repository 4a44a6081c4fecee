"""A sound in 26 numbers: what a classical classifier is given, as in the baselines of ESC-50.

Mean and standard deviation over the frames of MFCC 1 to 12 (without the 0th, which is loudness) and of the rate of zero
crossings: K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", ACM Multimedia 2015, section 4.2. As
there, the MFCC are those of librosa's defaults at 44.1 kHz (2048 samples every 512, 128 mel bands of Slaney's scale in
dB, cut 80 dB below the loudest cell, orthonormal DCT-II), here in seconds, so that any sample rate will do.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torchaudio.transforms import MFCC

NUM_COEFFICIENTS = 12
NUM_STATISTICS = 2 * (NUM_COEFFICIENTS + 1)
WINDOW_S, HOP_S, NUM_MELS = 2048 / 44100, 512 / 44100, 128
SILENCE = 1e-3
"""a sample below this magnitude (-60 dB of full scale) counts as 0: what a codec leaves of silence has no sign"""


def cepstral_statistics(sound: np.ndarray, mask: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """(26,) float64 of sound (N,), N >= 1, at least 1000 samples a second: 13 means, then 13 standard deviations.

    In each half stand MFCC 1-12 and, last, the share of neighbouring samples that differ in sign, in frames as long as
    the hop. Frames of which less than half is real (`mask` (N,) bool) do not count, unless all are like that.
    """
    size, hop = _lengths(sample_rate_hz)
    short = max(0, size - len(sound))
    wave = torch.from_numpy(np.pad(np.where(mask, sound, 0).astype(np.float32), (0, short)))
    real = torch.from_numpy(np.pad(mask, (0, short)))
    cepstrum = _cepstrum(sample_rate_hz)(wave)[1:, _real_frames(real, size, hop)]
    below = wave.unfold(0, hop, hop)[_real_frames(real, hop, hop)] < -SILENCE
    crossings = (below[:, 1:] != below[:, :-1]).float().mean(dim=1)
    parts = [part.double() for part in (cepstrum, crossings[None])]
    means = [part.mean(dim=1) for part in parts]
    return torch.cat([*means, *(part.std(dim=1, correction=0) for part in parts)]).numpy()


def _real_frames(mask: Tensor, size: int, hop: int) -> Tensor:
    """(T,) bool: which frames count."""
    real = mask.unfold(0, size, hop).float().mean(dim=1) >= 0.5
    return real if real.any() else torch.ones_like(real)


def _lengths(sample_rate_hz: int) -> tuple[int, int]:
    """Samples of a window and of a hop."""
    return round(WINDOW_S * sample_rate_hz), round(HOP_S * sample_rate_hz)


@lru_cache
def _cepstrum(sample_rate_hz: int) -> MFCC:
    """Waveform (N,) -> (13, T), its frames lying as `unfold` lays them."""
    size, hop = _lengths(sample_rate_hz)
    mel = {"n_mels": NUM_MELS, "mel_scale": "slaney", "norm": "slaney"}
    return MFCC(
        sample_rate_hz,
        n_mfcc=NUM_COEFFICIENTS + 1,
        melkwargs={"n_fft": size, "hop_length": hop, "center": False, **mel},
    )
