"""What a person asks of a prediction on the command line, made into what `predict_files` takes."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from mmfusion.data.windows import WindowsConfig
from mmfusion.heads.caption import CaptionConfig
from mmfusion.heads.labels import LabelsConfig
from mmfusion.predict import Asked
from mmfusion.report.grounding import Grounder
from mmfusion.training.run import Run
from mmfusion.types import InputError


def asked_for(run: Run, given: Namespace) -> Asked:
    """From `files`, `features`, `window`, `hop`, `aggregate`, `events`, `srt`, `vtt`, `ground`, `rerank`, `tagger`,
    `ontology`.

    Windows are those of the run's evaluation, or as long as the training's clips (`data.max_duration_s`), unless a
    length above 0 is given. InputError names the option that cannot be met.
    """
    features = dict(_feature(text) for text in given.features)
    subtitled = given.srt or given.vtt
    checks = given.ground or given.rerank
    option = "--srt or --vtt" if subtitled else "--ground or --rerank"
    heads = run.config.model.heads.values()
    if not given.files and not features:
        raise InputError("give a FILE, or --features NAME=FILE.npz")
    if (subtitled or checks) and not any(isinstance(head, CaptionConfig) for head in heads):
        raise InputError(f"{option}: {run.folder} has no caption head")
    if given.events and not any(isinstance(head, LabelsConfig) and head.per_second for head in heads):
        raise InputError(f"--events: {run.folder} has no label head with per_second")
    if subtitled and len(given.files) > 1:
        raise InputError("--srt and --vtt: subtitles are those of one file, give one FILE")
    if subtitled and given.hop is not None:
        raise InputError("--srt and --vtt: subtitles cannot overlap, leave --hop out")
    if (given.tagger or given.ontology) and not checks:
        raise InputError("--tagger and --ontology: are for --ground and --rerank")
    windows = _windows(run, given, always=bool(subtitled or given.events))
    grounder = Grounder(run, Run.open(given.tagger) if given.tagger else None, given.ontology) if checks else None
    if given.rerank and grounder is not None and not grounder.tuned:
        raise InputError(f"--rerank: its weight is not tuned for these weights: run tools/ground.py {run.folder} first")
    if windows is None:
        return Asked(features=features, checker=grounder, rerank=given.rerank)
    return Asked(windows.length_s, windows.hop_s, windows.aggregate, features, grounder, given.rerank)


def _windows(run: Run, given: Namespace, always: bool) -> WindowsConfig | None:
    """The windows that are asked for: those of the run with what is given instead; None for a file's beginning."""
    own = run.config.windows
    if given.window is not None and given.window < 0:
        raise InputError(f"--window: must not be negative, got {given.window:g}")
    if not always and own is None and given.window is None and given.hop is None and given.aggregate is None:
        return None
    length_s = given.window or (own.length_s if own else run.config.data.max_duration_s)
    hop_s = given.hop if given.hop is not None or given.window or own is None else own.hop_s
    if hop_s is not None and not 0 < hop_s <= length_s:
        raise InputError(f"--hop: must be above 0 and at most the window's {length_s:g} s, got {hop_s:g}")
    return WindowsConfig(length_s=length_s, hop_s=hop_s, aggregate=given.aggregate or (own.aggregate if own else "max"))


def _feature(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise InputError(f"--features: {text!r} is not of the form NAME=FILE.npz")
    return name, Path(path)
