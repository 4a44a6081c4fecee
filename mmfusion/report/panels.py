"""From run folders to the panels of a page: figures with intervals, learning curves, and figures of each class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmfusion.heads.labels import LabelsConfig
from mmfusion.report.comparison import Job
from mmfusion.report.palette import Look
from mmfusion.report.plots import Bar, Line, bar_panel, class_panel, curve_panel
from mmfusion.report.table import Table
from mmfusion.report.write import header, show_value
from mmfusion.training.log import read_log
from mmfusion.training.run import Run

MOST_LINES = 8
MOST_CLASSES = 24
MEASURES = {"average_precision": "average precision", "f1": "F1"}

Logged = Mapping[tuple[str, str], Mapping[str, Sequence[Mapping[int, float]]]]
"""(split, figure) -> row -> for each of its runs, epochs trained -> value"""


@dataclass(frozen=True)
class Panel:
    """A plot with its heading."""

    title: str
    svg: str


@dataclass(frozen=True)
class ClassTable:
    """A figure of every class and row, in percent, as printed; `classes` are (name, clips that have it, cells)."""

    title: str
    classes: tuple[tuple[str, int, tuple[str, ...]], ...]


@dataclass(frozen=True)
class ClassSection:
    """What a label head does class by class."""

    head: str
    measure: str
    panels: tuple[str, ...]
    drawn: tuple[str, ...]
    """rows that the bars show, in their order"""
    num_drawn: int
    num_classes: int
    tables: tuple[ClassTable, ...]


def figure_panels(table: Table, looks: Mapping[str, Look]) -> list[Panel]:
    """One panel a figure of the comparison, its rows as bars."""
    panels = []
    for place, figure in enumerate(table.comparison.figures):
        bars, said, mark = [], [], None
        for row in (row for row in table.rows if row.cells[place].values):
            cell, scale = row.cells[place], figure.scale
            text = show_value(cell.mean, figure)
            low, high = (None if bound is None else bound * scale for bound in (cell.low, cell.high))
            runs = tuple(value * scale for value in cell.values)
            bars.append(Bar(row.title, cell.mean * scale, text, looks[row.key], low, high, runs))
            said.append(f"{row.title} {text}")
            mark = cell.mean * scale if row.key == table.references[place] else mark
        panels.append(Panel(header(figure), bar_panel(bars, f"Bars of {figure.title}: {', '.join(said)}", mark)))
    return panels


def curve_panels(table: Table, jobs: Sequence[Job], looks: Mapping[str, Look]) -> list[Panel]:
    """Validation figures that the table ranks by, then each head's loss with the training loss behind it."""
    logged = _read_logs(jobs)
    wanted = [(figure.name, header(figure), figure.scale) for figure in table.comparison.figures]
    heads = dict.fromkeys(head for job in jobs for head in job.config.model.heads)
    wanted += [(f"{head}.loss", f"loss of {head}", 1.0) for head in heads]
    titles = {row.key: row.title for row in table.rows}
    return [
        Panel(
            title + (f" · {family}" if family else ""),
            curve_panel(lines, f"{title} on validation by epoch: {_last_values(logged, name, rows, titles, scale)}"),
        )
        for name, title, scale in wanted
        if logged.get(("validation", name))
        for family, rows in _groups(looks)
        if (lines := _lines(logged, name, rows, looks, scale))
    ]


def class_sections(table: Table, jobs: Sequence[Job], looks: Mapping[str, Look]) -> list[ClassSection]:
    """One section for every label head: bars of one figure, and tables of all."""
    split = table.comparison.split
    scored = [(job, Run(job.config.folder, job.config).read_json(f"metrics.{split}.json")) for job in jobs]
    sections = []
    for head in dict.fromkeys(head for job in jobs for head in job.config.model.heads):
        own = [(job, metrics[head]) for job, metrics in scored if "per_class" in metrics.get(head, {})]
        if own:
            sections.append(_class_section(table, head, own, looks))
    return sections


def _groups(looks: Mapping[str, Look]) -> list[tuple[str, list[str]]]:
    """Rows that share a panel: all of them while they can be told apart, else one family a panel."""
    if len(looks) <= MOST_LINES:
        return [("", list(looks))]
    families: dict[str, list[str]] = {}
    for row, look in looks.items():
        families.setdefault(look.family, []).append(row)
    return list(families.items())


def _read_logs(jobs: Sequence[Job]) -> Logged:
    found: dict[tuple[str, str], dict[str, list[dict[int, float]]]] = {}
    for job in jobs:
        own: dict[tuple[str, str], dict[int, float]] = {}
        for entry in read_log(job.config.folder / "metrics.csv"):
            own.setdefault((entry["split"], entry["figure"]), {})[entry["epoch"] + 1] = entry["value"]
        for key, values in own.items():
            found.setdefault(key, {}).setdefault(job.row, []).append(values)
    return found


def _lines(logged: Logged, name: str, rows: Iterable[str], looks: Mapping[str, Look], scale: float) -> list[Line]:
    lines = []
    for row in rows:
        for split, faint in (("train", True), ("validation", False)):
            runs = logged.get((split, name), {}).get(row)
            if runs:
                lines.append(_line(runs, looks[row], scale, faint))
    return lines


def _line(runs: Sequence[Mapping[int, float]], look: Look, scale: float, faint: bool) -> Line:
    """Mean and standard deviation over the runs that came as far, for each epoch."""
    epochs = sorted(set().union(*runs))
    values = [[scale * run[epoch] for run in runs if epoch in run] for epoch in epochs]
    mean = [float(np.mean(some)) for some in values]
    spread = [float(np.std(some, ddof=1)) if len(some) > 1 else 0.0 for some in values]
    return Line(look, epochs, mean, spread, faint)


def _last_values(logged: Logged, name: str, rows: Iterable[str], titles: Mapping[str, str], scale: float) -> str:
    runs = logged["validation", name]
    ends = [f"{titles[row]} {np.mean([scale * run[max(run)] for run in runs[row]]):.3g}" for row in rows if row in runs]
    return "in the end " + ", ".join(ends)


def _class_section(table: Table, head: str, scored: Sequence[tuple[Job, Mapping[str, Any]]],
                   looks: Mapping[str, Look]) -> ClassSection:  # fmt: skip
    rows = [row.key for row in table.rows if any(job.row == row.key for job, _ in scored)]
    config = next(job.config.model.heads[head] for job, _ in scored)
    single = isinstance(config, LabelsConfig) and config.target == "single"
    measure = "f1" if single else "average_precision"
    # The same clips in every row and seed: the positives are counted once a fold.
    counts = {job.fold: {name: figures["num_positives"] for name, figures in metrics["per_class"].items()}
              for job, metrics in scored}  # fmt: skip
    clips = {name: sum(fold.get(name, 0) for fold in counts.values()) for fold in counts.values() for name in fold}
    values = {key: {name: [_mean_of(scored, row, name, key) for row in rows] for name in clips} for key in MEASURES}
    drawn = _representatives(table, rows, looks)
    most = sorted(sorted(clips, key=lambda name: -clips[name])[:MOST_CLASSES])
    kept = {name: [values[measure][name][rows.index(row)] for row in drawn] for name in most}
    top = max([value for some in kept.values() for value in some if value is not None], default=1.0) * 1.03 or 1.0
    panels = []
    size = min(max(-(-len(most) // 3), 4), 6)  # classes a panel: three panels side by side, while they stay readable
    for start in range(0, len(most), size):
        part = {name: kept[name] for name in most[start : start + size]}
        alt = f"Bars of {MEASURES[measure]} of {', '.join(part)}; the numbers are in the table below"
        panels.append(class_panel(part, [looks[row] for row in drawn], top, alt))
    tables = tuple(
        ClassTable(MEASURES[key], tuple((n, clips[n], tuple(map(_percent, values[key][n]))) for n in clips))
        for key in MEASURES
    )
    return ClassSection(head, MEASURES[measure], tuple(panels), tuple(drawn), len(most), len(clips), tables)


def _representatives(table: Table, rows: Sequence[str], looks: Mapping[str, Look]) -> list[str]:
    """All rows while bars can be told apart, else the best of each family and the reference, by the first figure."""
    if len(rows) <= MOST_LINES:
        return list(rows)
    means = {row.key: row.cells[0].mean for row in table.rows}
    best = {table.references[0] or rows[0]}
    for family in {looks[row].family for row in rows}:
        best.add(max((row for row in rows if looks[row].family == family), key=lambda row: means[row]))
    return [row for row in rows if row in best]


def _mean_of(scored: Sequence[tuple[Job, Mapping[str, Any]]], row: str, name: str, key: str) -> float | None:
    found = [metrics["per_class"].get(name, {}).get(key) for job, metrics in scored if job.row == row]
    known = [100 * value for value in found if value is not None]
    return float(np.mean(known)) if known else None


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
