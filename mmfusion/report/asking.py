"""What a person asks of a prediction on the command line, made into what `predict_files` takes."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from mmfusion.heads.caption import CaptionConfig
from mmfusion.predict import Asked
from mmfusion.report.grounding import Grounder
from mmfusion.training.run import Run
from mmfusion.types import InputError


def asked_for(run: Run, given: Namespace) -> Asked:
    """From `files`, `features`, `window`, `srt`, `vtt`, `ground`, `rerank`, `tagger`, `ontology`.

    Windows are as long as the training's clips (`data.max_duration_s`) unless a length is given. InputError names the
    option that cannot be met.
    """
    features = dict(_feature(text) for text in given.features)
    subtitled = given.srt or given.vtt
    checks = given.ground or given.rerank
    option = "--srt or --vtt" if subtitled else "--ground or --rerank"
    if not given.files and not features:
        raise InputError("give a FILE, or --features NAME=FILE.npz")
    if (subtitled or checks) and not any(isinstance(head, CaptionConfig) for head in run.config.model.heads.values()):
        raise InputError(f"{option}: {run.folder} has no caption head")
    if subtitled and len(given.files) > 1:
        raise InputError("--srt and --vtt: subtitles are those of one file, give one FILE")
    if given.window is not None and given.window < 0:
        raise InputError(f"--window: must not be negative, got {given.window:g}")
    if (given.tagger or given.ontology) and not checks:
        raise InputError("--tagger and --ontology: are for --ground and --rerank")
    in_windows = subtitled or given.window is not None
    window_s = (given.window or run.config.data.max_duration_s) if in_windows else None
    grounder = Grounder(run, Run.open(given.tagger) if given.tagger else None, given.ontology) if checks else None
    if given.rerank and grounder is not None and not grounder.tuned:
        raise InputError(f"--rerank: its weight is not tuned for these weights: run tools/ground.py {run.folder} first")
    return Asked(window_s, features, grounder, given.rerank)


def _feature(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise InputError(f"--features: {text!r} is not of the form NAME=FILE.npz")
    return name, Path(path)
