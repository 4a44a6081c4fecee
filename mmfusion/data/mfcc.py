"""A sound in 26 numbers: what a classical classifier is given, as in the baselines of ESC-50.

Mean and standard deviation over the frames of MFCC 1 to 12 (without the 0th, which is loudness) and of the rate of zero
crossings: K. J. Piczak, "ESC: Dataset for Environmental Sound Classification", ACM Multimedia 2015, section 4.2. As
there, the MFCC are those of librosa's defaults at 44.1 kHz (2048 samples every 512, 128 mel bands of Slaney's scale in
dB, cut 80 dB below the loudest cell, orthonormal DCT-II), here in seconds, so that any sample rate will do.

A sound is gone through in blocks of frames, so that a long one costs no more memory than its 13 numbers a frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torchaudio.transforms import MFCC, AmplitudeToDB

METHOD = 1
"""to be raised when other numbers come out for the same constants: what was made of the old ones is then made again"""
NUM_COEFFICIENTS = 12
NUM_STATISTICS = 2 * (NUM_COEFFICIENTS + 1)
WINDOW_S, HOP_S, NUM_MELS, RANGE_DB = 2048 / 44100, 512 / 44100, 128, 80.0
SILENCE = 1e-3
"""a sample below this magnitude (-60 dB of full scale) counts as 0: what a codec leaves of silence has no sign"""
BLOCK = 4096
"""frames that are worked on at a time: 47 s"""


def method() -> dict[str, float]:
    """Everything that decides the numbers of a sound, as plain values."""
    return {"version": METHOD, "coefficients": NUM_COEFFICIENTS, "window_s": WINDOW_S, "hop_s": HOP_S,
            "mels": NUM_MELS, "range_db": RANGE_DB, "silence": SILENCE}  # fmt: skip


def cepstral_statistics(sound: np.ndarray, mask: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """(26,) float64 of sound (N,), N >= 1, at least 1000 samples a second: 13 means, then 13 standard deviations.

    In each half stand MFCC 1-12 and, last, the share of neighbouring samples that differ in sign, in frames as long as
    the hop. Frames of which less than half is real (`mask` (N,) bool) do not count, unless all are like that.
    """
    size, hop = _lengths(sample_rate_hz)
    if len(sound) < size:
        sound, mask = (np.pad(one, (0, size - len(sound))) for one in (sound, mask))
    parts = [_cepstrum(sound, mask, sample_rate_hz), _crossings(sound, mask, hop)]
    means = [part.mean(dim=1) for part in parts]
    return torch.cat([*means, *(part.std(dim=1, correction=0) for part in parts)]).numpy()


def _cepstrum(sound: np.ndarray, mask: np.ndarray, sample_rate_hz: int) -> Tensor:
    """(12, T) float64: MFCC 1-12 of the frames that count."""
    size, hop = _lengths(sample_rate_hz)
    mfcc, in_db = _transform(sample_rate_hz), AmplitudeToDB("power")
    turn = mfcc.get_buffer("dct_mat")
    single = len(sound) < size + BLOCK * hop

    def levels() -> Iterator[Tensor]:
        return (in_db(mfcc.MelSpectrogram(wave)) for wave, _ in _blocks(sound, mask, size, hop))

    # What is too faint depends on the loudest cell of all, so a long sound is gone through twice.
    held = list(levels()) if single else []
    floor_db = max(float(level.max()) for level in held or levels()) - RANGE_DB
    cepstra = [level.clamp(min=floor_db).T @ turn for level in held or levels()]
    real = torch.cat([real for _, real in _blocks(sound, mask, size, hop)])
    return torch.cat(cepstra).T[1:, _counting(real)].double()


def _crossings(sound: np.ndarray, mask: np.ndarray, hop: int) -> Tensor:
    """(1, T) float64: the share of neighbours that differ in sign, of the frames of a hop that count."""
    shares, reals = [], []
    for wave, real in _blocks(sound, mask, hop, hop):
        below = wave.unfold(0, hop, hop) < -SILENCE
        shares.append((below[:, 1:] != below[:, :-1]).float().mean(dim=1))
        reals.append(real)
    return torch.cat(shares)[None, _counting(torch.cat(reals))].double()


def _blocks(sound: np.ndarray, mask: np.ndarray, size: int, hop: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The samples under each `BLOCK` frames of `size` every `hop`, and which frames are real by half or more (T,)."""
    num_frames = 1 + (len(sound) - size) // hop
    for first in range(0, num_frames, BLOCK):
        part = slice(first * hop, (min(first + BLOCK, num_frames) - 1) * hop + size)
        wave = torch.from_numpy(np.where(mask[part], sound[part], 0).astype(np.float32))
        # A mask in a shard cannot be written to, and torch wants to be able to.
        yield wave, torch.from_numpy(mask[part].copy()).unfold(0, size, hop).float().mean(dim=1) >= 0.5


def _counting(real: Tensor) -> Tensor:
    """(T,) bool: which frames count."""
    return real if real.any() else torch.ones_like(real)


def _lengths(sample_rate_hz: int) -> tuple[int, int]:
    """Samples of a window and of a hop."""
    return round(WINDOW_S * sample_rate_hz), round(HOP_S * sample_rate_hz)


@lru_cache
def _transform(sample_rate_hz: int) -> MFCC:
    """The library's MFCC 0-12, its frames lying as `unfold` lays them."""
    size, hop = _lengths(sample_rate_hz)
    mel = {"n_mels": NUM_MELS, "mel_scale": "slaney", "norm": "slaney"}
    return MFCC(
        sample_rate_hz,
        n_mfcc=NUM_COEFFICIENTS + 1,
        melkwargs={"n_fft": size, "hop_length": hop, "center": False, **mel},
    )
