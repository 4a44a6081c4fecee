"""Sound of a media file as mono samples on the file's clock."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from av.audio.resampler import AudioResampler
from av.error import FFmpegError

from mmfusion.data.media_open import LONGEST_S, Media, MediaError, Tally, decode, open_media, short_reason
from mmfusion.data.media_stamps import JUMP_S, Timeline, without_strays
from mmfusion.types import InputError

# Containers round time stamps (to 1 ms in matroska, more in old ones); a lost packet is 20 ms and more.
_GAP_S = 0.015
_EXACT_GAP_S = 0.0005
_SEEK_FROM_S = 10.0
_FILLING_S = 0.15
_NUM_HEAD = 12
_PREROLL_S = 1.0  # a decoder that starts in the middle needs some packets before its output is right


@dataclass(frozen=True)
class Sound:
    """`data` float32 (N,) mono; `mask` bool (N,), False (and data 0) where the file has no sound.

    `num_broken` counts packets that could not be decoded, `reason` is the first one's.
    """

    data: np.ndarray
    mask: np.ndarray
    num_broken: int = 0
    reason: str | None = None


def read_sound(path: str | Path, sample_rate_hz: int, start_s: float = 0.0, end_s: float | None = None) -> Sound | None:
    """The sound of [start_s, end_s), the mean of all channels; sample i lies at start_s + i / sample_rate_hz.

    N = round((end_s - start_s) * sample_rate_hz); without `end_s`, up to where the sound ends, at least 1. Gaps in
    the time stamps stay gaps, so that sound and pictures do not drift apart. None when the file has no sound;
    MediaError when it cannot be read.
    """
    if sample_rate_hz <= 0:
        raise InputError(f"{path}: sample_rate_hz must be positive, got {sample_rate_hz}")
    if not (math.isfinite(start_s) and start_s >= 0):
        raise InputError(f"{path}: start_s must not be negative, got {start_s}")
    if end_s is not None and not start_s < end_s <= start_s + LONGEST_S:
        raise InputError(f"{path}: end_s must lie within {LONGEST_S:.0f} s after start_s ({start_s}), got {end_s}")
    tally = Tally()
    with open_media(path) as media:
        if media.audio is None:
            return None
        if start_s > _SEEK_FROM_S:
            media.seek(media.audio, start_s - _PREROLL_S)
        pieces = list(_pieces(media, sample_rate_hz, start_s, end_s, tally))
        over_s = _over_s(media)
    if not pieces and (tally.num_broken or start_s == 0):
        raise MediaError(f"{path}: no sound can be decoded: {tally.reason or 'the audio stream is empty'}")
    _trim(pieces, None if over_s is None else round((over_s - start_s) * sample_rate_hz), sample_rate_hz)
    data, mask = _placed(pieces, None if end_s is None else max(1, round((end_s - start_s) * sample_rate_hz)))
    return Sound(data, mask, tally.num_broken, tally.reason)


def stream_sound(path: str | Path, sample_rate_hz: int, tally: Tally | None = None, block_s: float = 1.0
                 ) -> Iterator[np.ndarray]:  # fmt: skip
    """The whole sound of a file, block by block (each float32 (M,), M at most `block_s` long), however long it is.

    Put together it is what `read_sound` gives, where that can read it. `tally` counts what cannot be decoded.
    MediaError when there is no sound in the file, or none that can be decoded.
    """
    tally, block = tally or Tally(), max(1, round(block_s * sample_rate_hz))
    with open_media(path) as media:
        if media.audio is None:
            raise MediaError(f"{path}: has no sound")
        pieces = _pieces(media, sample_rate_hz, 0.0, None, tally, flowing=True)
        silent = True
        for samples in _in_order(pieces, media, sample_rate_hz, block):
            yield samples
            silent = False
        if silent:
            raise MediaError(f"{path}: no sound can be decoded: {tally.reason or 'the audio stream is empty'}")


class _Run:
    """Sound without gaps, resampled as it comes in."""

    def __init__(self, from_s: float, first: Any, sample_rate_hz: int) -> None:
        self.from_s = from_s
        self.form = _form(first)
        self._num_in = self._num_out = self.num_ready = 0
        self._rate_in_hz = first.sample_rate
        self._resampler = AudioResampler("fltp", None, sample_rate_hz)
        self._parts: list[np.ndarray] = []

    @property
    def end_s(self) -> float:
        return self.from_s + self._num_in / self._rate_in_hz

    def add(self, frame: Any) -> None:
        # Counted stamps: the file's own are rounded, and the resampler would stretch the sound to fit them.
        frame.pts, frame.time_base = self._num_in, Fraction(1, self._rate_in_hz)
        self._num_in += frame.samples
        self._take(frame)

    def end(self) -> None:
        """No more sound will come: what the resampler still holds is made ready."""
        self._take(None)

    def ready(self) -> tuple[int, np.ndarray]:
        """What is resampled and was not handed out before, and how many samples were."""
        samples = np.concatenate(self._parts) if self._parts else np.zeros(0, np.float32)
        before = self._num_out
        self._parts, self._num_out, self.num_ready = [], before + len(samples), 0
        return before, samples

    def _take(self, frame: Any) -> None:
        # The plain mean: FFmpeg's own mix to mono makes what is on several channels louder than full scale.
        parts = [out.to_ndarray().mean(axis=0) for out in self._resampler.resample(frame)]
        self._parts += parts
        self.num_ready += sum(map(len, parts))


def _form(frame: Any) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _pieces(
    media: Media, sample_rate_hz: int, start_s: float, end_s: float | None, tally: Tally, flowing: bool = False
) -> Iterator[tuple[int, np.ndarray]]:
    """(index of the first sample, counted from start_s; samples) of each run without gaps, in the file's order.

    `flowing` gives a run in pieces of about a second, and as long as it may be.
    """
    run: _Run | None = None
    timeline = Timeline(media)
    exact = media.container.format.name == "flac"  # stamps count samples, and damaged frames are dropped unsaid
    for frame, stamp_s in without_strays(_stamped(media, tally), tally):
        if run is None:
            run = _Run(stamp_s or 0.0, frame, sample_rate_hz)
        time_s = timeline.place(stamp_s, run.end_s)
        gap = abs(time_s - run.end_s) > (_EXACT_GAP_S if exact else _GAP_S)
        if gap and exact:
            tally.add("damaged frames are left out")
        if gap or _form(frame) != run.form:
            run.end()
            yield _piece(run, sample_rate_hz, start_s)
            run = _Run(time_s if gap else run.end_s, frame, sample_rate_hz)
        try:
            run.add(frame)
        except (FFmpegError, ValueError) as error:
            tally.add(short_reason(error))
        if end_s is not None and run.end_s > end_s + _PREROLL_S / 10:
            break
        if flowing and run.num_ready >= sample_rate_hz:
            yield _piece(run, sample_rate_hz, start_s)
        if not flowing and end_s is None and run.end_s - start_s > LONGEST_S:
            raise MediaError(f"{media.path}: sound longer than {LONGEST_S:.0f} s must be read with an end_s")
    if run is not None:
        run.end()
        yield _piece(run, sample_rate_hz, start_s)


def _in_order(pieces: Iterator[tuple[int, np.ndarray]], media: Media, sample_rate_hz: int, block: int
              ) -> Iterator[np.ndarray]:  # fmt: skip
    """The pieces as one sound from 0 on, gaps being silent, in blocks; a later piece counts where two overlap.

    A piece begins at most `JUMP_S` before the end of what came before, so no more than that has to be held back.
    """
    held, start, in_run = np.zeros(0, np.float32), 0, 0
    keep = round((JUMP_S + _FILLING_S) * sample_rate_hz) + 1
    for first, samples in pieces:
        while (missing := first - start - len(held)) > 0:
            held = np.concatenate([held, np.zeros(min(missing, block), np.float32)])
            held, start = yield from _handed(held, start, keep, block)
        in_run = len(samples) + (in_run if first == start + len(held) else 0)
        cut = max(0, start - first)
        at = first + cut - start
        fresh = np.where(np.isfinite(samples[cut:]), samples[cut:], 0).astype(np.float32)
        held = np.concatenate([held[:at], fresh, held[at + len(fresh) :]])
        held, start = yield from _handed(held, start, keep, block)
    over_s = _over_s(media)  # a file in fragments knows its length when it has been read
    over = start + len(held) if over_s is None else round(over_s * sample_rate_hz)
    if 0 < start + len(held) - over < min(in_run, _FILLING_S * sample_rate_hz):
        held = held[: over - start]
    yield from (held[place : place + block] for place in range(0, len(held), block))


def _handed(held: np.ndarray, start: int, keep: int, block: int) -> Generator[np.ndarray, None, tuple[np.ndarray, int]]:
    """Gives out whole blocks until `keep` samples are left; returns these, and the index of their first."""
    while len(held) >= keep + block:
        yield held[:block]
        held, start = held[block:], start + block
    return held, start


def _stamped(media: Media, tally: Tally) -> Iterator[tuple[Any, float | None]]:
    """The frames that hold sound, and their times; None where they are to be counted instead."""
    frames = (frame for frame in decode(media, media.audio, tally) if frame.samples and frame.sample_rate)
    head = list(itertools.islice(frames, _NUM_HEAD))
    counting = _stamps_are_wrong(head)
    for index, frame in enumerate(itertools.chain(head, frames)):
        yield frame, None if counting and index else media.seconds(frame.pts, frame)


def _stamps_are_wrong(head: list[Any]) -> bool:
    """Whether most time stamps advance at less than half or more than twice the speed of the sound (broken headers)."""
    speeds = [
        float((after.pts - before.pts) * before.time_base) * before.sample_rate / before.samples
        for before, after in itertools.pairwise(head)
        if None not in (before.pts, after.pts, before.time_base) and before.samples
    ]
    return len(speeds) > 2 and not 0.5 < float(np.median(speeds)) < 2


def _piece(run: _Run, sample_rate_hz: int, start_s: float) -> tuple[int, np.ndarray]:
    before, samples = run.ready()
    return round((run.from_s - start_s) * sample_rate_hz) + before, samples


def _over_s(media: Media) -> float | None:
    """When the sound is over by an mp4's edit list; the last packet is filled up with what was never recorded."""
    stream = media.audio
    if stream is None or stream.duration is None or "mov" not in media.container.format.name.split(","):
        return None
    return media.seconds((stream.start_time or 0) + stream.duration, stream)


def _trim(pieces: list[tuple[int, np.ndarray]], over: int | None, sample_rate_hz: int) -> None:
    """Cuts a filling of at most `_FILLING_S` off the end, in place; where it is longer, the stated end is wrong."""
    if not pieces or over is None:
        return
    first, samples = pieces[-1]
    excess = first + len(samples) - over
    if 0 < excess < min(len(samples), _FILLING_S * sample_rate_hz):
        pieces[-1] = first, samples[:-excess]


def _placed(pieces: list[tuple[int, np.ndarray]], num: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Samples and mask of length `num` (None: up to the last sample); where pieces overlap, the last one counts."""
    if num is None:
        num = max(1, *(first + len(samples) for first, samples in pieces)) if pieces else 1
    data, mask = np.zeros(num, np.float32), np.zeros(num, bool)
    for first, samples in pieces:
        start, end = max(0, first), min(num, first + len(samples))
        if start < end:
            part = samples[start - first : end - first]
            real = np.isfinite(part)
            data[start:end], mask[start:end] = np.where(real, part, 0), real
    return data, mask
