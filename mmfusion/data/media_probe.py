"""What a media file holds, without decoding more than its first picture; and how far it really goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from av.error import FFmpegError

from mmfusion.data.media_open import Media, Tally, decode, open_media
from mmfusion.data.media_stamps import Timeline, without_strays

_LONGEST_AHEAD_S = 10.0


@dataclass(frozen=True)
class MediaInfo:
    """What `probe` found. Fields of a modality that the file does not have are None.

    `duration_s` is what the container states, None where it states nothing; `width_px` and `height_px` are the coded
    size, before rotation; `rotation_deg` is how far a player turns the picture counter-clockwise (-90 is a phone held
    upright); `frame_rate` is the average. The starts are on the file's clock (see `media_open`).
    """

    path: Path
    container: str
    duration_s: float | None
    has_audio: bool
    has_video: bool
    is_still: bool
    video_codec: str | None = None
    width_px: int | None = None
    height_px: int | None = None
    rotation_deg: int | None = None
    frame_rate: float | None = None
    video_start_s: float | None = None
    audio_codec: str | None = None
    sample_rate_hz: int | None = None
    num_channels: int | None = None
    audio_start_s: float | None = None


def probe(path: str | Path) -> MediaInfo:
    """What the file holds. Raises MediaError when it holds nothing that can be decoded."""
    with open_media(path) as media:
        return MediaInfo(
            path=media.path,
            container=media.container.format.name,
            duration_s=_duration_s(media),
            has_audio=media.audio is not None,
            has_video=media.video is not None,
            is_still=media.is_still,
            **_audio_facts(media),
            **_video_facts(media),
        )


def reach_s(path: str | Path, until_s: float | None = None) -> float | None:
    """Where the last packet of sound or pictures ends on the file's clock, whatever the header says of its length.

    Goes through the packets without decoding them, and no further than is needed to say that `until_s` is reached. None
    for a still picture, and for a file without a packet. Raises MediaError like `probe`.
    """
    ends_s = [_end_s(path, kind, until_s) for kind in ("audio", "video")]
    return max((end_s for end_s in ends_s if end_s is not None), default=None)


def _end_s(path: str | Path, kind: str, until_s: float | None) -> float | None:
    with open_media(path) as media:
        stream = media.audio if kind == "audio" else media.video
        if stream is None or media.is_still:
            return None
        timeline, due_s, end_s = Timeline(media), 0.0, None
        for packet, stamp_s in without_strays(_stamped_packets(media, stream), Tally()):
            begin_s = timeline.place(stamp_s, due_s)
            due_s = begin_s + float((packet.duration or 0) * packet.time_base)
            end_s = max(end_s or 0.0, due_s + _ahead_s(packet))
            if until_s is not None and end_s >= until_s:
                break
        return end_s


def _ahead_s(packet: Any) -> float:
    """How much later a picture is shown than it is decoded: they are stored in another order than they are shown in."""
    if packet.pts is None or packet.dts is None:
        return 0.0
    ahead_s = float((packet.pts - packet.dts) * packet.time_base)
    return ahead_s if 0 <= ahead_s <= _LONGEST_AHEAD_S else 0.0  # beyond that, a stamp is damaged


def _stamped_packets(media: Media, stream: Any) -> Iterator[tuple[Any, float | None]]:
    """The packets that hold something, in the file's order, up to where it can be read."""
    packets = media.container.demux(stream)
    with suppress(FFmpegError, ValueError):
        for packet in packets:
            if packet.size and packet.time_base:
                yield packet, media.seconds(packet.pts if packet.dts is None else packet.dts, packet)


def _duration_s(media: Media) -> float | None:
    if media.is_still:
        return None
    if media.container.duration:
        return media.container.duration / 1e6
    streams = [stream for stream in (media.video, media.audio) if stream is not None]
    lengths = [float(s.duration * s.time_base) for s in streams if s.duration and s.time_base]
    return max(lengths, default=None)


def _audio_facts(media: Media) -> dict[str, Any]:
    if media.audio is None:
        return {}
    context = media.audio.codec_context
    return {
        "audio_codec": context.name,
        "sample_rate_hz": context.sample_rate or None,
        "num_channels": context.channels or None,
        "audio_start_s": media.seconds(media.audio.start_time, media.audio),
    }


def _video_facts(media: Media) -> dict[str, Any]:
    if media.video is None:
        return {}
    rate = media.video.average_rate or media.video.guessed_rate
    first = next(decode(media, media.video, Tally()), None)
    turn = getattr(first, "rotation", 0)
    return {
        "video_codec": media.video.codec_context.name,
        "width_px": media.video.codec_context.width or None,
        "height_px": media.video.codec_context.height or None,
        # A damaged display matrix gives a number that is no angle.
        "rotation_deg": turn if -360 <= turn <= 360 else 0,
        "frame_rate": float(rate) if rate else None,
        "video_start_s": media.seconds(media.video.start_time, media.video),
    }
