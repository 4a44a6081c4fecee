"""What a clip looks and sounds like, small enough for a page: frames, waveform, spectrogram, sound, and its events."""

from __future__ import annotations

import base64
import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image

from mmfusion.data.inputs import FramesInput, InputConfig, WaveformInput
from mmfusion.data.manifest import Manifest
from mmfusion.data.media import probe, write_clip, write_sound
from mmfusion.data.raw import Raw
from mmfusion.data.reading import MediaReader
from mmfusion.encoders.logmel import LogMel, LogMelConfig
from mmfusion.types import Clip, InputError, Stream

NUM_FRAMES = 6
LARGEST_PX, GAP_PX = 144, 3
NUM_COLUMNS, NUM_POINTS = 480, 200
AAC_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


@dataclass(frozen=True)
class Event:
    """One event of the clip's truth, placed in percent of its length."""

    label: str
    start: float
    width: float
    manner: str
    """as told to the reader: seen and heard, only seen, only heard"""


@dataclass(frozen=True)
class Footage:
    """Data URIs and drawings of one clip, on one time axis of `duration_s`; None for what it does not have.

    `sound` is a data URI, or where a file was asked for, its path.
    """

    duration_s: float
    strip: str | None = None
    num_frames: int = 0
    size_px: int = 0
    waveform: str | None = None
    """points of an SVG polygon in a box of NUM_POINTS x 2, around 0"""
    spectrogram: str | None = None
    sound: str | None = None
    sound_share: float = 100.0
    """how much of the time axis the sound takes, in percent"""
    events: tuple[Event, ...] = ()
    problem: str | None = None
    """why something is not shown"""
    start_s: float = 0.0
    """where on the clip's clock the axis begins"""


def read_footage(clip: Clip, manifest: Manifest, inputs: Mapping[str, InputConfig], max_duration_s: float,
                 with_sound: bool | Path) -> Footage:  # fmt: skip
    """Reads the clip's own files, through the inputs that are sound or pictures; problems are told, not raised.

    `with_sound` as in `footage_of`.
    """
    wanted: dict[str, InputConfig] = {}
    problems: list[str] = []
    for name, config in inputs.items():
        path = manifest.resolve(clip, config.source or name)
        try:
            if isinstance(config, FramesInput) and path is not None:
                wanted[name] = replace(config, size_px=_size(path, config))
            elif isinstance(config, WaveformInput):
                wanted[name] = config
        except InputError as error:
            problems.append(str(error))
    found: dict[str, Raw] = {}
    for name, config in wanted.items():
        try:
            found |= MediaReader({name: config}, max_duration_s, manifest.locate).load(clip)
        except InputError as error:
            problems.append(str(error))
    footage = footage_of(clip, found, wanted, max_duration_s, with_sound)
    return replace(footage, problem="; ".join(problems) or None)


def footage_of(clip: Clip, found: Mapping[str, Raw], inputs: Mapping[str, InputConfig], max_duration_s: float,
               with_sound: bool | Path) -> Footage:  # fmt: skip
    """What a clip looks and sounds like whose inputs were read or made.

    With a path for `with_sound` the sound is written there as wav, and `Footage.sound` is that path.
    """
    pictures = next((raw for name, raw in found.items() if isinstance(inputs[name], FramesInput)), None)
    sound = next((raw for name, raw in found.items() if isinstance(inputs[name], WaveformInput)), None)
    footage = Footage(_duration(clip, found, max_duration_s))
    footage = replace(footage, events=_events(clip, footage.duration_s))
    if pictures is not None:
        footage = _with_pictures(footage, pictures)
    return footage if sound is None else _with_sound(footage, sound, with_sound)


def _size(path: Path, config: FramesInput) -> int:
    """As large as a page needs, never larger than the pictures are (but for what the run itself reads)."""
    info = probe(path)
    native = min(info.width_px or LARGEST_PX, info.height_px or LARGEST_PX)
    return max(8, min(native, LARGEST_PX)) if native >= config.size_px else min(config.size_px, LARGEST_PX)


def _duration(clip: Clip, found: Mapping[str, Raw], max_duration_s: float) -> float:
    lengths = [len(raw.mask) / raw.rate for raw in found.values()]
    stated = [] if clip.end_s is None else [min(clip.end_s - clip.start_s, max_duration_s)]
    return max([*lengths, *stated, 1e-3])


def _events(clip: Clip, duration_s: float) -> tuple[Event, ...]:
    events = []
    for source in clip.sources:
        start = 100 * min(max(source.start_s, 0.0) / duration_s, 1.0)
        end = 100 * min(source.end_s / duration_s, 1.0)
        manner = "seen and heard" if source.seen and source.heard else "only seen" if source.seen else "only heard"
        if end > start:
            events.append(Event(source.label, round(start, 1), round(end - start, 1), manner))
    return tuple(events)


def _with_pictures(footage: Footage, raw: Raw) -> Footage:
    real = np.flatnonzero(raw.mask)
    count = min(NUM_FRAMES, len(real))
    at = [int(real[(2 * number + 1) * len(real) // (2 * count)]) for number in range(count)]
    size = raw.data.shape[-1]
    strip = np.full((size, count * size + (count - 1) * GAP_PX, 3), 128, np.uint8)
    for number, step in enumerate(at):
        left = number * (size + GAP_PX)
        strip[:, left : left + size] = np.moveaxis(raw.data[step], 0, 2)
    small = size < LARGEST_PX / 2
    kind, settings = ("png", {"optimize": True}) if small else ("jpeg", {"quality": 80})
    return replace(footage, strip=_image(Image.fromarray(strip), kind, **settings), num_frames=count, size_px=size)


def _with_sound(footage: Footage, raw: Raw, audible: bool | Path) -> Footage:
    samples = np.where(raw.mask, raw.data, 0).astype(np.float32)
    share = 100 * len(samples) / raw.rate / footage.duration_s
    if isinstance(audible, Path):
        write_sound(audible, samples, round(raw.rate))
        sound = str(audible)
    else:
        sound = _playable(samples, round(raw.rate)) if audible else None
    return replace(
        footage,
        waveform=outline(samples),
        spectrogram=_spectrogram(samples, raw.rate),
        sound=sound,
        sound_share=round(min(share, 100.0), 1),
    )


def outline(samples: np.ndarray) -> str:
    """The waveform's upper and lower edge as polygon points, scaled to its own peak (silence stays a line)."""
    pieces = np.array_split(samples, min(NUM_POINTS, len(samples)))
    peak = max(float(np.abs(samples).max()), 1e-3)
    high = [min(-float(piece.max()) / peak, -0.01) for piece in pieces]
    low = [max(-float(piece.min()) / peak, 0.01) for piece in pieces]
    width = NUM_POINTS / len(pieces)
    forth = [f"{(place + 0.5) * width:.4g},{value:.3g}" for place, value in enumerate(high)]
    back = [f"{(place + 0.5) * width:.4g},{value:.3g}" for place, value in enumerate(low)]
    return " ".join([*forth, *reversed(back)])


def _spectrogram(samples: np.ndarray, rate: float) -> str:
    """Log-mel, low at the bottom, as the models hear it."""
    stream = Stream(torch.from_numpy(samples)[None], torch.ones(1, len(samples), dtype=torch.bool), rate)
    with torch.inference_mode():
        levels = LogMel(LogMelConfig()).eval()(stream).data[0].numpy().T[::-1]
    columns = np.array_split(levels, min(NUM_COLUMNS, levels.shape[1]), axis=1)
    levels = np.stack([column.mean(axis=1) for column in columns], axis=1)
    image = Image.fromarray(np.uint8(255 * levels / max(float(levels.max()), 1e-6)), mode="P")
    palette = mpl.colormaps["magma"](np.arange(256))[:, :3]
    image.putpalette(np.uint8(np.round(255 * palette)).tobytes())
    return _image(image, "png", optimize=True)


def _playable(samples: np.ndarray, sample_rate_hz: int) -> str:
    """The sound as a file that a browser plays: AAC where the rate allows, else plain samples."""
    with tempfile.TemporaryDirectory() as folder:
        if sample_rate_hz in AAC_RATES_HZ:
            path, kind = Path(folder) / "sound.mp4", "audio/mp4"
            write_clip(path, None, 1, samples, sample_rate_hz)
        else:
            path, kind = Path(folder) / "sound.wav", "audio/wav"
            write_sound(path, samples, sample_rate_hz)
        return _data_uri(path.read_bytes(), kind)


def _image(image: Image.Image, kind: str, **settings: object) -> str:
    out = io.BytesIO()
    image.save(out, kind, **settings)
    return _data_uri(out.getvalue(), f"image/{kind}")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def save_picture(data_uri: str, path: Path) -> Path:
    """Writes the picture that a data URI holds to `path`, with the suffix of its kind; returns where it lies."""
    kind, _, content = data_uri.removeprefix("data:image/").partition(";base64,")
    path = path.with_name(f"{path.name}.{kind}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(base64.b64decode(content))
    return path


def merged_inputs(inputs: Sequence[Mapping[str, InputConfig]]) -> dict[str, InputConfig]:
    """The inputs of several runs by name, the first of each name."""
    merged: dict[str, InputConfig] = {}
    for one in inputs:
        merged = {**one, **merged}
    return merged
