"""No sound is in two splits, whatever the manifest calls it: the same file, or another file with the same bytes."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from mmfusion.data.contents import Contents
from mmfusion.data.manifest import Manifest
from mmfusion.types import Clip, InputError


def check_sounds(sounds: Manifest, cache: str | Path, key: str = "audio", unused: Collection[str] = ()) -> None:
    """InputError when a sound file is in two splits, under one name or two; it names the file and both splits.

    Only files that have the size of one in another split are read, and the folder `cache` remembers what was in them.
    Clips whose ids are in `unused` do not count: they are no source of any mixture.
    """
    first: dict[Path, Clip] = {}
    for clip in sounds.clips:
        if clip.id not in unused:
            path = _resolved(sounds, clip, key)
            _compare(sounds, first.setdefault(path, clip), clip, f"{path} is")
    by_size: dict[int, list[Path]] = {}
    for path in first:
        with suppress(OSError):  # what cannot be read is no source
            by_size.setdefault(os.stat(path).st_size, []).append(path)
    by_size.pop(0, None)
    doubtful = [path for paths in by_size.values() if len({first[path].split for path in paths}) > 1 for path in paths]
    hashes, _ = Contents(Path(cache) / "contents.json").hash(doubtful, 2, progress=False)
    same: dict[str, Path] = {}
    for path, digest in hashes.items():
        before = same.setdefault(digest, path)
        _compare(sounds, first[before], first[path], f"{before} and {path} are the same sound and")


def _resolved(sounds: Manifest, clip: Clip, key: str) -> Path:
    path = sounds.resolve(clip, key)
    assert path is not None  # a clip of sounds has one
    return Path(os.path.realpath(path))


def _compare(sounds: Manifest, one: Clip, other: Clip, what: str) -> None:
    if one.split != other.split:
        raise InputError(f"{sounds.path}: media: {what} in two splits: {one.split!r} (clip {one.id!r}) and "
                         f"{other.split!r} (clip {other.id!r})")  # fmt: skip
