"""The folder of an error analysis: where a label head errs, and the hardest clips to listen to.

    index.html                          all of it, with players and spectrograms
    classes.csv  clips.csv              figures of each class; loss, gradient norm, truth and decision of each clip
    <matrix>.csv  <matrix>_shares.csv   counts of clips, and the same divided by the clips of a row
    sounds/  pictures/  whole/          the hardest clips; whole where sounds/ has the worst window of a clip
    label_studio_<kind>.json  .xml      the hardest clips as tasks for Label Studio, and the interface that they need
    written.json                        the names of all of these

Running it again writes them anew and removes what only the call before wrote; other files are never touched.
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
    tables = _write_tables(found, out)
    rankings = hardest(found.clips, number)
    shown = list({one.clip: one for ranking in rankings for one in ranking}.values())
    media = write_media(run, shown, out)
    base = url.rstrip("/") if url else f"/data/local-files/?d={quote(out.resolve().name)}"
    files = _write_tasks(found, shown, media, base, f"{run.config.name}/seed{run.config.seed}", out)
    write_errors_page(run, split, found, rankings, media, files, out / "index.html")
    _tidy(out, ["index.html", *tables, *files, *(file for one in media.values() for file in one.files)])
    return found


def _tidy(out: Path, written: Sequence[str]) -> None:
    """Removes what the call before wrote into the folder and this one did not, and notes what this one wrote."""
    note, folder = out / "written.json", out.resolve()
    try:
        before = json.loads(note.read_text(encoding="utf-8")) if note.exists() else []
    except ValueError as error:
        raise InputError(f"{note}: is not what this tool left there: {error}") from error
    for name in set(before) - set(written):
        if (folder / name).resolve().is_relative_to(folder):
            (folder / name).unlink(missing_ok=True)
    note.write_text(json.dumps(sorted(set(written)), indent=1) + "\n", encoding="utf-8")


def _write_tables(found: Findings, out: Path) -> list[str]:
    """The csv files, and their names."""
    columns = [*CLASS_FIGURES, *(["threshold"] if found.tuned else [])]
    rows = [[name, *(own[key] for key in columns)] for name, own in found.figures["per_class"].items()]
    _write_csv(out / "classes.csv", ["class", *columns], rows)
    everyone, _ = hardest(found.clips, len(found.clips))
    head = ["clip", "loss", "gradient_norm", "truth", "said"]
    rows = [[one.clip, one.loss, one.gradient, "; ".join(one.true), "; ".join(one.said)] for one in everyone]
    if found.windows:
        head += ["worst_start_s", "worst_end_s", "worst_loss"]
        worst = [one.window for one in everyone if one.window is not None]
        rows = [[*row, one.start_s, one.end_s, one.loss] for row, one in zip(rows, worst, strict=True)]
    _write_csv(out / "clips.csv", head, rows)
    for matrix in found.matrices:
        _write_matrix(matrix, out)
    matrices = [f"{matrix.name}{ending}.csv" for matrix in found.matrices for ending in ("", "_shares")]
    return ["classes.csv", "clips.csv", *matrices]


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
