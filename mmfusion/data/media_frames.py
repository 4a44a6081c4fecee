"""Pictures of a media file at given times.

A frame is on display from its time stamp until the next frame's; the last one until its duration ends. The picture
for a time is the frame on display then, where stamps up to `TOLERANCE_S` late still count (containers round them).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from mmfusion.data.media_decord import decord_frames
from mmfusion.data.media_display import Shown, numbered_frames, shown_frames
from mmfusion.data.media_open import LONGEST_S, Media, MediaError, Tally, decode, open_media
from mmfusion.data.media_picture import Fit, Painter
from mmfusion.data.media_probe import probe
from mmfusion.types import InputError

Backend = Literal["pyav", "decord"]

TOLERANCE_S = 1e-3
_SEEK_FROM_S = 2.0


@dataclass(frozen=True)
class Frames:
    """`data` uint8 (T, H, W, 3) upright RGB; `mask` bool (T,), False (and data 0) where nothing is on display.

    `num_broken` counts packets and frames that could not be decoded, `reason` is the first one's.
    """

    data: np.ndarray
    mask: np.ndarray
    num_broken: int = 0
    reason: str | None = None


def read_frames(
    path: str | Path,
    rate: float,
    size_px: int | tuple[int, int],
    start_s: float = 0.0,
    end_s: float | None = None,
    *,
    backend: Backend = "pyav",
    fit: Fit = "crop",
    hold_stills: bool = True,
    true_rate: float | None = None,
) -> Frames | None:
    """The picture of each step of [start_s, end_s): step k shows the frame on display at start_s + k / rate.

    T = ceil((end_s - start_s) * rate); without `end_s`, as many steps as begin before the pictures end. The step in
    which the first frame appears shows that frame. A still picture is one step; with `end_s` it is held throughout
    if `hold_stills`.
    `size_px` is a side of a square or (height, width); `fit`: scale and cut the middle out, stretch, or pad with
    black. `backend` decord needs that package, and leaves turned and still pictures to PyAV. With `true_rate` the
    file's time stamps are not looked at (by PyAV): frame k is on display in [k / true_rate, (k + 1) / true_rate).

    None when the file has no pictures; MediaError when it cannot be read.
    """
    if not rate > 0:
        raise InputError(f"{path}: rate must be positive, got {rate}")
    _check_span(path, start_s, end_s)
    num = None if end_s is None else max(1, math.ceil((end_s - start_s - TOLERANCE_S) * rate))
    lead_s = max(0.0, 1 / rate - 2 * TOLERANCE_S)
    steps = _Steps(lambda k: start_s + k / rate, num, lead_s)
    return _read(Path(path), steps, Painter(size_px, fit), backend, hold_stills, true_rate)


def read_frames_at(
    path: str | Path,
    times_s: Sequence[float] | np.ndarray,
    size_px: int | tuple[int, int],
    *,
    backend: Backend = "pyav",
    fit: Fit = "crop",
) -> Frames | None:
    """The pictures on display at `times_s` (on the file's clock, in any order); otherwise like `read_frames`."""
    times = np.asarray(times_s, dtype=np.float64)
    if times.ndim != 1 or not len(times) or not np.isfinite(times).all():
        raise InputError(f"{path}: times_s must be a list of at least one finite number of seconds")
    order = np.argsort(times, kind="stable")
    rising = times[order].tolist()
    frames = _read(Path(path), _Steps(rising.__getitem__, len(rising), 0.0), Painter(size_px, fit), backend)
    if frames is None:
        return None
    back = np.argsort(order, kind="stable")
    return replace(frames, data=frames.data[back], mask=frames.mask[back])


class _Steps:
    """Fills rising step times with what is on display at each."""

    def __init__(self, time_of: Callable[[int], float], num: int | None, lead_s: float) -> None:
        self._time_of = time_of
        self.num = num
        self.lead_s = lead_s
        self.pictures: list[np.ndarray | None] = []

    @property
    def start_s(self) -> float:
        return self._time_of(0)

    @property
    def full(self) -> bool:
        return self.num is not None and len(self.pictures) >= self.num

    def show(self, picture: Callable[[], np.ndarray], from_s: float, until_s: float) -> None:
        """A frame on display in [from_s, until_s); it is painted only if a step asks for it."""
        painted: np.ndarray | None = None
        while not self.full and (time_s := self._time_of(len(self.pictures))) < until_s - TOLERANCE_S:
            if time_s < from_s - TOLERANCE_S:
                self.pictures.append(None)
                continue
            painted = picture() if painted is None else painted
            self.pictures.append(painted)

    def frames(self, painter: Painter, tally: Tally) -> Frames:
        num = max(1, len(self.pictures)) if self.num is None else self.num
        data = np.zeros((num, painter.height, painter.width, 3), np.uint8)
        mask = np.zeros(num, bool)
        for step, picture in enumerate(self.pictures):
            if picture is not None:
                data[step], mask[step] = picture, True
        return Frames(data, mask, tally.num_broken, tally.reason)


def _read(path: Path, steps: _Steps, painter: Painter, backend: Backend, hold_stills: bool = True,
          true_rate: float | None = None) -> Frames | None:  # fmt: skip
    tally = Tally()
    # decord 0.6 leaves the padding of rows in pictures that it has turned.
    by_decord = backend == "decord" and not probe(path).rotation_deg
    with open_media(path) as media:
        if media.video is None:
            return None
        if media.is_still:
            steps.num = steps.num if hold_stills and steps.num else 1
            return _read_still(media, steps, painter)
        if true_rate is not None:
            shown = numbered_frames(media, true_rate, steps.lead_s, tally)
        elif by_decord:
            shown = decord_frames(media, steps.lead_s, steps.start_s)
        elif steps.start_s > _SEEK_FROM_S and media.seek(media.video, steps.start_s):
            shown = shown_frames(media, steps.lead_s, tally)
            first = next(shown, None)
            if first is None or first.from_s > steps.start_s + TOLERANCE_S:
                return _read_from_the_top(path, steps, painter)
            found = _fill(media, _chain(first, shown), steps, painter, tally)
            if not tally.num_broken:
                return found
            # Behind a key frame that later frames look past, a decoder calls them damaged: only the top can tell.
            steps.pictures.clear()
            return _read_from_the_top(path, steps, painter)
        else:
            shown = shown_frames(media, steps.lead_s, tally)
        return _fill(media, shown, steps, painter, tally)


def _read_from_the_top(path: Path, steps: _Steps, painter: Painter) -> Frames:
    """For a file that cannot be searched: everything before the first step is decoded too."""
    with open_media(path) as media:
        tally = Tally()
        return _fill(media, shown_frames(media, steps.lead_s, tally), steps, painter, tally)


def _chain(first: Shown, rest: Iterator[Shown]) -> Iterator[Shown]:
    yield first
    yield from rest


def _fill(media: Media, shown: Iterator[Shown], steps: _Steps, painter: Painter, tally: Tally) -> Frames:
    seen = False
    aspect = media.video.sample_aspect_ratio if media.video is not None else None
    for item in shown:
        seen = True
        if steps.num is None and item.until_s - steps.start_s > LONGEST_S:
            raise MediaError(f"{media.path}: pictures longer than {LONGEST_S:.0f} s must be read with an end_s")
        steps.show(lambda frame=item.frame: painter.paint(frame(), aspect), item.from_s, item.until_s)
        if steps.full:
            break
    if not seen and (tally.num_broken or steps.start_s <= _SEEK_FROM_S):
        raise MediaError(f"{media.path}: no picture can be decoded: {tally.reason or 'the video stream is empty'}")
    return steps.frames(painter, tally)


def _read_still(media: Media, steps: _Steps, painter: Painter) -> Frames:
    tally = Tally()
    frame = next(decode(media, media.video, tally), None)
    if frame is None:
        raise MediaError(f"{media.path}: the picture cannot be decoded: {tally.reason or 'the file is empty'}")
    picture = painter.paint(frame)
    steps.show(lambda: picture, -math.inf, math.inf)
    return steps.frames(painter, tally)


def _check_span(path: str | Path, start_s: float, end_s: float | None) -> None:
    if not (math.isfinite(start_s) and start_s >= 0):
        raise InputError(f"{path}: start_s must not be negative, got {start_s}")
    if end_s is not None and not start_s < end_s <= start_s + LONGEST_S:
        raise InputError(f"{path}: end_s must lie within {LONGEST_S:.0f} s after start_s ({start_s}), got {end_s}")
