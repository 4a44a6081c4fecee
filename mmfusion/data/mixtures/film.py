"""A mixture as a film: its sound with the picture of one of its sources, black where that source is not there."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mmfusion.data.media import probe, read_frames_at, write_clip
from mmfusion.data.mixtures.recipes import Recipe
from mmfusion.data.mixtures.table import crop_start_s
from mmfusion.types import InputError

_LONGEST_SIDE_PX = 480
_HIGHEST_RATE = 30.0
_STILL_RATE = 5.0


def write_first_film(path: Path, recipe: Recipe, wanted: int, locate: Callable[[str], Path], sound: np.ndarray
                     ) -> tuple[int | None, dict[int, str]]:  # fmt: skip
    """Writes the film with the wanted part's pictures, or those of the next part that has some that can be read.

    Places count from 0, and after the last comes the first. Returns the place that is shown, None when there are no
    pictures, and what could not be read, by place.
    """
    flaws: dict[int, str] = {}
    for place in (*range(wanted, len(recipe.parts)), *range(wanted)):
        video = recipe.parts[place].clip.media.get("video")
        if video is None:
            continue
        try:
            flaw = write_film(path, recipe, place, locate, sound)
        except InputError as error:
            # Where the file lies is in the table once, and may change.
            flaws[place] = " ".join(str(error).replace(str(locate(video)), "").split()).strip(": ")
            continue
        return place, flaws | ({place: flaw} if flaw else {})
    return None, flaws


def write_film(path: Path, recipe: Recipe, shown: int, locate: Callable[[str], Path], sound: np.ndarray) -> str | None:
    """Writes an mp4 with the sound (N,) float32 and the pictures of one part, at their own size and rate.

    At most `_LONGEST_SIDE_PX` and `_HIGHEST_RATE`; a frame that begins at t shows what the clip shows t after the
    part's onset. Returns what of the pictures could not be read. InputError when none can be, or none are there.
    """
    part, rate_hz = recipe.parts[shown], recipe.sample_rate_hz
    video = locate(part.clip.media["video"])
    info = probe(video)
    rate = _STILL_RATE if info.is_still else min(info.frame_rate or _HIGHEST_RATE, _HIGHEST_RATE)
    times_s = np.arange(max(1, math.floor(recipe.duration_s * rate + 1e-6))) / rate
    onset_s, end_s = part.onset_sample / rate_hz, part.end_sample / rate_hz
    inside = (times_s >= onset_s - 1e-6) & (times_s < end_s)
    height, width = _size_px(info.height_px or 2, info.width_px or 2, info.rotation_deg or 0)
    frames, flaw = np.zeros((len(times_s), height, width, 3), np.uint8), None
    if inside.any():
        wanted_s = np.maximum(0.0, times_s[inside] - onset_s + crop_start_s(part, rate_hz))
        found = read_frames_at(video, wanted_s, (height, width), fit="stretch")
        if found is None:
            raise InputError(f"{video}: has no pictures")
        if not found.mask.any():
            raise InputError(f"{video}: has no pictures while the source sounds")
        frames[inside] = found.data
        flaw = f"{found.num_broken} packets could not be decoded: {found.reason}" if found.num_broken else None
    write_clip(path, frames, rate, sound, rate_hz)
    return flaw


def _size_px(height: int, width: int, rotation_deg: int) -> tuple[int, int]:
    """Upright, no larger than allowed, and even as H.264 wants it."""
    if round(rotation_deg / 90) % 2:
        height, width = width, height
    factor = min(1.0, _LONGEST_SIDE_PX / max(height, width))
    return max(2, round(height * factor / 2) * 2), max(2, round(width * factor / 2) * 2)
