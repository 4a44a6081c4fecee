"""What mixtures are made of: clips in which one class sounds, or whole recordings, and where something is heard.

A `Sound` knows the power of each of its frames of 20 ms as a running sum, so what a part of it holds is two look-ups.
A frame is active when its power is within `floor_db` of the loudest frame's and above `SILENCE_DB` of full scale.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import numpy as np

from mmfusion.data.manifest import Manifest
from mmfusion.types import Clip, InputError, Source, did_you_mean

FRAMES_A_SECOND = 50
SILENCE_DB = -70.0

LeftOut = dict[str, list[str]]
"""Reason -> ids of the clips that cannot be a source for it."""


@dataclass(frozen=True, eq=False)
class Sound:
    """A clip as it can be cut: `frame` samples a frame, and running sums over its frames.

    `active` and `energy` (frames + 1,) count active frames and add up squared samples before each frame. The last
    frame may be shorter than the others.
    """

    clip: Clip
    num_samples: int
    frame: int
    active: np.ndarray
    energy: np.ndarray

    @property
    def label(self) -> str:
        """The class that sounds, of a clip that has exactly one."""
        return label_of(self.clip)

    def length_in(self, room: int) -> int:
        """How many samples are taken where there is room for `room`: all of them, or a whole number of frames."""
        return self.num_samples if self.num_samples <= room else room // self.frame * self.frame

    def starts(self, length: int, min_active: float) -> np.ndarray:
        """The frames at which a crop of `length` samples may begin: a share of `min_active` of its frames is active."""
        width = -(-length // self.frame)
        num = (self.num_samples - length) // self.frame + 1
        count = self.active[width : width + num] - self.active[:num]
        return np.flatnonzero(count >= max(1.0, min_active * width))

    def energy_of(self, start: int, length: int) -> float:
        """The sum of squares of a crop that begins at a frame and is `length_in` some room long."""
        first = start // self.frame
        return float(self.energy[first - (-length // self.frame)] - self.energy[first])


def listen(clip: Clip, data: np.ndarray, rate: float, floor_db: float) -> Sound:
    """The sound of a clip from its samples (N,) float32 at `rate` a second."""
    frame = max(1, round(rate / FRAMES_A_SECOND))
    firsts = np.arange(0, len(data), frame)
    energies = np.add.reduceat(np.square(data, dtype=np.float64), firsts)
    powers = energies / np.minimum(frame, len(data) - firsts)
    least = max(powers.max() * 10 ** (-floor_db / 10), 10 ** (SILENCE_DB / 10))
    active, energy = (np.concatenate(([0], np.cumsum(each))) for each in (powers > least, energies))
    return Sound(clip, len(data), frame, active, energy)


def sound_manifest(manifest: Manifest, classes: Collection[str] = (), key: str = "audio") -> tuple[Manifest, LeftOut]:
    """The clips in which exactly one class sounds, and those that cannot be a source, by reason.

    Each isolated sound (`Source.media`, on the clip's clock) is a clip of its own, with the clip's pictures if its
    source is seen in them. Without any, a clip is taken when its labels name one class, or its sources say that one
    alone is heard, and is cut to the times in which it is. The new clips have one label, and `key` in their media.
    `classes` keeps those alone. InputError when one of them is in no clip, and when nothing is left.
    """
    known = manifest.label_names()
    for name in classes:
        if name not in known:
            hint = did_you_mean(name, known)
            raise InputError(f"{manifest.path}: selected_classes: {name!r} is a label of no clip{hint}")
    left_out: LeftOut = {}
    sounds = []
    for clip in manifest.clips:
        reason = _reason_against(clip, key)
        if reason:
            left_out.setdefault(reason, []).append(clip.id)
        else:
            sounds += [sound for sound in _sounds(clip, key) if not classes or label_of(sound) in classes]
    if not sounds:
        reasons = "; ".join(f"{len(ids)} {reason}" for reason, ids in left_out.items())
        raise InputError(f"{manifest.path}: no clip can be a source of a mixture ({reasons or 'no class is left'})")
    return Manifest(manifest.path, tuple(sounds)), left_out


def recording_manifest(manifest: Manifest, key: str = "audio") -> tuple[Manifest, LeftOut]:
    """The clips that have `key` in their media, as they are, whatever is heard in them; and the others, by reason.

    InputError when there are none.
    """
    left_out = {f"clips have no media.{key}": [clip.id for clip in manifest.clips if key not in clip.media]}
    recordings = tuple(clip for clip in manifest.clips if key in clip.media)
    if not recordings:
        raise InputError(f"{manifest.path}: no clip can be a source of a mixture: none has media.{key}")
    return Manifest(manifest.path, recordings), {reason: ids for reason, ids in left_out.items() if ids}


def in_words(left_out: LeftOut, num_named: int = 3) -> list[str]:
    """One line a reason, with the first few ids."""
    return [
        f"{len(ids)} {reason}: {', '.join(ids[:num_named])}{', ...' if len(ids) > num_named else ''}"
        for reason, ids in left_out.items()
    ]


def _reason_against(clip: Clip, key: str) -> str | None:
    """Why a clip cannot be a source; None when it can."""
    if _isolated(clip):
        return None
    if key not in clip.media:
        return f"clips have no media.{key}"
    audible = _audible(clip)
    if len(audible) > 1:
        return "clips have sounds of several classes, and no isolated sounds"
    return None if audible else "clips have no class that is heard"


def _isolated(clip: Clip) -> list[Source]:
    return [source for source in clip.sources if source.media is not None and source.heard]


def _audible(clip: Clip) -> set[str]:
    """The classes that may be heard: labels, less those whose sources all say that they are not."""
    heard = {source.label for source in clip.sources if source.heard}
    return heard | (set(clip.labels or ()) - {source.label for source in clip.sources})


def _sounds(clip: Clip, key: str) -> Iterator[Clip]:
    isolated = _isolated(clip)
    for number, source in enumerate(isolated):
        media = {**(clip.media if source.seen else {}), key: source.media}
        yield _cut(clip, [source], source.label, id=f"{clip.id}/{number}", media=media)
    if not isolated:
        (label,) = _audible(clip)
        yield _cut(clip, [source for source in clip.sources if source.heard], label)


def _cut(clip: Clip, heard: list[Source], label: str, **changes: object) -> Clip:
    """The clip as one of a single class, from where the first of its sources begins to where the last one ends."""
    plain = replace(clip, labels=(label,), relevances=None, captions=(), sources=(), **changes)  # type: ignore[arg-type]
    if not heard:
        return plain
    start_s = clip.start_s + max(0.0, min(source.start_s for source in heard))
    end_s = clip.start_s + max(source.end_s for source in heard)
    end_s = end_s if clip.end_s is None else min(end_s, clip.end_s)
    return replace(plain, start_s=start_s, end_s=end_s) if start_s < end_s else plain


def label_of(clip: Clip) -> str:
    """The class of a clip that has exactly one."""
    assert clip.labels is not None
    return clip.labels[0]
