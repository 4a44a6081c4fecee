"""The data set that the project makes itself: drawn and sounded events in real media files (H.264 and AAC in mp4).

`docs/synthetic.md` says what is in it. Parts: `scenes/plan.py` decides what happens, `scenes/draw.py` and
`scenes/sound.py` render it, `scenes/grammar.py` tells it, `scenes/oracle.py` says what one modality can know.
"""

from __future__ import annotations

import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mmfusion.config import to_tree
from mmfusion.data.claim import claim
from mmfusion.data.manifest import write_manifest
from mmfusion.data.media import write_clip
from mmfusion.data.scenes.draw import draw_frames
from mmfusion.data.scenes.grammar import make_captions
from mmfusion.data.scenes.plan import SPLITS, ScenePlan, SyntheticConfig, check_settings, plan_split
from mmfusion.data.scenes.sound import make_sound
from mmfusion.types import Clip, InputError, Source

__all__ = ["SyntheticConfig", "make_synthetic"]

# Counts up when the same settings no longer give the same files.
RECIPE = 1


def make_synthetic(out: Path, config: SyntheticConfig, workers: int, progress: bool = True) -> Path:
    """Makes the data set in the folder `out` and returns the path of its `manifest.jsonl`.

    Clips that are there from an earlier call are kept, so that an interrupted call is taken up again; the manifest is
    written last. The files are the same for any number of `workers` (processes; below 2, everything runs in this one).
    Raises InputError for settings that cannot be met, for a folder that holds a set made with other settings, and when
    a file cannot be written.
    """
    check_settings(config)
    out = Path(out)
    plans = [plan for split in SPLITS for plan in plan_split(config, split)]
    if not plans:
        raise InputError("synthetic: train_clips, val_clips and test_clips must not all be 0")
    try:
        for split in {plan.split for plan in plans}:
            (out / "clips" / split).mkdir(parents=True, exist_ok=True)
        claim(out, {"recipe": RECIPE, **to_tree(config)}, "a synthetic set")
        missing = [plan for plan in plans if not (out / _media_of(plan)).exists()]
        with tqdm(
            total=len(plans),
            initial=len(plans) - len(missing),
            desc="synthetic clips",
            unit="clip",
            disable=not progress,
        ) as bar:
            _render_all(missing, out, config, workers, bar)
        manifest = out / "manifest.jsonl"
        write_manifest(manifest, [describe_clip(plan, config) for plan in plans])
    except OSError as error:
        raise InputError(f"{error.filename or out}: cannot be written: {error.strerror or error}") from error
    return manifest


def _render_all(plans: list[ScenePlan], out: Path, config: SyntheticConfig, workers: int, bar: tqdm) -> None:
    if workers < 2 or len(plans) < 2:
        for plan in plans:
            render_clip(plan, out, config)
            bar.update()
        return
    # A fresh interpreter for each process: to fork one that has threads (torch's) may hang it.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(plans)), context, initializer=_leave_interrupts_to_parent)
    try:
        num_plans = len(plans)
        for _ in pool.map(render_clip, plans, [out] * num_plans, [config] * num_plans, chunksize=4):
            bar.update()
    except BrokenProcessPool as error:
        raise InputError(f"{out}: a process that made clips was ended from outside; run the same again") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def render_clip(plan: ScenePlan, out: Path, config: SyntheticConfig) -> None:
    """Draws and sounds one clip and writes its file, which appears whole or not at all."""
    path = out / _media_of(plan)
    write_clip(path, draw_frames(plan, config), config.frame_rate, make_sound(plan, config), config.sample_rate_hz)


def _media_of(plan: ScenePlan) -> str:
    return f"clips/{plan.split}/{plan.id}.mp4"


def describe_clip(plan: ScenePlan, config: SyntheticConfig) -> Clip:
    """The manifest line of a clip: labels, captions and events as planned."""
    media = _media_of(plan)
    rng = np.random.default_rng((*plan.seed, 3))
    return Clip(
        id=plan.id,
        media={"audio": media, "video": media},
        split=plan.split,
        group=plan.group,
        end_s=config.duration_s,
        labels=tuple(sorted(event.label for event in plan.events)),
        captions=make_captions(plan.events, [event.colour for event in plan.events], config.captions_per_clip, rng),
        sources=tuple(Source(e.label, e.start_s, e.end_s, seen=e.seen, heard=e.heard) for e in plan.events),
    )
