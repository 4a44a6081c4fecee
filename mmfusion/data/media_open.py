"""Opening a media file: which streams are read, what time it is, and what to do about broken packets.

The clock. All times are seconds on one clock for the whole file, the same for sound and pictures. Its zero is

* the container's own zero for the mp4 and matroska families, whose time stamps count from the beginning of the
  presentation: an event that was muxed at 3.0 s is read at 3.0 s, whatever starts late;
* the earliest of the streams' starts for all others (a transport stream begins anywhere, an mp3 after its padding),
  and for an mp4 or matroska file that is a piece of something longer (it starts before 0 or after `LATEST_START_S`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import EOFError as EndOfFile
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream

from mmfusion.types import InputError

LATEST_START_S = 10.0  # an mp4 that begins later than this is a cut fragment, not one with a pause at the front
EARLIEST_START_S = -0.1  # an encoder's priming lies before 0 and is never presented
LONGEST_S = 3600.0  # what one call reads at most: a broken length or a stream without end must not fill the memory
MAX_BROKEN_IN_A_ROW = 2000

_OWN_ZERO = {"mov", "matroska"}
# A name like frame_%03d.png means that file, not a sequence; a playlist must not reach out to a network.
_OPTIONS = {"pattern_type": "none", "protocol_whitelist": "file"}
_ENDLESS = {"hls", "dash", "concat", "sdp", "rtsp", "lavfi"}


class MediaError(InputError):
    """A media file that cannot be read; the message is one sentence with the path and the reason."""


@dataclass
class Tally:
    """What could not be decoded: how many packets or frames, and the first reason."""

    num_broken: int = 0
    reason: str | None = None

    def add(self, reason: str) -> None:
        self.num_broken += 1
        self.reason = self.reason or reason


@dataclass(frozen=True)
class Media:
    """An open file, the video and audio stream that are read (None where there is none), and the clock's zero."""

    path: Path
    container: InputContainer
    video: VideoStream | None
    audio: AudioStream | None
    zero_s: float

    @property
    def is_still(self) -> bool:
        """Whether the file is one picture (png, jpeg, ...), which has no time of its own."""
        name = self.container.format.name
        return name == "image2" or (name.endswith("_pipe") and self.audio is None)

    def seconds(self, stamp: int | None, stream: Any) -> float | None:
        """A time stamp in the stream's time base -> seconds on the file's clock."""
        return None if stamp is None or not stream.time_base else float(stamp * stream.time_base) - self.zero_s

    def seek(self, stream: Any, to_s: float) -> bool:
        """Goes to a place from which decoding reaches `to_s`. False when the file cannot be searched."""
        try:
            self.container.seek(int((to_s + self.zero_s) / stream.time_base), stream=stream, backward=True)
        except (FFmpegError, OverflowError):
            return False
        return True


@contextmanager
def open_media(path: str | Path) -> Iterator[Media]:
    """The file, open for reading with one thread. Raises MediaError when it is not a media file."""
    path = Path(path)
    if not path.is_file():
        raise MediaError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    try:
        # "file:" keeps a colon in a name from being read as a protocol.
        container = av.open(f"file:{path}", metadata_errors="replace", options=dict(_OPTIONS))
    except (FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"{path}: not a readable media file: {short_reason(error)}") from error
    with container:
        if container.format.name in _ENDLESS:
            raise MediaError(f"{path}: is a list of other files ({container.format.name}), not a media file")
        video, audio = _chosen(container, "video"), _chosen(container, "audio")
        if video is None and audio is None:
            raise MediaError(f"{path}: holds no video or audio stream that can be decoded")
        for stream in (video, audio):
            if stream is not None:
                stream.codec_context.thread_count = 1
        yield Media(path, container, video, audio, _zero_s(container, video, audio))


def decode(media: Media, stream: Any, tally: Tally) -> Iterator[Any]:
    """The frames of a stream from where the file stands, in presentation order; what is broken is tallied.

    Ends after `MAX_BROKEN_IN_A_ROW` failures without one frame between them.
    """
    packets = media.container.demux(stream)
    packet: Any = None
    failures = 0
    while failures < MAX_BROKEN_IN_A_ROW:
        try:
            packet = next(packets, None)
        except (FFmpegError, ValueError) as error:
            tally.add(short_reason(error))
            packets, packet = iter(()), None
        try:
            frames = stream.decode(packet)
        except (FFmpegError, ValueError) as error:
            if not isinstance(error, EndOfFile):
                tally.add(short_reason(error))
                failures += 1
            frames = []
        if frames:
            failures = 0
        yield from frames
        if packet is None:
            return


def short_reason(error: BaseException) -> str:
    """One line of an error of FFmpeg's, without number, function or path."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.strip().splitlines()[0].rstrip(".")


def _chosen(container: InputContainer, kind: str) -> Any:
    """What a player starts with: the first stream of a kind that is marked as default, else the first.

    Cover art, and what no decoder is there for, does not count.
    """
    streams: list[Any] = [stream for stream in container.streams if stream.type == kind and _is_readable(stream)]
    return next((s for s in streams if s.disposition & Disposition.default), next(iter(streams), None))


def _is_readable(stream: Any) -> bool:
    return stream.codec_context is not None and not stream.disposition & Disposition.attached_pic


def _zero_s(container: InputContainer, video: VideoStream | None, audio: AudioStream | None) -> float:
    starts = [
        float(stream.start_time * stream.time_base)
        for stream in (video, audio)
        if stream is not None and stream.start_time is not None and stream.time_base
    ]
    earliest = min(starts, default=0.0)
    own_zero = bool(_OWN_ZERO & set(container.format.name.split(",")))
    return 0.0 if own_zero and EARLIEST_START_S <= earliest <= LATEST_START_S else earliest
