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
from dataclasses import dataclass, replace
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
_PLAYLISTS = {"hls", "dash", "concat", "sdp", "rtsp", "imf"}
_PATIENCE_S = 60.0  # for the disk; a demuxer that waits longer for one read waits for something that will not come


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
    zero_s: float = 0.0

    @property
    def is_still(self) -> bool:
        """Whether the file is one picture (png, jpeg, ...), which has no time of its own."""
        if self.video is None or self.audio is not None:
            return False
        name = self.container.format.name
        return name == "image2" or name.endswith("_pipe") or bool(self.video.disposition & Disposition.still_image)

    @property
    def counts_from_zero(self) -> bool:
        """Whether the format's time stamps count from the beginning of the presentation (mp4 and matroska)."""
        return bool(_OWN_ZERO & set(self.container.format.name.split(",")))

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
        if _is_playlist(path):
            raise MediaError(f"{path}: is a list of other files, not a media file")
        # "file:" keeps a colon in a name from being read as a protocol.
        container = av.open(f"file:{path}", metadata_errors="replace", options=dict(_OPTIONS), timeout=_PATIENCE_S)
    except (FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"{path}: not a readable media file: {short_reason(error)}") from error
    with container:
        if container.format.name in _PLAYLISTS:
            raise MediaError(f"{path}: is a list of other files ({container.format.name}), not a media file")
        media = Media(path, container, _chosen(container, "video"), _chosen(container, "audio"))
        streams: list[Any] = [stream for stream in (media.video, media.audio) if stream is not None]
        if not streams:
            raise MediaError(f"{path}: holds no video or audio stream that can be decoded")
        for stream in streams:
            stream.codec_context.thread_count = 1
            if stream.codec_context.name == "flac":  # else what fails its own checksum is played as it is
                stream.codec_context.options = {"err_detect": "crccheck+explode"}
        yield replace(media, zero_s=_zero_s(media, streams))


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


def _zero_s(media: Media, streams: list[Any]) -> float:
    starts = [media.seconds(stream.start_time, stream) for stream in streams]
    earliest = min((start for start in starts if start is not None), default=0.0)
    return 0.0 if media.counts_from_zero and EARLIEST_START_S <= earliest <= LATEST_START_S else earliest


def _is_playlist(path: Path) -> bool:
    """FFmpeg follows such lists, and waits for ever for a live one to go on."""
    with path.open("rb") as file:
        head = file.read(1024).lstrip(b"\xef\xbb\xbf \r\n\t")
    return head.startswith((b"#EXTM3U", b"ffconcat", b"v=0")) or b"<MPD" in head
