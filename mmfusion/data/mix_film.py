"""A mixture as a film: its sound with the picture of one of its sources, black where that source is not there."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from mmfusion.data.media import probe, read_frames_at, write_clip
from mmfusion.data.mix_table import crop_start_s
from mmfusion.data.mixtures import Recipe
from mmfusion.types import InputError

_LONGEST_SIDE_PX = 480
_HIGHEST_RATE = 30.0
_STILL_RATE = 5.0


def part_to_show(recipe: Recipe, wanted: int, locate: Callable[[str], Path]) -> int | None:
    """The place of the part whose picture is shown: the wanted one, or the next that has one; None when none has.

    Places count from 0, and after the last comes the first. InputError when there is no such place.
    """
    num = len(recipe.parts)
    if not 0 <= wanted < num:
        raise InputError(f"with_video: there is no source {wanted} (sources are 0 to {num - 1})")
    for place in (*range(wanted, num), *range(wanted)):
        video = recipe.parts[place].clip.media.get("video")
        if video is not None and _has_pictures(locate(video)):
            return place
    return None


@cache
def _has_pictures(path: Path) -> bool:
    return probe(path).has_video


def write_film(path: Path, recipe: Recipe, shown: int, locate: Callable[[str], Path], sound: np.ndarray) -> None:
    """Writes an mp4 with the sound (N,) float32 and the pictures of one part, at their own size and rate.

    At most `_LONGEST_SIDE_PX` and `_HIGHEST_RATE`; a frame that begins at t shows what the clip shows t after the
    part's onset. InputError when the pictures cannot be read.
    """
    part, rate_hz = recipe.parts[shown], recipe.sample_rate_hz
    video = locate(part.clip.media["video"])
    info = probe(video)
    rate = _STILL_RATE if info.is_still else min(info.frame_rate or _HIGHEST_RATE, _HIGHEST_RATE)
    times_s = np.arange(max(1, math.floor(recipe.duration_s * rate + 1e-6))) / rate
    onset_s, end_s = part.onset_sample / rate_hz, part.end_sample / rate_hz
    inside = (times_s >= onset_s - 1e-6) & (times_s < end_s)
    height, width = _size_px(info.height_px or 2, info.width_px or 2, info.rotation_deg or 0)
    frames = np.zeros((len(times_s), height, width, 3), np.uint8)
    if inside.any():
        wanted_s = np.maximum(0.0, times_s[inside] - onset_s + crop_start_s(part, rate_hz))
        found = read_frames_at(video, wanted_s, (height, width), fit="stretch")
        if found is None:
            raise InputError(f"{video}: has no pictures")
        frames[inside] = found.data
    write_clip(path, frames, rate, sound, rate_hz)


def _size_px(height: int, width: int, rotation_deg: int) -> tuple[int, int]:
    """Upright, no larger than allowed, and even as H.264 wants it."""
    if round(rotation_deg / 90) % 2:
        height, width = width, height
    factor = min(1.0, _LONGEST_SIDE_PX / max(height, width))
    return max(2, round(height * factor / 2) * 2), max(2, round(width * factor / 2) * 2)
