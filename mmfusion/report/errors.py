"""The folder of an error analysis: where a label head errs, and the hardest clips to listen to.

    index.html                          all of it, with players and spectrograms
    classes.csv  clips.csv              figures of each class; loss, gradient norm, truth and decision of each clip
    <matrix>.csv  <matrix>_shares.csv   counts of clips, and the same divided by the clips of a row
    sounds/  pictures/                  the hardest clips
    label_studio_<kind>.json  .xml      the hardest clips as tasks for Label Studio, and the interface that they need

Running it again writes the same files again; sounds of clips that are no longer among the hardest stay.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mmfusion.report.confusion import Confusion
from mmfusion.report.errors_page import write_errors_page
from mmfusion.report.findings import Findings, find_errors
from mmfusion.report.hard_media import Media, write_media
from mmfusion.report.hardest import Judged, hardest
from mmfusion.report.label_studio import Kind, as_task, labeling_config
from mmfusion.training.run import Run
from mmfusion.types import InputError

CLASS_FIGURES = ("num_positives", "num_known", "precision", "recall", "f1", "average_precision")
KINDS: tuple[Kind, ...] = ("audio", "image")


def analyse_errors(run: Run, split: str, out: Path, *, head: str | None = None, number: int = 20,
                   gradients: bool = True, url: str | None = None, quiet: bool = True) -> Findings:  # fmt: skip
    """Writes the folder `out` about a label head on a split that was predicted, and returns what was found.

    `number` clips are shown by highest loss, and as many by largest gradient norm, for which the model runs once more.
    `url` is where Label Studio finds the folder; None is its own serving of local files, from the folder above `out`.
    InputError as `find_errors`.
    """
    if number < 1:
        raise InputError(f"--number: must be at least 1, got {number}")
    found = find_errors(run, split, head, gradients, quiet)
    columns = [*CLASS_FIGURES, *(["threshold"] if found.tuned else [])]
    rows = [[name, *(own[key] for key in columns)] for name, own in found.figures["per_class"].items()]
    _write_csv(out / "classes.csv", ["class", *columns], rows)
    everyone, _ = hardest(found.clips, len(found.clips))
    rows = [[one.clip, one.loss, one.gradient, "; ".join(one.true), "; ".join(one.said)] for one in everyone]
    _write_csv(out / "clips.csv", ["clip", "loss", "gradient_norm", "truth", "said"], rows)
    for matrix in found.matrices:
        _write_matrix(matrix, out)
    rankings = hardest(found.clips, number)
    shown = list({one.clip: one for ranking in rankings for one in ranking}.values())
    media = write_media(run, [one.clip for one in shown], out)
    base = url.rstrip("/") if url else f"/data/local-files/?d={quote(out.resolve().name)}"
    files = _write_tasks(found, shown, media, base, f"{run.config.name}/seed{run.config.seed}", out)
    write_errors_page(run, split, found, rankings, media, files, out / "index.html")
    return found


def _write_tasks(found: Findings, shown: Sequence[Judged], media: Mapping[str, Media], base: str, version: str,
                 out: Path) -> list[str]:  # fmt: skip
    """An import file and an interface for the clips that can be heard, and for those that can only be seen."""
    written = []
    for kind in KINDS:
        files = {one.clip: file for one in shown if (file := media[one.clip].file_of(kind))}
        tasks = [
            as_task(number, kind, f"{base}/{files[one.clip]}", one, version)
            for number, one in enumerate(shown, start=1)
            if one.clip in files
        ]
        if tasks:
            name = f"label_studio_{kind}"
            (out / f"{name}.json").write_text(json.dumps(tasks, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            (out / f"{name}.xml").write_text(labeling_config(kind, found.labels, found.single), encoding="utf-8")
            written += [f"{name}.json", f"{name}.xml"]
    return written


def _write_matrix(matrix: Confusion, out: Path) -> None:
    for name, cells in ((matrix.name, matrix.counts), (f"{matrix.name}_shares", matrix.shares.round(6))):
        rows = [
            [row, total, *own]
            for row, total, own in zip(matrix.rows, matrix.totals.tolist(), cells.tolist(), strict=True)
        ]
        _write_csv(out / f"{name}.csv", ["class", "clips", *matrix.columns], rows)


def _write_csv(path: Path, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)
