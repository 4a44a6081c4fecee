"""What a frozen encoder makes of each clip, computed once, kept in the cache, and read as a `features` input.

An encoder whose weights do not change says the same of a clip in every epoch, as long as the clip is not augmented.
This module knows nothing of encoders: it is handed a function from a stream to a stream, and a text that names it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from tqdm import tqdm

from mmfusion.data.cache import cannot_write
from mmfusion.data.clips import ClipCache, Place
from mmfusion.data.collate import pad
from mmfusion.data.inputs import FeaturesInput
from mmfusion.data.raw import Layout, Raw
from mmfusion.data.shards import Absent, Entry, ShardWriter, Stored, read_index, read_stored
from mmfusion.types import Clip, Stream

Encode = Callable[[Stream], Stream]

_SHARD_S = 4.0


def cache_features(
    cache: ClipCache,
    clips: Iterable[Clip],
    name: str,
    encode: Encode,
    key: str,
    *,
    target: str | None = None,
    batch_size: int = 8,
    progress: bool = True,
) -> ClipCache:
    """A cache in which the input `target` (default: in place of `name`) is what `encode` makes of the input `name`.

    `encode` turns raw streams (B, T, ...) into steps (B, T', F) and is called without gradients, on the CPU's streams;
    it may compute elsewhere. `key` must name everything that decides its result: the encoder's settings and a hash of
    its weights. Clips that were done before, with this key, are not done again; an interruption loses a few seconds'
    work. Clips of similar length go together, `batch_size` at a time. InputError when the cache cannot be written.
    """
    folder = cache.root / "shards"
    places = cache.places(clips, name)
    keys = {clip_id: _feature_key(place.key, key) for clip_id, place in places.items()}
    index, _ = read_index(folder)
    missing = {keys[clip_id]: place.entry for clip_id, place in places.items() if keys[clip_id] not in index}
    if missing:
        try:
            _encode_all(missing, cache.layouts[name], encode, folder, batch_size, progress)
        except OSError as error:
            raise cannot_write(cache.root, error) from error
        index, _ = read_index(folder)
    return cache.with_features(target or name, FeaturesInput(), _found(keys, index))


def _found(keys: Mapping[str, str], index: Mapping[str, Entry]) -> dict[str, Place]:
    entries = {clip_id: (key, index[key]) for clip_id, key in keys.items()}
    return {clip_id: Place(key, entry) for clip_id, (key, entry) in entries.items() if isinstance(entry, Stored)}


def _feature_key(raw_key: str, key: str) -> str:
    return hashlib.blake2b(f"frozen\0{raw_key}\0{key}".encode(), digest_size=16).hexdigest()


def _encode_all(
    missing: Mapping[str, Stored], layout: Layout, encode: Encode, folder: Path, batch_size: int, progress: bool
) -> None:
    order = sorted(missing, key=lambda key: (missing[key].shape[0], key))
    with tqdm(total=len(order), desc="extracting features", unit="clip", disable=not progress, delay=0.5) as bar:
        while order:
            started = time.monotonic()
            with ShardWriter(folder) as shard:
                while order:
                    batch, order = order[:batch_size], order[batch_size:]
                    _encode_batch({key: missing[key] for key in batch}, layout, encode, shard)
                    bar.update(len(batch))
                    if time.monotonic() - started > _SHARD_S:
                        break
                shard.commit()


@torch.no_grad()
def _encode_batch(batch: Mapping[str, Stored], layout: Layout, encode: Encode, shard: ShardWriter) -> None:
    raws = [read_stored(entry) for entry in batch.values()]
    steps = encode(pad(raws, layout, layout.rate or raws[0].rate)).to("cpu")
    data, masks = steps.zeroed().float().numpy(), steps.mask.numpy()
    for key, features, mask in zip(batch, data, masks, strict=True):
        shard.put(key, Raw(features, mask, steps.rate).trimmed() if mask.any() else Absent())
