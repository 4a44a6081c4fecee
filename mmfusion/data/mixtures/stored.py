"""Mixtures that lie in files beside their sources, as tools/mix.py writes them: clips like any others, and targets.

What a manifest says of such a clip: its sound is the sum of its `sources`, each of which has its isolated sound in
`media`, on the clock of the clip's sound and as long as that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from mmfusion.data.cache import CacheReport, build_cache
from mmfusion.data.clips import ClipCache
from mmfusion.data.collate import Example
from mmfusion.data.dataset import ClipDataset, DatasetOver
from mmfusion.data.inputs import DataConfig
from mmfusion.data.manifest import Manifest
from mmfusion.data.mixtures.gather import SOUND
from mmfusion.data.sampler import Turn
from mmfusion.types import Clip, InputError

LARGEST_REST = 0.01
"""power of what the sources leave of their mixture, relative to it, from which they are not its sources"""


class StoredSources:
    """The decoded sounds of the mixtures of a manifest (`mixtures`), and of their sources (`cache`)."""

    def __init__(self, mixtures: ClipCache, cache: ClipCache) -> None:
        self.mixtures, self.cache = mixtures, cache

    @property
    def left_out(self) -> dict[str, list[str]]:
        """The clips that cannot be used, by reason."""
        there = {clip.id for clip in self.complete(self.mixtures.manifest.clips)}
        lacking = [clip.id for clip in self.mixtures.manifest.clips if clip.id not in there]
        return {"mixtures, or a source of theirs, cannot be read": lacking} if lacking else {}

    def complete(self, clips: Iterable[Clip]) -> tuple[Clip, ...]:
        """The clips of which the sound and every source could be read, in order."""
        return tuple(clip for clip in clips if len(self.keys_of(clip)) == 1 + len(clip.sources))

    def keys_of(self, clip: Clip) -> list[str]:
        """What those of a clip's sounds that could be read are stored under: equal only for equal sounds."""
        own, sources = self.mixtures.places([clip], SOUND), self.cache.places(sources_of(clip), SOUND)
        return [place.key for place in (*own.values(), *sources.values())]

    def load(self, clip: Clip, mixture: np.ndarray) -> np.ndarray:
        """The sources (S, N) float32 of a complete clip, whose sound is `mixture` (N,). InputError when they do not
        sum to it."""
        raws = [self.cache.load_input(source, SOUND) for source in sources_of(clip)]
        sources = [raw.data for raw in raws if raw is not None]
        where = f"{self.cache.manifest.path}: clip {clip.id!r}: sources"
        for source, own in zip(clip.sources, sources, strict=True):
            if len(own) != len(mixture):
                raise InputError(f"{where}: {source.media} has {len(own)} samples, and the clip {len(mixture)}")
        found = np.stack(sources)
        rest = np.square(mixture - found.sum(axis=0), dtype=np.float64).sum()
        if rest > LARGEST_REST * np.square(mixture, dtype=np.float64).sum():
            raise InputError(f"{where}: they do not sum to the sound of the clip")
        return found


@dataclass(frozen=True)
class StoredManifest(Manifest):
    """A manifest whose clips are mixtures that lie in files."""

    stored: StoredSources

    def fingerprint(self, clips: Iterable[Clip]) -> str:
        """sha256 hex of the ids and of the sounds: with other settings, mixtures of other sounds have the same ids."""
        facts = [[clip.id, *self.stored.keys_of(clip)] for clip in clips]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


class StoredDataset(DatasetOver):
    """Examples as `plain` makes them, with the sources as targets."""

    def __init__(self, plain: ClipDataset, stored: StoredSources) -> None:
        super().__init__(plain)
        self.stored = stored

    def __getitem__(self, index: int | Turn) -> Example:
        example = self.plain[index]
        place = index.place if isinstance(index, Turn) else index
        clip = self.plain.clips[place]
        sources = self.stored.load(clip, example.inputs[SOUND].data)
        classes = self.plain.classes_of(clip, [source.label for source in clip.sources])
        return replace(example, sources=sources, source_mask=sources.any(axis=1), source_classes=classes)


def open_sources(mixtures: ClipCache, data: DataConfig, progress: bool = True) -> tuple[StoredSources, CacheReport]:
    """The sources of all clips of a manifest, decoded now where they were not before, and what was found.

    InputError when a clip does not have `data.stored_sources` sources with an isolated sound each.
    """
    manifest, way = mixtures.manifest, data.inputs[SOUND]
    clips = [source for clip in manifest.clips for source in _checked(manifest, clip, data.stored_sources)]
    key = way.source or SOUND
    sounds = Manifest(manifest.path, tuple(replace(clip, media={key: clip.media[SOUND]}) for clip in clips))
    config = replace(data, inputs={SOUND: way}, modality_dropout={})
    report = build_cache(sounds, config, progress)
    return StoredSources(mixtures, ClipCache(sounds, config, report.wanted)), report


def _checked(manifest: Manifest, clip: Clip, num: int) -> list[Clip]:
    having = [source for source in clip.sources if source.media]
    if len(having) != len(clip.sources) or len(having) != num:
        raise InputError(
            f"{manifest.path}: clip {clip.id!r}: sources: data.stored_sources is {num}, and this clip has "
            f"{len(clip.sources)} sources, {len(having)} of them with an isolated sound (media)"
        )
    return sources_of(clip)


def sources_of(clip: Clip) -> list[Clip]:
    """The isolated sounds of a mixture as clips, in order: the same stretch of time as the mixture's sound."""
    return [
        Clip(f"{clip.id} source {place}", {SOUND: source.media or ""}, clip.split, clip.group, clip.start_s, clip.end_s)
        for place, source in enumerate(clip.sources)
    ]
