"""Media files that tests write themselves, with every start offset and container that is wanted."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

CODECS = {
    ".mp4": ("libx264", "aac"),
    ".mov": ("libx264", "aac"),
    ".mkv": ("libx264", "aac"),
    ".webm": ("libvpx", "libopus"),
    ".ts": ("libx264", "aac"),
    ".flac": ("", "flac"),
}
_OPTIONS = {
    "libx264": {"preset": "ultrafast"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "threads": "1"},
}
SIZE_PX = 64


def picture(level: int) -> np.ndarray:
    return np.full((SIZE_PX, SIZE_PX, 3), level, np.uint8)


def flashes(event_s: float, offset_s: float, rate: int, duration_s: float) -> list[tuple[float, np.ndarray]]:
    """(time, picture) at a constant rate from `offset_s` on: black, and white for 0.1 s from `event_s` on."""
    times = [offset_s + k / rate for k in range(round(duration_s * rate))]
    return [(t, picture(255 if event_s - 1e-6 <= t < event_s + 0.1 else 0)) for t in times]


def clicks(event_s: float, offset_s: float, sample_rate_hz: int, duration_s: float) -> np.ndarray:
    """Silence from `offset_s` on with a short burst at `event_s`."""
    sound = np.zeros(round(duration_s * sample_rate_hz), np.float32)
    first = round((event_s - offset_s) * sample_rate_hz)
    num = sample_rate_hz // 200
    sound[first : first + num] = 0.8 * np.sin(2 * np.pi * 1000 * np.arange(num) / sample_rate_hz)
    return sound


def write_media(
    path: Path,
    pictures: list[tuple[float, np.ndarray]] | None,
    sound: np.ndarray | None,
    sound_s: float = 0.0,
    sample_rate_hz: int = 48000,
    rotation_deg: int = 0,
    mirrored: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """Muxes pictures at their times and sound from `sound_s` on, interleaved by decoding time."""
    video_codec, audio_codec = CODECS[path.suffix]
    with av.open(str(path), "w", options=options or {}) as container:
        packets = []
        video = audio = None
        if pictures is not None:
            video = container.add_stream(video_codec, rate=25, options=dict(_OPTIONS[video_codec]))
            video.height, video.width = pictures[0][1].shape[:2]
            video.pix_fmt = "yuv420p"
            video.codec_context.time_base = Fraction(1, 90000)
            if rotation_deg or mirrored:
                video.set_display_rotation(rotation_deg, hflip=mirrored)
        if sound is not None:
            audio = container.add_stream(audio_codec, rate=sample_rate_hz, layout="mono")
        if video is not None:
            for time_s, image in pictures:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
                frame.pts, frame.time_base = round(time_s * 90000), Fraction(1, 90000)
                packets += video.encode(frame)
            packets += video.encode(None)
        if audio is not None:
            samples = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            samples.sample_rate, samples.pts = sample_rate_hz, round(sound_s * sample_rate_hz)
            samples.time_base = Fraction(1, sample_rate_hz)
            packets += [*audio.encode(samples), *audio.encode(None)]
        for packet in sorted(packets, key=lambda p: float((p.pts if p.dts is None else p.dts) * p.time_base)):
            container.mux(packet)
    return path
