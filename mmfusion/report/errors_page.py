"""The page of an error analysis; the sounds lie beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmfusion.report.confusion import Confusion
from mmfusion.report.findings import Findings
from mmfusion.report.hard_media import Media
from mmfusion.report.hardest import Judged
from mmfusion.report.page import environment
from mmfusion.report.plots import matrix_panel
from mmfusion.training.run import Run

MOST_CLASSES = 50
MOST_PAIRS = 12
COLOUR = "#2f80c2"
JOINED = {
    "mean": "the mean of its windows' probabilities",
    "max": "the maximum of its windows' probabilities",
    "han2016": "the sum of its windows' probabilities over that of the highest class",
}


@dataclass(frozen=True)
class MatrixView:
    """A matrix as the page shows it: a drawing of the classes with the most mistakes, and the most frequent pairs."""

    matrix: Confusion
    svg: str
    num_drawn: int
    pairs: list[tuple[str, str, int, int]]


def write_errors_page(
    run: Run,
    split: str,
    found: Findings,
    ranked: tuple[Sequence[Judged], Sequence[Judged]],
    media: Mapping[str, Media],
    files: Sequence[str],
    path: Path,
) -> None:
    """Writes the page, whole or not at all; `ranked` are the clips by loss and by gradient, `files` for Label Studio.

    Everything that it refers to lies in the folder of `path`.
    """
    by_loss, by_gradient = ranked
    shown = list({clip.clip: clip for clip in (*by_loss, *by_gradient)}.values())
    text = environment().get_template("errors.html.j2").render(
        title=f"Errors of {run.config.name}, seed {run.config.seed}, on {split}",
        facts=_facts(found),
        figures=found.figures,
        classes=_classes(found),
        matrices=[view(matrix) for matrix in found.matrices],
        head=found.head,
        single=found.single,
        tuned=found.tuned,
        rankings=[ranking for ranking in (("loss", by_loss), ("gradient norm", by_gradient)) if ranking[1]],
        shown=[(clip, media[clip.clip]) for clip in shown],
        anchors={clip.clip: f"clip-{number}" for number, clip in enumerate(shown, start=1)},
        num_unknown=found.num_unknown,
        has_weights=run.weights.exists(),
        windows=found.windows,
        joined=JOINED,
        files=files,
        colour=COLOUR,
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def view(matrix: Confusion) -> MatrixView:
    """The matrix with at most MOST_CLASSES classes drawn: those in the most mistakes."""
    drawn = _most_mistaken(matrix)
    rows = [place for place, name in enumerate(matrix.rows) if name in drawn or name not in matrix.columns]
    columns = [place for place, name in enumerate(matrix.columns) if name in drawn]
    row_names, column_names = [matrix.rows[place] for place in rows], [matrix.columns[place] for place in columns]
    svg = matrix_panel(matrix.shares[np.ix_(rows, columns)], row_names, column_names, f"{matrix.title}, in percent")
    return MatrixView(matrix, svg, len(columns), matrix.worst(MOST_PAIRS))


def _most_mistaken(matrix: Confusion) -> set[str]:
    wrong = dict.fromkeys(matrix.columns, 0)
    for row, column, count, _ in matrix.worst(matrix.counts.size):
        for name in (row, column):
            wrong[name] = wrong.get(name, 0) + count
    return set(sorted(matrix.columns, key=lambda name: -wrong[name])[:MOST_CLASSES])


def _facts(found: Findings) -> list[tuple[str, str]]:
    figures = found.figures
    shares = (("accuracy", "accuracy"), ("f1_macro", "macro F1"), ("map", "mAP"))
    facts = [(str(len(found.clips)), "clips"), (str(len(found.labels)), "classes")]
    return facts + [(_percent(figures[key]), what) for key, what in shares if figures[key] is not None]


def _classes(found: Findings) -> list[tuple[str, int, list[str]]]:
    """(class, clips that have it, precision, recall, F1, average precision, threshold if tuned), lowest F1 first."""
    per_class = found.figures["per_class"]
    order = sorted(per_class, key=lambda name: (per_class[name]["f1"] is None, per_class[name]["f1"] or 0.0))
    columns = ("precision", "recall", "f1", "average_precision", *(["threshold"] if found.tuned else []))
    return [
        (name, per_class[name]["num_positives"], [_percent(per_class[name][column]) for column in columns])
        for name in order
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
