"""From a manifest and its cache to the sounds of each split that mixtures are drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from mmfusion.config import validate
from mmfusion.data.cache import build_cache
from mmfusion.data.clips import ClipCache
from mmfusion.data.inputs import DataConfig
from mmfusion.data.manifest import Manifest
from mmfusion.data.mixtures.pool import LeftOut, listen, recording_manifest, sound_manifest
from mmfusion.data.mixtures.recipes import MixtureConfig, Part, Pool, make_pool

SOUND = "audio"
"""The input that mixtures are made of, and heard in."""
LONGEST_SOURCE_S = 300.0
"""Of a longer clip, mixtures that are files use this much from its start."""


@dataclass(frozen=True)
class Opened:
    """Decoded sounds; by clip id, why a sound could not be read, and what of one that could be is missing."""

    cache: ClipCache
    unread: Mapping[str, str]
    flaws: Mapping[str, str]


def open_sounds(sounds: Manifest, sample_rate_hz: int, folder: str, progress: bool, workers: int = 2) -> Opened:
    """The sounds of the clips, decoded into the cache in `folder`."""
    tree = {
        "manifest": str(sounds.path),
        "cache": folder,
        "cache_workers": workers,
        "inputs": {SOUND: {"kind": "waveform", "sample_rate_hz": sample_rate_hz}},
        "max_duration_s": LONGEST_SOURCE_S,
    }
    config = validate(DataConfig, tree, str(sounds.path))
    report = build_cache(sounds, config, progress)
    unread, flaws = ({one.clip_id: one.reason for one in found} for found in (report.failures, report.flaws))
    return Opened(ClipCache(sounds, config, report.wanted), unread, flaws)


def samples_of(cache: ClipCache, part: Part) -> np.ndarray:
    """The samples (N,) float32 of the clip of a part, which must have a sound."""
    raw = cache.load_input(part.clip, SOUND)
    assert raw is not None
    return raw.data


def decoded_manifest(manifest: Manifest, data: DataConfig) -> tuple[Manifest, LeftOut]:
    """The clips that a run decodes, and those left out: of the manifest, or, where it mixes, what can be a source."""
    if data.mixture is None:
        return manifest, {}
    key = data.inputs[SOUND].source or SOUND
    if data.mixture.sources == "recordings":
        return recording_manifest(manifest, key)
    return sound_manifest(manifest, data.mixture.selected_classes, key)


def gather_pools(sounds: Manifest, cache: ClipCache, config: MixtureConfig, splits: Sequence[str], progress: bool = True
                 ) -> tuple[dict[str, Pool], LeftOut]:  # fmt: skip
    """What mixtures of each split are drawn from, and the clips that cannot be a source, by reason.

    Listens to every clip of the splits once. InputError when a split has fewer classes (or recordings) than a mixture
    has sources.
    """
    rate = cache.layouts[SOUND].rate
    assert rate is not None
    pools: dict[str, Pool] = {}
    unread: list[str] = []
    quiet: list[str] = []
    for split in splits:
        heard = []
        clips = sounds.split(split)
        for clip in tqdm(clips, desc=f"listening to {split}", unit="clip", disable=not progress, delay=1, leave=False):
            raw = cache.load_input(clip, SOUND)
            if raw is None:
                unread.append(clip.id)
            else:
                heard.append(listen(clip, raw.data, rate, config.activity_floor_db))
        pools[split], silent = make_pool(split, heard, config, sounds.label_names(), round(rate), str(sounds.path))
        quiet += silent
    found = {"clips have no sound that can be read": unread, "clips are silent, or nowhere active for long": quiet}
    return pools, {reason: ids for reason, ids in found.items() if ids}
