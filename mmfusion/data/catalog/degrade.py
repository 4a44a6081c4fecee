"""How AV-MNIST is made hard: speech in noise at a known ratio, images on a few principal components.

Conventions: sound is float, mono, full scale 1; power is the mean square; dB = 10 log10 of a power ratio.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# A frame counts as speech when its power is within this many dB of the loudest frame.
ACTIVE_RANGE_DB = 30.0
ACTIVE_FRAME_S = 0.02


def power_db(sound: np.ndarray) -> float:
    """Mean power in dB re full scale; -inf for silence."""
    power = float(np.mean(np.square(sound, dtype=np.float64)))
    return float(10 * np.log10(power)) if power > 0 else float("-inf")


def active(speech: np.ndarray, sample_rate_hz: int) -> np.ndarray:
    """(N,) bool: True where somebody speaks, by the power of 20 ms frames; silence around a word does not count."""
    size = max(1, round(ACTIVE_FRAME_S * sample_rate_hz))
    frames = np.pad(speech.astype(np.float64), (0, -len(speech) % size)).reshape(-1, size)
    power = np.mean(frames**2, axis=1)
    speaking = (power > 0) & (power >= power.max() * 10 ** (-ACTIVE_RANGE_DB / 10))
    return np.repeat(speaking, size)[: len(speech)]


def mix(speech: np.ndarray, noise: np.ndarray, snr_db: float, sample_rate_hz: int) -> np.ndarray:
    """Speech (N,) plus noise (N,), float32.

    The power of the speech over its active part is `snr_db` above the power of the noise. The sum is scaled down,
    never up, to stay within full scale, which leaves the ratio as it is.
    """
    wanted_db = power_db(speech[active(speech, sample_rate_hz)]) - snr_db
    mixture = speech + noise * 10 ** ((wanted_db - power_db(noise)) / 20)
    return (mixture / max(1.0, np.abs(mixture).max() / 0.999)).astype(np.float32)


@dataclass(frozen=True)
class Projection:
    """Images on the span of the first principal components of other images.

    `low` and `high` are the extreme values of the projected training images; they are 0 and 255 in the result, so
    that one affine map for all images keeps everything the components say.
    """

    mean: np.ndarray
    components: np.ndarray
    low: float
    high: float

    @classmethod
    def fit(cls, images: np.ndarray, num_components: int) -> Projection:
        """From training images (n, H, W): the leading eigenvectors of their covariance."""
        flat = images.reshape(len(images), -1).astype(np.float64)
        mean = flat.mean(axis=0)
        _, vectors = np.linalg.eigh((flat - mean).T @ (flat - mean))
        components = vectors[:, ::-1][:, :num_components].T
        projected = mean + (flat - mean) @ components.T @ components
        return cls(mean, components, float(projected.min()), float(projected.max()))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(n, H, W) -> uint8 (n, H, W)."""
        flat = images.reshape(len(images), -1).astype(np.float64) - self.mean
        projected = self.mean + flat @ self.components.T @ self.components
        scaled = (projected - self.low) / (self.high - self.low) * 255
        return np.clip(np.rint(scaled), 0, 255).astype(np.uint8).reshape(images.shape)
