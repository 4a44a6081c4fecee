"""What a manifest asks of the cache: one entry for each input of each clip, and the key under which it is stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmfusion.config import to_tree
from mmfusion.data.building import Job, reader_version
from mmfusion.data.contents import Contents
from mmfusion.data.inputs import DataConfig, InputConfig
from mmfusion.data.manifest import Manifest
from mmfusion.data.reading import window
from mmfusion.data.shards import Entry, Failed

FORMAT = 1
# Which file is read is in the key as its content; scaling is done when features are read from the cache.
_NOT_READING = ("source", "standardize", "clip_value")


@dataclass(frozen=True)
class Wanted:
    """One input of one clip. `key` is None when the clip has no such file, or when `trouble` says why it has no key."""

    clip_id: str
    name: str
    path: Path | None
    key: str | None
    start_s: float
    end_s: float
    trouble: str | None = None


def list_wanted(manifest: Manifest, config: DataConfig, progress: bool) -> list[Wanted]:
    """Every input of every clip, in the manifest's order. Hashes the files that were not seen before."""
    files = [
        (clip, name, manifest.resolve(clip, way.source or name))
        for clip in manifest.clips
        for name, way in config.inputs.items()
    ]
    contents = Contents(Path(config.cache) / "contents.json")
    present = (path for *_, path in files if path is not None)
    hashes, troubles = contents.hash(present, config.cache_workers, progress)
    settings = {name: reading_settings(way) for name, way in config.inputs.items()}
    wanted: list[Wanted] = []
    for clip, name, path in files:
        start_s, end_s = window(clip, config.max_duration_s)
        key = None if path not in hashes else entry_key(hashes[path], settings[name], start_s, end_s)
        wanted.append(Wanted(clip.id, name, path, key, start_s, end_s, troubles.get(path) if path else None))
    return wanted


def reading_settings(config: InputConfig) -> str:
    """The settings of an input that decide what is read, as text."""
    tree = {key: value for key, value in to_tree(config).items() if key not in _NOT_READING}
    if tree.get("true_frame_rate") is not None:
        tree["numbered"] = True  # stamps were once rescaled, which is something else where they are all alike
    return json.dumps(tree, sort_keys=True)


def entry_key(content: str, settings: str, start_s: float, end_s: float) -> str:
    """The key of an input: a hash of the file's content and of everything that decides what is read of it."""
    text = f"{FORMAT}\0{content}\0{settings}\0{start_s!r}\0{end_s!r}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def jobs_for(wanted: Sequence[Wanted], config: DataConfig, index: Mapping[str, Entry]) -> list[Job]:
    """What is still to be read: what is not in the cache, and what this version of the decoder has not tried."""
    jobs: dict[str, Job] = {}
    for want in wanted:
        if want.key is None or want.path is None:
            continue
        way, entry = config.inputs[want.name], index.get(want.key)
        tried_before = isinstance(entry, Failed) and entry.reader == reader_version(way) and not config.retry_failed
        if entry is None or (isinstance(entry, Failed) and not tried_before):
            jobs.setdefault(want.key, Job(want.key, want.path, way, want.start_s, want.end_s))
    return list(jobs.values())
