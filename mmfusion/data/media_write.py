"""Writing media files: the same input gives the same bytes."""

from __future__ import annotations

import os
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer

from mmfusion.types import InputError

_X264 = {"preset": "veryfast", "crf": "20", "threads": "1", "mbtree": "0", "flags": "+bitexact"}
_AAC = {"aac_coder": "fast", "flags": "+bitexact"}  # a quarter of the default coder's time, 0.2 dB worse
_AAC_BITS_PER_S = 96_000


def write_clip(
    path: str | Path,
    frames: np.ndarray | None,
    frame_rate: float | Fraction,
    sound: np.ndarray | None,
    sample_rate_hz: int,
) -> None:
    """Writes an mp4 with H.264 pictures and AAC sound; both begin at 0 s on the file's clock.

    frames: uint8 (T, H, W, 3) RGB, H and W even, or None; sound: float (N,) in [-1, 1], mono, or None. The file
    appears whole or not at all. Raises InputError for arrays of another form.
    """
    path = Path(path)
    if frames is None and sound is None:
        raise InputError(f"{path}: a clip needs frames or sound")
    _check(path, frames, sound)
    with (
        _whole(path) as partial,
        av.open(str(partial), "w", format="mp4", options={"fflags": "+bitexact"}) as container,
    ):
        # Both streams must be declared before the first packet is written.
        encoders = []
        if frames is not None:
            encoders.append(_pictures(container, frames, Fraction(frame_rate).limit_denominator(1001)))
        if sound is not None:
            encoders.append(_sound(container, sound, sample_rate_hz))
        for encoder in encoders:
            next(encoder)
        for encoder in encoders:
            for packet in encoder:
                container.mux(packet)


def write_sound(path: str | Path, sound: np.ndarray, sample_rate_hz: int) -> None:
    """Writes a mono 16-bit PCM wav; sound is float (N,), what is outside [-1, 1] is clipped."""
    path = Path(path)
    _check(path, None, sound)
    samples = np.clip(np.round(np.asarray(sound, np.float64) * 32768), -32768, 32767).astype("<i2")
    with _whole(path) as partial, wave.open(str(partial), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        file.writeframes(samples.tobytes())


@contextmanager
def open_wav(path: str | Path, sample_rate_hz: int) -> Iterator[Callable[[np.ndarray], None]]:
    """A mono wav of 32-bit floats, written piece by piece: what comes in is called with float (N,) each time.

    Nothing is clipped or rounded further than float32. The file appears when all went well.
    """
    path = Path(path)
    with (
        _whole(path) as partial,
        av.open(str(partial), "w", format="wav", options={"fflags": "+bitexact"}) as container,
    ):
        stream = container.add_stream("pcm_f32le", rate=sample_rate_hz, layout="mono")
        num_written = 0

        def write(sound: np.ndarray) -> None:
            nonlocal num_written
            _check(path, None, sound)
            samples = np.ascontiguousarray(np.asarray(sound, np.float32)[None])
            frame = av.AudioFrame.from_ndarray(samples, format="flt", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = sample_rate_hz, num_written, Fraction(1, sample_rate_hz)
            container.mux(stream.encode(frame))
            num_written += len(sound)

        yield write
        container.mux(stream.encode(None))


def write_picture(path: str | Path, picture: np.ndarray) -> None:
    """Writes a png; picture is uint8 (H, W, 3) RGB, or (H, W) grey."""
    path = Path(path)
    grey = picture.ndim == 2
    if picture.dtype != np.uint8 or not (grey or (picture.ndim == 3 and picture.shape[2] == 3)) or 0 in picture.shape:
        raise InputError(f"{path}: a picture must be uint8 (H, W, 3) or (H, W), got {picture.dtype} {picture.shape}")
    context = av.CodecContext.create("png", "w")
    context.height, context.width = picture.shape[:2]  # type: ignore[attr-defined]
    context.pix_fmt = "gray" if grey else "rgb24"  # type: ignore[attr-defined]
    context.time_base = Fraction(1, 1)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="gray" if grey else "rgb24")
    frame.pts = 0
    packets = [*context.encode(frame), *context.encode(None)]  # type: ignore[attr-defined]
    with _whole(path) as partial:
        partial.write_bytes(b"".join(bytes(packet) for packet in packets))


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to, which takes its place when all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial{os.getpid()}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _check(path: Path, frames: np.ndarray | None, sound: np.ndarray | None) -> None:
    if frames is not None:
        fits = frames.dtype == np.uint8 and frames.ndim == 4 and frames.shape[3:] == (3,) and len(frames) > 0
        if not fits or 0 in frames.shape or frames.shape[1] % 2 or frames.shape[2] % 2:
            raise InputError(
                f"{path}: frames must be uint8 (T, H, W, 3) with even H and W, got {frames.dtype} {frames.shape}"
            )
    if sound is not None and (sound.ndim != 1 or not len(sound) or sound.dtype.kind != "f"):
        raise InputError(f"{path}: sound must be float (N,), got {sound.dtype} {sound.shape}")
    if sound is not None and not np.isfinite(sound).all():
        raise InputError(f"{path}: sound holds a value that is not finite")


def _pictures(container: OutputContainer, frames: np.ndarray, rate: Fraction) -> Iterator[list[av.Packet] | None]:
    """Declares the stream and yields None, then yields the packets."""
    stream = container.add_stream("libx264", rate=rate, options=dict(_X264))
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = "yuv420p"
    yield None
    for index, picture in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts, frame.time_base = index, 1 / rate
        yield stream.encode(frame)
    yield stream.encode(None)


def _sound(container: OutputContainer, sound: np.ndarray, sample_rate_hz: int) -> Iterator[list[av.Packet] | None]:
    stream = container.add_stream("aac", rate=sample_rate_hz, layout="mono", options=dict(_AAC))
    stream.bit_rate = min(_AAC_BITS_PER_S, 6 * sample_rate_hz)
    yield None
    samples = np.ascontiguousarray(np.asarray(sound, np.float32)[None])
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = sample_rate_hz, 0, Fraction(1, sample_rate_hz)
    yield stream.encode(frame)
    yield stream.encode(None)
