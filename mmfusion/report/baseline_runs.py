"""Run folders of baselines: predictions, metrics and provenance as a trained and evaluated run leaves them.

There are no weights; provenance.json holds what the baseline is, and by which method it was made. One that says
captions has 0 parameters and 0 s of training, one that says labels has no parameters to count, and its training is the
reading and fitting of the training clips.
"""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np

from mmfusion.config import load
from mmfusion.data.clips import ClipCache
from mmfusion.data.inputs import FeaturesInput
from mmfusion.data.manifest import Manifest, check_groups, read_manifest
from mmfusion.evaluate import Row, in_float32, keep_scores, label_truth, truth
from mmfusion.heads.caption import CaptionConfig
from mmfusion.heads.labels import LabelsConfig
from mmfusion.report.baselines import constant_caption, human, nearest_neighbour_consensus
from mmfusion.report.classical import ClassicalTagger, method, sound_statistics
from mmfusion.report.comparison import NUM_NEIGHBOURS, Baseline, LabelBaseline, SeparationBaseline
from mmfusion.report.separation_baselines import separate_clips
from mmfusion.training.provenance import commit, hardware, versions
from mmfusion.training.run import Run, RunConfig
from mmfusion.training.setup import check_labels, in_whole, open_material
from mmfusion.training.thresholds import tune_rows
from mmfusion.types import Clip, InputError


def baseline_done(config: RunConfig, baseline: Baseline, split: str) -> bool:
    """True when the folder holds this baseline's figures by today's method on the manifest as it lies there now."""
    run = Run(config.folder, config)
    if not all((run.folder / name).exists() for name in ("config.yaml", "provenance.json")) or not run.scored(split):
        return False
    facts = run.read_json("provenance.json")
    if (facts.get("baseline"), facts.get("method")) != (dataclasses.asdict(baseline), _method(baseline)):
        return False
    if load(RunConfig, run.folder / "config.yaml") != config:
        return False
    return facts["manifest"] == read_manifest(config.data.manifest).file_hash()


def make_baseline(config: RunConfig, baseline: Baseline, split: str) -> Run:
    """Writes predictions.<split>.jsonl, provenance.json and metrics.<split>.json of a split whose cache is built.

    Classical classifiers hear what networks are evaluated on: with `windows`, clips whole, the training's too.

    Every caption head, every label head, or every separation head says the same kind of thing. InputError when the
    folder holds a trained run, when the training clips have nothing to learn from (for a human row: a clip of the split
    has too few captions), when an input is missing that the baseline reads, and when a group is in two splits.
    """
    run = Run.create(config)
    if run.weights.exists() or any(run.folder.glob("checkpoint-*")):
        raise InputError(f"{run.folder}: holds a trained run; give the row another name or delete the folder")
    if baseline.kind in get_args(SeparationBaseline):
        return _separate(run, baseline, split)
    manifest = read_manifest(config.data.manifest)
    check_groups(manifest.clips, config.data.legacy_split, str(manifest.path))
    cache = _cache(manifest, config, baseline, split)
    training, clips = (_readable(cache, name) for name in (config.data.train_split, split))
    facts, labels = _provenance(config, baseline, manifest), ()
    if baseline.kind in get_args(LabelBaseline):
        check_labels(run, manifest)
        labels = manifest.label_names()
        run.write_json("labels.json", list(labels))
        tuning = _readable(cache, config.data.validation_split) if config.tuned_heads else ()
        rows, seconds = _tag(baseline, config, cache, training, (*tuning, *clips), labels)
        tune_rows(run, rows[: len(tuning)], labels)
        rows = rows[len(tuning) :]
        facts |= {"num_parameters": None, "num_trained_parameters": None, "training_s": round(seconds, 3)}
    else:
        rows = _caption(baseline, config, cache, training, clips)
    run.write_json("provenance.json", facts)
    keep_scores(rows, run, split, clips, manifest, labels)
    return run


def _cache(manifest: Manifest, config: RunConfig, baseline: Baseline, split: str) -> ClipCache:
    if config.windows is None or baseline.kind not in get_args(LabelBaseline):
        return ClipCache(manifest, config.data)
    return ClipCache(*in_whole(manifest, heard_whole(config, split, baseline), config.data, config.windows))


def heard_whole(config: RunConfig, split: str, instead: object = None) -> list[str]:
    """The splits whose clips a run with `windows` decodes whole for its figures on `split`.

    Beside that one, where thresholds are tuned and where a classical classifier learns.
    """
    classical = isinstance(instead, Baseline) and instead.kind in get_args(LabelBaseline)
    wanted = [config.data.train_split] * classical + [config.data.validation_split] * bool(config.tuned_heads) + [split]
    return list(dict.fromkeys(wanted))


def _method(baseline: Baseline) -> dict[str, object] | None:
    """What beside its settings decides what a baseline says; None where the settings are all."""
    return method() if baseline.kind in get_args(LabelBaseline) else None


def _separate(run: Run, baseline: Baseline, split: str) -> Run:
    material = open_material(run, in_float32(), quiet=True)
    clips = material.clips(split)
    rows = separate_clips(baseline, material, clips, run.config)
    run.write_json("provenance.json", _provenance(run.config, baseline, material.manifest))
    keep_scores(rows, run, split, clips, material.manifest)
    return run


def _readable(cache: ClipCache, split: str) -> tuple[Clip, ...]:
    clips = cache.usable(cache.manifest.split(split))
    if not clips:
        raise InputError(f"{cache.manifest.path}: split {split!r} has no readable clip")
    return clips


def _tag(baseline: Baseline, config: RunConfig, cache: ClipCache, training: Sequence[Clip], clips: Sequence[Clip],
         labels: Sequence[str]) -> tuple[list[Row], float]:  # fmt: skip
    """What every label head says of each clip, and the seconds that went into learning it from the training clips."""
    begun = time.perf_counter()
    statistics = sound_statistics(cache, training)
    told, known = label_truth([{"truth": truth(clip)} for clip in training], labels)
    taggers: dict[str, ClassicalTagger] = {}
    for name, head in config.model.heads.items():
        if isinstance(head, LabelsConfig):
            taggers[name] = ClassicalTagger(baseline, head.target == "single", config.seed)
            taggers[name].fit(statistics, told, known)
    seconds = time.perf_counter() - begun
    heard = sound_statistics(cache, clips)
    said = {name: tagger.chances(heard).tolist() for name, tagger in taggers.items()}
    rows = [
        {"id": clip.id}
        | {name: dict(zip(labels, chances[place], strict=True)) for name, chances in said.items()}
        | {"truth": truth(clip)}
        for place, clip in enumerate(clips)
    ]
    return rows, seconds


def _caption(baseline: Baseline, config: RunConfig, cache: ClipCache, training: Sequence[Clip], clips: Sequence[Clip]
             ) -> list[Row]:  # fmt: skip
    heads = [name for name, head in config.model.heads.items() if isinstance(head, CaptionConfig)]
    said, references = _say(baseline, cache, training, clips, config.seed)
    return [
        {"id": clip.id, **dict.fromkeys(heads, said[clip.id])}
        | {"truth": {**truth(clip), "captions": list(references[clip.id])}}
        for clip in clips
    ]


def _say(baseline: Baseline, cache: ClipCache, training: Sequence[Clip], clips: Sequence[Clip], seed: int
         ) -> tuple[dict[str, str], Mapping[str, Sequence[str]]]:  # fmt: skip
    """What is said of each clip, and the references that it is scored against."""
    known, references = ({clip.id: clip.captions for clip in part} for part in (training, clips))
    if baseline.kind == "human":
        return human(references, seed)
    if baseline.kind == "constant":
        return constant_caption(references, known, baseline.says), references
    here, there = mean_features(cache, clips), mean_features(cache, training)
    return nearest_neighbour_consensus(here, there, known, baseline.neighbours or NUM_NEIGHBOURS), references


def mean_features(cache: ClipCache, clips: Sequence[Clip]) -> dict[str, np.ndarray]:
    """{clip: (F,)}: means over the real steps of every feature input, side by side; NaN for one that a clip lacks."""
    inputs = [name for name, config in cache.inputs.items() if isinstance(config, FeaturesInput)]
    if not inputs:
        raise InputError(f"{cache.manifest.path}: a nearest row compares features, and data.inputs has none")
    found = {}
    for clip in clips:
        raws = cache.load(clip)
        found[clip.id] = np.concatenate([
            raws[name].data[raws[name].mask].mean(axis=0, dtype=np.float64) if name in raws
            else np.full(cache.layouts[name].shape, np.nan)
            for name in inputs
        ])  # fmt: skip
    return found


def _provenance(config: RunConfig, baseline: Baseline, manifest: Manifest) -> dict[str, object]:
    return {
        "commit": commit(),
        "packages": versions(),
        "python": platform.python_version(),
        "manifest": manifest.file_hash(),
        "splits": {name: manifest.fingerprint(manifest.split(name)) for name in manifest.splits},
        "seed": config.seed,
        "hardware": hardware(),
        "baseline": dataclasses.asdict(baseline),
        "method": _method(baseline),
        "num_parameters": 0,
        "num_trained_parameters": 0,
        "training_s": 0.0,
    }
