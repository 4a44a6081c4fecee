"""From a clip's files to raw inputs, without a cache: the reading that the cache stores and that prediction uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from mmfusion.data.features import read_features
from mmfusion.data.inputs import FeaturesInput, FramesInput, InputConfig, WaveformInput
from mmfusion.data.raw import Layout, Raw
from mmfusion.types import Clip


class ClipReader(Protocol):
    """Gives the raw inputs of a clip by input name, leaving out those that it does not have."""

    @property
    def inputs(self) -> Mapping[str, InputConfig]: ...

    @property
    def layouts(self) -> Mapping[str, Layout]: ...

    def load(self, clip: Clip) -> dict[str, Raw]: ...


def window(clip: Clip, max_duration_s: float) -> tuple[float, float]:
    """(start_s, end_s) of what is read of a clip's files, on the files' clock."""
    end_s = clip.start_s + max_duration_s
    return clip.start_s, end_s if clip.end_s is None else min(clip.end_s, end_s)


def read_raw(path: Path, config: InputConfig, start_s: float, end_s: float) -> Raw | None:
    """The input that `config` describes, from `start_s` to `end_s` of the file, or None when there is none in it.

    It ends with the last step that is real. None stands for a file without sound (or pictures), and for a window in
    which nothing is real. Raises InputError naming the file when it cannot be read.
    """
    if isinstance(config, FeaturesInput):
        raw = _read_features(path, config, start_s, end_s)
    elif isinstance(config, WaveformInput):
        raw = _read_sound(path, config, start_s, end_s)
    else:
        raw = _read_frames(path, config, start_s, end_s)
    return raw.trimmed() if raw is not None and raw.mask.any() else None


def _read_sound(path: Path, config: WaveformInput, start_s: float, end_s: float) -> Raw | None:
    from mmfusion.data.media import read_sound

    sound = read_sound(path, config.sample_rate_hz, start_s, end_s)
    if sound is None:
        return None
    return Raw(sound.data, sound.mask, float(config.sample_rate_hz), _flaw(sound.num_broken, sound.reason))


def _read_frames(path: Path, config: FramesInput, start_s: float, end_s: float) -> Raw | None:
    from mmfusion.data.media import probe, read_frames

    info = probe(path)
    # A still picture is one step, however long the clip: given an end, `read_frames` would repeat it up to there.
    frames = read_frames(path, config.rate, config.size_px, start_s, None if info.is_still else end_s,
                         backend=config.backend, fit=config.fit, true_rate=config.true_frame_rate)  # fmt: skip
    if frames is None:
        return None
    return Raw(np.moveaxis(frames.data, 3, 1), frames.mask, config.rate, _flaw(frames.num_broken, frames.reason))


def _flaw(num_broken: int, reason: str | None) -> str | None:
    return f"{num_broken} packets could not be decoded: {reason}" if num_broken else None


def _read_features(path: Path, config: FeaturesInput, start_s: float, end_s: float) -> Raw:
    data, mask, rate = read_features(path)
    rate = config.rate or rate
    # The step that covers start_s is the first; 1e-6 steps keep 0.3 * 10 from becoming step 2.
    first, last = int(start_s * rate + 1e-6), int(np.ceil(end_s * rate - 1e-6))
    return Raw(data[first:last], mask[first:last], rate)


def layout(config: InputConfig, width: int | None = None, rate: float | None = None) -> Layout:
    """What a step of the input looks like; `width` and `rate` are for features, whose files know them."""
    if isinstance(config, FeaturesInput):
        return Layout((width or 1,), "float32", config.rate or rate)
    if isinstance(config, WaveformInput):
        return Layout((), "float32", float(config.sample_rate_hz))
    return Layout((3, config.size_px, config.size_px), "uint8", config.rate)


@dataclass(frozen=True)
class MediaReader:
    """A `ClipReader` that reads the files themselves, every time.

    `locate` turns a path of `Clip.media` into one that can be opened; `widths` are those of the feature inputs.
    """

    inputs: Mapping[str, InputConfig]
    max_duration_s: float
    locate: Callable[[str], Path] = Path
    widths: Mapping[str, int] = field(default_factory=dict)

    @property
    def layouts(self) -> dict[str, Layout]:
        return {name: layout(config, self.widths.get(name)) for name, config in self.inputs.items()}

    def load(self, clip: Clip) -> dict[str, Raw]:
        """The inputs that the clip has. Raises InputError naming the file when one of them cannot be read."""
        start_s, end_s = window(clip, self.max_duration_s)
        found: dict[str, Raw] = {}
        for name, config in self.inputs.items():
            media = clip.media.get(config.source or name)
            raw = None if media is None else read_raw(self.locate(media), config, start_s, end_s)
            if raw is not None:
                found[name] = replace(raw, data=np.ascontiguousarray(raw.data))
        return found
