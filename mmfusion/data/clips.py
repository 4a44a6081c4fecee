"""The clips of a manifest as they lie in the cache."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mmfusion.data import memory
from mmfusion.data.inputs import DataConfig, FeaturesInput, InputConfig
from mmfusion.data.manifest import Manifest
from mmfusion.data.raw import Layout, Raw
from mmfusion.data.reading import layout
from mmfusion.data.shards import Stored, read_index, read_stored
from mmfusion.data.wanted import Wanted, list_wanted
from mmfusion.types import Clip, InputError


class Place(NamedTuple):
    """The key of an input of a clip in the cache, and where it lies."""

    key: str
    entry: Stored


class ClipCache:
    """The decoded inputs of the clips of one manifest, as `build_cache` left them: a `ClipReader`.

    It holds places, not data, so it is cheap to hand to other processes. Raises InputError when the cache was not
    built for these clips and settings, and when the feature files of an input differ in width or rate. `wanted` is what
    `build_cache` reported for the same manifest and settings; without it the files are looked at anew.
    """

    def __init__(self, manifest: Manifest, config: DataConfig, wanted: Sequence[Wanted] = ()) -> None:
        self.manifest, self.root = manifest, Path(config.cache)
        self.inputs: dict[str, InputConfig] = dict(config.inputs)
        self.in_memory = config.in_memory
        self._places: Mapping[str, Mapping[str, Place]] = _find(manifest, config, self.root, wanted)
        self._layouts = {name: self._layout(name) for name in self.inputs}
        if self.in_memory:
            memory.make_room(place for own in self._places.values() for place in own.values())

    @property
    def layouts(self) -> dict[str, Layout]:
        """What a step of each input looks like."""
        return self._layouts

    def usable(self, clips: Iterable[Clip]) -> tuple[Clip, ...]:
        """The clips of which at least one input could be read, in order."""
        return tuple(clip for clip in clips if self._places.get(clip.id))

    def places(self, clips: Iterable[Clip], name: str) -> dict[str, Place]:
        """Where one input of the clips lies, by clip id, for those clips that have it."""
        return {clip.id: self._places[clip.id][name] for clip in clips if name in self._places[clip.id]}

    def load(self, clip: Clip) -> dict[str, Raw]:
        """The inputs of a clip of the manifest, without those that it does not have. The arrays are read-only."""
        return {name: self._read(place) for name, place in self._places[clip.id].items()}

    def load_input(self, clip: Clip, name: str) -> Raw | None:
        """One input of a clip of the manifest, None when it does not have it; read-only like those of `load`."""
        place = self._places[clip.id].get(name)
        return None if place is None else self._read(place)

    def _read(self, place: Place) -> Raw:
        return memory.load(*place) if self.in_memory else read_stored(place.entry)

    def with_features(self, name: str, config: FeaturesInput, places: Mapping[str, Place]) -> ClipCache:
        """This cache with one more input (or another in its place), which lies at `places`, by clip id."""
        other = copy.copy(self)
        other.inputs = {**self.inputs, name: config}
        other._places = {
            clip_id: {key: place for key, place in own.items() if key != name}
            | ({name: places[clip_id]} if clip_id in places else {})
            for clip_id, own in self._places.items()
        }
        other._layouts = {**self._layouts, name: other._layout(name)}
        return other

    def _layout(self, name: str) -> Layout:
        """What a step looks like; checks that all clips agree on the width and the rate of features."""
        config = self.inputs[name]
        owners = {clip_id: own[name].entry for clip_id, own in self._places.items() if name in own}
        if not isinstance(config, FeaturesInput) or not owners:
            return layout(config)
        first = next(iter(owners.values()))
        for clip_id, entry in owners.items():
            where = f"{self.manifest.path}: clip {clip_id!r}: {name}"
            if entry.shape[1] != first.shape[1]:
                raise InputError(f"{where} has {entry.shape[1]} features a step, other clips {first.shape[1]}")
            if abs(entry.rate - first.rate) > 1e-6 * first.rate:
                advice = f"data.inputs.{name}.rate reads all clips at one rate"
                raise InputError(f"{where} has {entry.rate:g} steps a second, other clips {first.rate:g}; {advice}")
        return layout(config, first.shape[1], first.rate)


def _find(manifest: Manifest, config: DataConfig, root: Path, wanted: Sequence[Wanted]
          ) -> dict[str, dict[str, Place]]:  # fmt: skip
    wanted = wanted or list_wanted(manifest, config, progress=False)
    index, _ = read_index(root / "shards")
    num_missing = sum(want.key is not None and want.key not in index for want in wanted)
    if num_missing:
        raise InputError(f"{root}: {num_missing} inputs of {manifest.path} are not in the cache yet: build it first")
    places: dict[str, dict[str, Place]] = {clip.id: {} for clip in manifest.clips}
    for want in wanted:
        entry = index[want.key] if want.key else None
        if want.key and isinstance(entry, Stored):
            places[want.clip_id][want.name] = Place(want.key, entry)
    return places
