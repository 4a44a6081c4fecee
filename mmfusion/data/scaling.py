"""Features on one scale: each less its mean and divided by its standard deviation over the training split."""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from mmfusion.data.clips import ClipCache
from mmfusion.data.inputs import DataConfig, FeaturesInput
from mmfusion.data.parts import write_whole
from mmfusion.data.raw import Raw
from mmfusion.data.shards import read_stored
from mmfusion.types import Clip, InputError


@dataclass(frozen=True, eq=False)
class Scaling:
    """`mean` and `deviation` (F,) float32; a feature that never changes has the deviation 1."""

    mean: np.ndarray
    deviation: np.ndarray


def gather_scaling(cache: ClipCache, config: DataConfig) -> dict[str, Scaling]:
    """The scaling of every input that asks for it (`standardize`), from the clips of the training split.

    Computed once for a list of clips and kept in the cache. InputError when no training clip has the input.
    """
    wanted = [name for name, way in cache.inputs.items() if isinstance(way, FeaturesInput) and way.standardize]
    return {name: _remembered(cache, cache.manifest.split(config.train_split), name) for name in wanted}


def scale(raw: Raw, config: FeaturesInput, scaling: Scaling | None) -> Raw:
    """Features standardized and limited as the configuration says; steps under a False mask stay zeros."""
    data = raw.data
    if config.standardize:
        if scaling is None:
            raise ValueError("standardize needs the scaling of the training split")
        data = (data - scaling.mean) / scaling.deviation
    if config.clip_value is not None:
        data = np.clip(data, -config.clip_value, config.clip_value)
    return raw if data is raw.data else raw.with_data(np.where(raw.mask[:, None], data, np.float32(0)))


def _remembered(cache: ClipCache, clips: Iterable[Clip], name: str) -> Scaling:
    places = cache.places(clips, name)
    if not places:
        raise InputError(f"{cache.manifest.path}: data.inputs.{name}.standardize: no training clip has this input")
    key = hashlib.blake2b(
        "\n".join(sorted(place.key for place in places.values())).encode(), digest_size=16
    ).hexdigest()
    path = cache.root / "scaling" / f"{key}.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Scaling(arrays["mean"], arrays["deviation"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):  # not computed yet, or damaged
        scaling = measure(read_stored(place.entry) for place in places.values())
    content = io.BytesIO()
    np.savez(content, mean=scaling.mean, deviation=scaling.deviation)
    with suppress(OSError):  # nothing depends on its being kept
        write_whole(path, content.getvalue())
    return scaling


def measure(features: Iterable[Raw]) -> Scaling:
    """Mean and standard deviation of each feature over all real steps, in float64, in one pass."""
    count, mean, squares = 0, np.float64(0), np.float64(0)
    for raw in features:
        rows = raw.data[raw.mask].astype(np.float64)
        if len(rows) == 0:
            continue
        # Chan et al. 1979: sums of squares of parts, joined without cancellation.
        own = rows.mean(axis=0)
        change = own - mean
        squares = squares + np.square(rows - own).sum(axis=0) + change**2 * (count * len(rows) / (count + len(rows)))
        mean = mean + change * (len(rows) / (count + len(rows)))
        count += len(rows)
    deviation = np.sqrt(squares / max(count, 1))
    return Scaling(np.asarray(mean, np.float32), np.where(deviation > 1e-8, deviation, 1).astype(np.float32))
