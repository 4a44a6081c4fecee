"""How many mixtures a second one core makes on the fly, for `bench`, and whether that is the 1,000 it requires."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from mmfusion.config import validate
from mmfusion.data.cache import build_cache
from mmfusion.data.clips import ClipCache
from mmfusion.data.collate import Example, collate
from mmfusion.data.dataset import ClipDataset, gather_facts
from mmfusion.data.inputs import DataConfig
from mmfusion.data.manifest import read_manifest, write_manifest
from mmfusion.data.media import write_sound
from mmfusion.data.mixtures.clips import MixtureDataset, Mixtures
from mmfusion.types import Clip

NUM_SOURCES, DURATION_S, RATE_HZ = 3, 10.0, 16000
# Longer than a mixture, so that every source is a crop that fills all of it: the most work that there can be.
_CLASSES, _CLIPS_A_CLASS, _CLIP_S = 10, 4, 12.0
_ROUNDS, _A_ROUND, _A_BATCH = 7, 200, 8
PROMISED = 1000


def mixtures_lines() -> Iterator[str]:
    """Ten-second mixtures of three sources at 16 kHz as training examples, from sounds cached in memory.

    Drawing, the activity check, crops, levels and sum; then the same collated into batches.
    """
    what = f"mixtures of {NUM_SOURCES} sources, {DURATION_S:g} s at {RATE_HZ // 1000} kHz, with their sources"
    with tempfile.TemporaryDirectory() as folder:
        dataset = _dataset(Path(folder))
        alone = _rate(dataset, 1, lambda examples: None)
        together = _rate(dataset, _A_BATCH, collate)
    verdict = "pass" if alone >= PROMISED else "FAIL"
    yield f"{what}, activity checked: {alone:.0f} a second a core ({verdict}: at least {PROMISED})"
    yield f"the same, collated in batches of {_A_BATCH}: {together:.0f} a second a core"


def _rate(dataset: MixtureDataset, a_batch: int, use: Callable[[list[Example]], object]) -> float:
    """Examples a second of this process's own time, each batch of them used; the median over rounds."""
    rates = []
    for epoch in range(_ROUNDS + 1):
        dataset.set_epoch(epoch)
        began = time.process_time()
        for first in range(0, _A_ROUND, a_batch):
            use([dataset[index] for index in range(first, first + a_batch)])
        rates.append(_A_ROUND / (time.process_time() - began))
    return statistics.median(rates[1:])


def _dataset(folder: Path) -> MixtureDataset:
    rng = np.random.default_rng(0)
    clips = []
    for number in range(_CLASSES * _CLIPS_A_CLASS):
        write_sound(folder / f"{number}.wav", rng.uniform(-0.5, 0.5, round(_CLIP_S * RATE_HZ)), RATE_HZ)
        label = f"class {number % _CLASSES}"
        clips.append(Clip(str(number), {"audio": f"{number}.wav"}, "train", str(number), labels=(label,)))
    write_manifest(folder / "manifest.jsonl", clips)
    manifest = read_manifest(folder / "manifest.jsonl")
    mixture = {"num_sources": NUM_SOURCES, "duration_s": DURATION_S, "num_train": _A_ROUND}
    tree = {
        "manifest": str(manifest.path), "cache": str(folder / "cache"), "cache_workers": 0, "in_memory": True,
        "inputs": {"audio": {"kind": "waveform", "sample_rate_hz": RATE_HZ}}, "max_duration_s": _CLIP_S,
        "mixture": mixture,
    }  # fmt: skip
    data = validate(DataConfig, tree, "bench")
    build_cache(manifest, data, progress=False)
    cache = ClipCache(manifest, data)
    mixtures = Mixtures(manifest, cache, data, progress=False)
    facts = gather_facts(cache, manifest.label_names(), num_sources=data.num_sources)
    plain = ClipDataset(mixtures.manifest().clips, cache, facts, None, data, training=True)
    return MixtureDataset(plain, mixtures)
