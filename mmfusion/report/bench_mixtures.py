"""How many mixtures a second one core makes on the fly, for `bench`."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from mmfusion.config import validate
from mmfusion.data.cache import build_cache
from mmfusion.data.clips import ClipCache
from mmfusion.data.dataset import ClipDataset, gather_facts
from mmfusion.data.inputs import DataConfig
from mmfusion.data.manifest import read_manifest, write_manifest
from mmfusion.data.media import write_sound
from mmfusion.data.mix_clips import MixtureDataset, Mixtures
from mmfusion.types import Clip

NUM_SOURCES, DURATION_S, RATE_HZ = 3, 10.0, 16000
# Longer than a mixture, so that every source is a crop that fills all of it: the most work that there can be.
_CLASSES, _CLIPS_A_CLASS, _CLIP_S = 10, 4, 12.0
_ROUNDS, _A_ROUND = 7, 200


def mixtures_line() -> str:
    """Ten-second mixtures of three sources at 16 kHz as training examples, from sounds cached in memory."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = _dataset(Path(folder))
        for index in range(_A_ROUND):
            dataset[index]
        rates = []
        for epoch in range(_ROUNDS):
            dataset.set_epoch(epoch)
            began = time.process_time()
            for index in range(_A_ROUND):
                dataset[index]
            rates.append(_A_ROUND / (time.process_time() - began))
    what = f"mixtures of {NUM_SOURCES} sources, {DURATION_S:g} s at {RATE_HZ // 1000} kHz, with their sources"
    return f"{what}: {statistics.median(rates):.0f} a second a core"


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
