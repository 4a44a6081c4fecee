"""When each frame of a video stream is on display."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush

from av.video.frame import VideoFrame

from mmfusion.data.media_open import Media, Tally, decode
from mmfusion.data.media_stamps import Timeline, without_strays

_REORDER_DEPTH = 16  # the most frames that H.264 may hold back


@dataclass(frozen=True)
class Shown:
    """A frame (as a call that gives it) and the span in which it is on display, on the file's clock."""

    frame: Callable[[], VideoFrame]
    from_s: float
    until_s: float


def shown_frames(media: Media, lead_s: float, tally: Tally) -> Iterator[Shown]:
    """The frames from where the file stands, each on display until the next; the first one begins `lead_s` early.

    A frame whose time stamp is a little before the one in front of it is broken, and dropped.
    """
    held: VideoFrame | None = None
    from_s = 0.0
    usual_s = _usual_length_s(media)
    timeline = Timeline(media)
    for frame, stamp_s in without_strays(_stamped(media, tally), tally):
        if frame.is_corrupt:
            tally.add("a frame is damaged")
        if held is None:
            held, from_s = frame, stamp_s or 0.0
            continue
        time_s = timeline.place(stamp_s, from_s + usual_s)
        if time_s <= from_s:
            tally.add("time stamps run backwards")
            continue
        yield Shown(_giving(held), from_s - lead_s, time_s)
        lead_s = 0.0
        held, from_s = frame, time_s
    if held is not None:
        own_s = float(held.duration * held.time_base) if held.duration and held.time_base else usual_s
        yield Shown(_giving(held), from_s - lead_s, from_s + own_s)


def numbered_frames(media: Media, rate: float, lead_s: float, tally: Tally) -> Iterator[Shown]:
    """The frames from the file's beginning, for files whose time stamps are wrong: frame k on display at k / rate."""
    for number, frame in enumerate(decode(media, media.video, tally)):
        if frame.is_corrupt:
            tally.add("a frame is damaged")
        yield Shown(_giving(frame), number / rate - (lead_s if number == 0 else 0.0), (number + 1) / rate)


def _stamped(media: Media, tally: Tally) -> Iterator[tuple[VideoFrame, float | None]]:
    """The frames in the order in which they are shown, and their times.

    avi stores when a frame is decoded, not when it is shown: its stamps come out shuffled, and are dealt in order.
    """
    waiting: deque[VideoFrame] = deque()
    stamps: list[float] = []
    depth = _REORDER_DEPTH if media.container.format.name == "avi" else 0
    for frame in decode(media, media.video, tally):
        stamp_s = media.seconds(frame.pts if frame.pts is not None else frame.dts, frame)
        if stamp_s is None:
            yield frame, None
            continue
        waiting.append(frame)
        heappush(stamps, stamp_s)
        if len(waiting) > depth:
            yield waiting.popleft(), heappop(stamps)
    while waiting:
        yield waiting.popleft(), heappop(stamps)


def _giving(frame: VideoFrame) -> Callable[[], VideoFrame]:
    return lambda: frame


def _usual_length_s(media: Media) -> float:
    assert media.video is not None
    rate = media.video.average_rate or media.video.guessed_rate
    return 1 / float(rate) if rate else 1 / 25
