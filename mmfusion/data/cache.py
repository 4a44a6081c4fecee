"""The cache: every input of every clip decoded once, and read many times without a decoder.

An entry is found by what decides it and nothing else: the bytes of the media file, how and from when to when it is
read, and the version of this format. So runs, manifests and data sets with the same settings share it, and a file that
changes is read again. Sound is kept as float32 samples: they come back exactly as the decoder gave them, so that a
model sees the same numbers in evaluation as in prediction from the file itself.

    <root>/contents.json    hashes of media files by path, size and modification time
    <root>/shards/          the decoded inputs (see shards.py)
    <root>/scaling/         means and deviations of features (see scaling.py)

Everything in it can be deleted at any time when nothing runs; it is made again.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmfusion.data.building import ITS_FILE, build_shards
from mmfusion.data.clips import ClipCache
from mmfusion.data.inputs import DataConfig
from mmfusion.data.manifest import Manifest
from mmfusion.data.parts import remove_leftovers
from mmfusion.data.shards import Absent, Entry, Failed, Stored, read_index
from mmfusion.data.wanted import Wanted, jobs_for, list_wanted
from mmfusion.types import InputError

__all__ = ["CacheReport", "ClipCache", "Failure", "build_cache", "cannot_write"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Failure:
    """An input of a clip that could not be read, or not to its end."""

    clip_id: str
    input: str
    path: str
    reason: str


@dataclass(frozen=True)
class CacheReport:
    """What a build found.

    `num_read` inputs were read now and `num_reused` were there before; `absent` counts, for each input, the clips that
    have none; `failures` names every input that could not be read, `flaws` those of which only a part could;
    `unusable` are the clips of which nothing could.
    """

    num_clips: int
    num_read: int
    num_reused: int
    absent: Mapping[str, int]
    failures: tuple[Failure, ...]
    flaws: tuple[Failure, ...]
    unusable: tuple[str, ...]
    num_damaged: int = 0
    wanted: Sequence[Wanted] = field(default=(), repr=False, compare=False)
    """what the manifest asks for, for a `ClipCache` that need not list it again"""

    def by_reason(self) -> dict[str, int]:
        """Failures counted by their reason, without the file's name, the most frequent first."""
        reasons = Counter(failure.reason.replace(failure.path, "").strip(": ") for failure in self.failures)
        return dict(reasons.most_common())

    def lines(self) -> list[str]:
        """The report in words, one line each; the first is the summary."""
        first = f"{self.num_clips} clips: {self.num_read} inputs read, {self.num_reused} from the cache"
        lines = [first + f", {len(self.failures)} could not be read, {len(self.unusable)} clips unusable"]
        lines += [f"{count} clips have no {name}" for name, count in self.absent.items() if count]
        lines += [f"{count} inputs: {reason}" for reason, count in self.by_reason().items()]
        lines += [f"clip {failure.clip_id}, {failure.input}: {failure.reason}" for failure in self.failures]
        lines += [f"clip {flaw.clip_id}, {flaw.input}: {flaw.path}: read in part: {flaw.reason}" for flaw in self.flaws]
        lines += [f"clip {clip_id}: unusable, none of its inputs could be read" for clip_id in self.unusable]
        if self.num_damaged:
            lines.append(f"{self.num_damaged} damaged parts of the cache were made again")
        return lines


def build_cache(manifest: Manifest, config: DataConfig, progress: bool = True) -> CacheReport:
    """Decodes what is not in the cache yet, with `config.cache_workers` processes, and reports what it found.

    What could not be read before is reported again without being read again, unless its file or the decoder's version
    has changed or `config.retry_failed` is set; troubles that may pass (an I/O error) are tried again each time. May be
    killed at any moment and run again; may run beside another build.
    Raises InputError when the cache cannot be written; what was decoded until then is kept.
    """
    root = Path(config.cache)
    shards = root / "shards"
    try:
        remove_leftovers(root)
        remove_leftovers(shards)
        wanted = list_wanted(manifest, config, progress)
        index, num_damaged = read_index(shards)
        jobs = jobs_for(wanted, config, index)
        if jobs:
            build_shards(jobs, shards, config.cache_workers, progress)
            index, _ = read_index(shards)
    except OSError as error:
        raise cannot_write(root, error) from error
    return _report(wanted, index, {job.key for job in jobs}, num_damaged)


def _report(wanted: Sequence[Wanted], index: Mapping[str, Entry], read: set[str], num_damaged: int) -> CacheReport:
    failures: list[Failure] = []
    flaws: list[Failure] = []
    absent: Counter[str] = Counter()
    usable: dict[str, bool] = {}
    for want in wanted:
        entry = index.get(want.key) if want.key else None
        usable[want.clip_id] = usable.get(want.clip_id, False) or isinstance(entry, Stored)
        reason = _trouble(want, entry)
        if reason is not None:
            failures.append(Failure(want.clip_id, want.name, str(want.path), reason))
        elif not isinstance(entry, Stored):
            absent[want.name] += 1
        elif entry.flaw is not None:
            flaws.append(Failure(want.clip_id, want.name, str(want.path), entry.flaw))
    done = {want.key for want in wanted if want.key and isinstance(index.get(want.key), Stored | Absent)}
    return CacheReport(
        num_clips=len(usable),
        num_read=len(done & read),
        num_reused=len(done - read),
        absent=dict(absent),
        failures=tuple(failures),
        flaws=tuple(flaws),
        unusable=tuple(clip_id for clip_id, is_usable in usable.items() if not is_usable),
        num_damaged=num_damaged,
        wanted=wanted,
    )


def _trouble(want: Wanted, entry: Entry | None) -> str | None:
    if want.key is None:
        return None if want.trouble is None else f"{want.path}: {want.trouble}"
    return entry.reason.replace(ITS_FILE, str(want.path)) if isinstance(entry, Failed) else None


def cannot_write(root: Path, error: OSError) -> InputError:
    """What to tell the user when the cache's folder takes no more."""
    if error.errno in _FULL:
        return InputError(f"{root}: no room left for the cache; what was decoded is kept, make room and run again")
    return InputError(f"{root}: the cache cannot be written: {error.strerror or error}")
