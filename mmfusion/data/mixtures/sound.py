"""From a recipe to samples: sources and their sum, in float32, and as 16-bit integers that add up exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mmfusion.data.mixtures.recipes import Part, Recipe
from mmfusion.types import InputError

FULL_SCALE = 32768


def mix(recipe: Recipe, load: Callable[[Part], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The sources (S, N) and their sum (N,), float32; `load` gives the samples of a part's clip at the recipe's rate.

    Samples may lie beyond [-1, 1]. InputError when an impulse response cannot be used.
    """
    sources = np.empty((len(recipe.parts), recipe.num_samples), np.float32)
    for row, part in zip(sources, recipe.parts, strict=True):
        crop = load(part)[part.from_sample : part.from_sample + part.num_samples]
        if part.impulse_response is not None:
            response = read_response(part.impulse_response, recipe.sample_rate_hz)
            crop = reverberate(crop, response, recipe.num_samples - part.onset_sample)
        end = part.onset_sample + len(crop)
        row[: part.onset_sample] = 0
        row[end:] = 0
        np.multiply(crop, np.float32(10 ** (part.gain_db / 20)), out=row[part.onset_sample : end])
    return sources, add_up(sources)


def add_up(sources: np.ndarray) -> np.ndarray:
    """The sum (N,) of sources (S, N), one after the other."""
    total = sources[0] + sources[1]
    for source in sources[2:]:
        total += source
    return total


@lru_cache(maxsize=64)
def read_response(path: str, sample_rate_hz: int) -> np.ndarray:
    """An impulse response (L,) float32 from its direct sound on, the mean of its channels, with an energy of 1."""
    from mmfusion.data.media import read_sound

    sound = read_sound(path, sample_rate_hz)
    if sound is None or not sound.data.any():
        raise InputError(f"{path}: an impulse response must hold sound")
    response = sound.data[int(np.argmax(np.abs(sound.data))) :]
    return response / np.sqrt(np.square(response, dtype=np.float64).sum()).astype(np.float32)


def reverberate(sound: np.ndarray, response: np.ndarray, room: int) -> np.ndarray:
    """The sound (N,) as heard in a room, at most `room` samples with what rings on, with the energy that it had."""
    from scipy.signal import oaconvolve

    wet = oaconvolve(sound, response)[:room]
    before, now = (np.square(each, dtype=np.float64).sum() for each in (sound, wet))
    return wet * np.float32(np.sqrt(before / now))


@dataclass(frozen=True, eq=False)
class Stored:
    """A mixture in 16-bit integers: `sources` (S, N) and `mixture` (N,), which is their sum exactly.

    They are the samples in float32 times `scale`, which all share, times `FULL_SCALE`, rounded.
    """

    sources: np.ndarray
    mixture: np.ndarray
    scale: float


def store(sources: np.ndarray) -> Stored:
    """The sources (S, N) as they are stored; where the sum or a source would clip, all are made quieter alike."""
    peak = max(float(np.abs(each).max()) for each in (sources.sum(axis=0, dtype=np.float64), sources))
    # Each rounding adds half a step at most, so the sum of what was rounded needs half a step a source as headroom.
    limit = FULL_SCALE - 2 - len(sources) / 2
    scale = 1.0 if peak * FULL_SCALE <= limit else float(f"{limit / FULL_SCALE / peak:.6g}")
    rounded = np.rint(sources * np.float32(scale * FULL_SCALE)).astype(np.int32)
    return Stored(rounded.astype(np.int16), rounded.sum(axis=0, dtype=np.int32).astype(np.int16), scale)
