"""Decoded inputs kept in the memory of this process, shared by all runs in it, up to a bound.

When the bound is reached, what does not fit is read from the cache's files each time; nothing that is in use is dropped
for it, because an epoch that passes over everything would drop each input just before it is needed again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mmfusion.data.raw import Raw
from mmfusion.data.shards import Stored, read_stored

if TYPE_CHECKING:
    from mmfusion.data.clips import Place

BOUND_BYTES = 4 << 30


class _Store:
    def __init__(self) -> None:
        self.kept: dict[str, Raw] = {}
        self.num_bytes = 0

    def put(self, key: str, raw: Raw) -> None:
        size = raw.data.nbytes + raw.mask.nbytes
        if self.num_bytes + size <= BOUND_BYTES:
            self.kept[key] = raw
            self.num_bytes += size

    def drop(self, key: str) -> None:
        raw = self.kept.pop(key)
        self.num_bytes -= raw.data.nbytes + raw.mask.nbytes


_store = _Store()


def load(key: str, entry: Stored) -> Raw:
    """The stored input, from memory when it is there; the arrays are read-only because others share them."""
    raw = _store.kept.get(key)
    if raw is None:
        mapped = read_stored(entry)
        raw = mapped.with_data(mapped.data.copy())
        raw.data.flags.writeable = raw.mask.flags.writeable = False
        _store.put(key, raw)
    return raw


def make_room(places: Iterable[Place]) -> None:
    """Drops what belongs to other data sets when these places would not fit beside it."""
    wanted = {place.key: _size(place.entry) for place in places}
    if sum(size for key, size in wanted.items() if key not in _store.kept) + _store.num_bytes > BOUND_BYTES:
        for key in [key for key in _store.kept if key not in wanted]:
            _store.drop(key)


def _size(entry: Stored) -> int:
    import math

    import numpy as np

    return math.prod(entry.shape) * np.dtype(entry.dtype).itemsize + entry.shape[0]
