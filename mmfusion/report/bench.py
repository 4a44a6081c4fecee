"""Speed, as ratios of two ways of doing the same thing, measured in turns in one process on this machine.

Every line is the median of several pairs, so that a machine whose speed drifts changes both sides alike.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mmfusion.config import validate
from mmfusion.data.cache import build_cache
from mmfusion.data.clips import ClipCache
from mmfusion.data.inputs import DataConfig
from mmfusion.data.manifest import read_manifest
from mmfusion.data.reading import MediaReader
from mmfusion.data.synthetic import SyntheticConfig, make_synthetic
from mmfusion.encoders.audio import SpectrogramCnnConfig
from mmfusion.encoders.build import build_steps
from mmfusion.encoders.video import FrameCnnConfig
from mmfusion.report.bench_captions import CAPTIONS, search_pair, training_pair
from mmfusion.report.bench_mixtures import mixtures_lines
from mmfusion.report.bench_separation import NUM_SOURCES, loss_pair
from mmfusion.types import Stream

PAIRS = 7


def bench() -> Iterator[str]:
    """One line a comparison: what, seconds of both sides, and how many times as fast the first is.

    The last two are no comparisons: mixtures a second on one core, and whether these are enough.
    """
    torch.manual_seed(0)
    yield from _cache_against_decoding()
    yield from _bfloat16()
    yield from _captions()
    yield _paired(*loss_pair(), f"separation loss over {NUM_SOURCES} sources against row by row")
    yield from mixtures_lines()


def _paired(ours: Callable[[], object], other: Callable[[], object], what: str) -> str:
    """Runs the two in turn and compares them pair by pair."""
    for run in (ours, other):
        run()
    pairs = [(_seconds(ours), _seconds(other)) for _ in range(PAIRS)]
    ratio = statistics.median(slow / fast for fast, slow in pairs)
    fast, slow = (statistics.median(side) for side in zip(*pairs, strict=True))
    return f"{what}: {fast * 1e3:.1f} ms against {slow * 1e3:.1f} ms, {ratio:.1f} times as fast"


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _cache_against_decoding() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        config = SyntheticConfig(train_clips=16, val_clips=0, test_clips=0)
        manifest = read_manifest(make_synthetic(Path(folder) / "set", config, workers=1, progress=False))
        inputs = {"audio": {"kind": "waveform"}, "video": {"kind": "frames", "rate": 4, "size_px": 64}}
        tree = {"manifest": str(manifest.path), "cache": f"{folder}/cache", "inputs": inputs, "cache_workers": 0}
        data = validate(DataConfig, tree, "bench")
        build_cache(manifest, data, progress=False)
        cache = ClipCache(manifest, data)
        files = MediaReader(data.inputs, data.max_duration_s, locate=lambda path: manifest.path.parent / path)

        def read(reader: ClipCache | MediaReader) -> None:
            for clip in manifest.clips:
                for raw in reader.load(clip).values():
                    np.array(raw.data)

        yield _paired(lambda: read(cache), lambda: read(files), "16 clips from the cache against decoding them")


def _bfloat16() -> Iterator[str]:
    """Forward and backward of 32 clips of 4 s through each of our own encoders, in bfloat16 and in float32."""
    sound = Stream(torch.randn(32, 64000) * 0.1, torch.ones(32, 64000, dtype=torch.bool), 16000.0)
    frames = torch.randint(0, 256, (32, 16, 3, 64, 64), dtype=torch.uint8)
    film = Stream(frames, torch.ones(32, 16, dtype=torch.bool), 4.0)
    for raw, settings in (
        (sound, SpectrogramCnnConfig()),
        (film, FrameCnnConfig()),
        (film, FrameCnnConfig(motion=True)),
    ):
        encoder = build_steps(settings, None).train()

        def update(half: bool, encoder: nn.Module = encoder, raw: Stream = raw) -> None:
            encoder.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                steps = encoder(raw)
            steps.data.float().square().mean().backward()

        motion = " with motion" if isinstance(settings, FrameCnnConfig) and settings.motion else ""
        what = f"{settings.kind}{motion}, 32 clips of 4 s, bfloat16 against float32"
        yield _paired(partial(update, True), partial(update, False), what)


def _captions() -> Iterator[str]:
    for half in (False, True):
        softmax = ", bfloat16 softmax" if half else ""
        what = f"S2VT update, {CAPTIONS} captions a clip{softmax}, against a loop over words"
        yield _paired(*training_pair(half), what)
    yield _paired(*search_pair(), "beam search over 32 clips at once against one by one")
