"""Shards: files that hold the decoded inputs of many clips, written once and never changed.

    the arrays, one after the other, each at a multiple of 64 bytes
    the index as JSON: {key: entry}
    its length (8 bytes, little endian) and 8 bytes that mark a complete shard

A shard is written under a temporary name and renamed when it is complete, so a process that is killed at any moment
leaves whole shards and at most one temporary file, which the next build removes. Nothing waits for the disk (no fsync):
after a loss of power a shard may be damaged, is then seen as such by its ends, removed, and built again.

Many clips share a file because opening a file costs more than reading a small clip.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from functools import cache, lru_cache
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmfusion.data.parts import open_part, write_all
from mmfusion.data.raw import Raw
from mmfusion.types import InputError

MARK = b"mmfshrd1"
_ALIGN = 64
_TAIL = struct.Struct("<Q8s")


class Stored(NamedTuple):
    """Where an array lies; `real` holds the runs [start, stop) of steps whose mask is True."""

    shard: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    real: tuple[tuple[int, int], ...]
    rate: float
    flaw: str | None = None


class Absent(NamedTuple):
    """The file was read and has no such input."""


class Failed(NamedTuple):
    """The file could not be read by `reader` (the decoder and its version)."""

    reason: str
    reader: str


Entry = Stored | Absent | Failed


class ShardWriter:
    """Collects entries in a temporary file; `commit` makes them a shard, all at once. Use it with `with`.

    Leaving the block without `commit` removes the temporary file. OSError (a full disk) goes to the caller.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index: dict[str, dict[str, Any]] = {}
        self._file: FileIO | None = None
        self._end = 0

    def __enter__(self) -> ShardWriter:
        self._file = open_part(self.folder)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._file is not None
        with suppress(FileNotFoundError):  # it has its final name
            os.unlink(self._file.name)
        self._file.close()

    @property
    def num_bytes(self) -> int:
        return self._end

    def put(self, key: str, item: Raw | Absent | Failed) -> None:
        """Stores one input of one clip, or that there is none, or why it could not be read.

        When there is no room for it (OSError), what was stored before can still be committed.
        """
        if isinstance(item, Raw):
            self._put_raw(key, item)
        else:
            self.index[key] = {type(item).__name__.lower(): item._asdict()}

    def _put_raw(self, key: str, raw: Raw) -> None:
        assert self._file is not None
        data = np.ascontiguousarray(raw.data)
        before = self._end
        try:
            self._write(memoryview(b"\0" * (-self._end % _ALIGN)))
            offset = self._end
            if data.size:
                self._write(data.data.cast("B"))
        except OSError:
            self._end = self._file.seek(before)
            self._file.truncate()
            raise
        self.index[key] = {
            "dtype": data.dtype.str,
            "shape": data.shape,
            "offset": offset,
            "real": runs(raw.mask),
            "rate": raw.rate,
        }
        if raw.flaw is not None:
            self.index[key]["flaw"] = raw.flaw

    def commit(self) -> Path:
        """Completes the shard and gives it its name."""
        assert self._file is not None
        text = json.dumps(self.index, separators=(",", ":")).encode()
        self._write(memoryview(text + _TAIL.pack(len(text), MARK)))
        # Names in the order of time: of two failures of one input, the later one counts.
        path = self.folder / f"{time.time_ns():020d}-{uuid.uuid4().hex[:12]}.shard"
        os.replace(self._file.name, path)
        return path

    def _write(self, data: memoryview) -> None:
        assert self._file is not None
        self._end += write_all(self._file, data)


def runs(mask: np.ndarray) -> list[list[int]]:
    """The runs [start, stop) of True in a mask (T,)."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return [[int(start), int(stop)] for start, stop in edges.reshape(-1, 2)]


def read_index(folder: Path) -> tuple[dict[str, Entry], int]:
    """Everything that the shards of a folder hold, by key, and the number of damaged shards, which are removed.

    Shards never change, so each is parsed once in a process.
    """
    found: dict[str, Entry] = {}
    num_damaged = 0
    for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
        if not name.endswith(".shard"):
            continue
        path = folder / name
        try:
            entries = _parse(str(path))
        except FileNotFoundError:  # removed since by another build, which found it damaged
            continue
        except ValueError:
            path.unlink(missing_ok=True)
            num_damaged += 1
            continue
        for key, entry in entries.items():
            # What could be read in one shard outweighs a failure in another, and a later failure an earlier one.
            if key not in found or isinstance(found[key], Failed):
                found[key] = entry
    return found, num_damaged


@cache
def _parse(path: str) -> Mapping[str, Entry]:
    """The index of one shard. ValueError when the shard is damaged."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL.size))
        tail = file.read()
        if len(tail) != _TAIL.size or (found := _TAIL.unpack(tail))[1] != MARK or found[0] > size - _TAIL.size:
            raise ValueError("no complete index")
        file.seek(size - _TAIL.size - found[0])
        index = json.loads(file.read(found[0]))
    return {key: _entry(path, fields) for key, fields in index.items()}


def _entry(path: str, fields: dict[str, Any]) -> Entry:
    if "absent" in fields:
        return Absent()
    if "failed" in fields:
        return Failed(**fields["failed"])
    real = tuple((start, stop) for start, stop in fields["real"])
    shape, offset, rate = tuple(fields["shape"]), fields["offset"], fields["rate"]
    return Stored(path, fields["dtype"], shape, offset, real, rate, fields.get("flaw"))


def read_stored(entry: Stored) -> Raw:
    """The stored input; its data is a read-only view of the mapped file, its mask an array of its own."""
    data = np.ndarray(entry.shape, entry.dtype, buffer=_mapped(entry.shard), offset=entry.offset)
    mask = np.zeros(entry.shape[0], dtype=bool)
    for start, stop in entry.real:
        mask[start:stop] = True
    return Raw(data, mask, entry.rate, entry.flaw)


# Each mapping holds a file descriptor, of which a process has about a thousand.
@lru_cache(maxsize=256)
def _mapped(path: str) -> mmap.mmap:
    try:
        with open(path, "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise InputError(f"{path}: a part of the cache cannot be read: {error.strerror}") from error
