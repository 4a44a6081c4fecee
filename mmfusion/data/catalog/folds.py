"""Official folds: one manifest a fold, in which that fold tests and the others train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from mmfusion.data.catalog.prepared import Prepared, media_path, write_set
from mmfusion.types import Clip, InputError

Validate = bool | Literal["before"]
"""which fold validates: none, the one after the test fold (after the last, the first), or the one before it"""


def write_folds(out: Path, folds: Mapping[int, Sequence[Clip]], validate: Validate,
                remarks: Mapping[str, Sequence[str]]) -> Prepared:  # fmt: skip
    """Writes `out/fold-<k>/manifest.jsonl` for every fold k; the clips' media are paths as they are found from here.

    Fold k tests, the one that `validate` says validates, the others train. Folds are never mixed. A group that the
    official folds cut is named in a remark and is a group a fold. InputError when there are fewer folds than two (with
    `validate`, three).
    """
    numbers = sorted(folds)
    in_folds: dict[str, set[int]] = {}
    for fold, clips in folds.items():
        for clip in clips:
            in_folds.setdefault(clip.group, set()).add(fold)
    cut = sorted(group for group, own in in_folds.items() if len(own) > 1)
    needed = 3 if validate else 2
    if len(numbers) < needed:
        raise InputError(f"{out}: {len(numbers)} folds hold a file, and {needed} are needed")
    step = -1 if validate == "before" else 1
    manifests = {}
    for place, test in enumerate(numbers):
        folder = out / f"fold-{test}"
        split_of = {test: "test"} | ({numbers[(place + step) % len(numbers)]: "val"} if validate else {})
        manifests[folder / "manifest.jsonl"] = [
            replace(
                clip,
                split=split_of.get(fold, "train"),
                group=f"{clip.group}, fold {fold}" if clip.group in cut else clip.group,
                media={name: media_path(Path(path), folder) for name, path in clip.media.items()},
            )
            for fold in numbers
            for clip in folds[fold]
        ]
    return write_set(manifests, {**remarks, "are in several of the official folds": cut})
