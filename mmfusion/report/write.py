"""A table as Markdown, CSV and text."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mmfusion.report.comparison import FigureConfig
from mmfusion.report.table import Cell, Table
from mmfusion.types import InputError


def as_markdown(table: Table, published: list[dict[str, Any]]) -> str:
    """The table with its notes, and published numbers in a block of their own, marked as reported."""
    comparison = table.comparison
    headers = ["", *(header(figure) for figure in comparison.figures), "parameters", "training"]
    lines = [f"# {comparison.title}", "", _row(headers), _row(["---", *["---:"] * (len(headers) - 1)])]
    for row in table.rows:
        cells = [_cell(cell, figure) for cell, figure in zip(row.cells, comparison.figures, strict=True)]
        lines.append(_row([row.title, *cells, show_count(row.num_parameters), show_seconds(row.training_s)]))
    lines += ["", legend(table), ""]
    for note in comparison.notes:
        lines += [note.strip(), ""]
    if published:
        lines += _published(published)
    return "\n".join(lines)


def as_csv(table: Table) -> str:
    """One line a row and figure, unscaled."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ("row", "figure", "mean", "sd", "low", "high", "difference", "p", "runs", "parameters", "training_s")
    )
    for row in table.rows:
        for cell, figure in zip(row.cells, table.comparison.figures, strict=True):
            numbers = (cell.mean if cell.values else None, cell.sd, cell.low, cell.high, cell.difference, cell.p)
            rounded = ["" if number is None else f"{number:.6g}" for number in numbers]
            writer.writerow((row.key, figure.name, *rounded, row.num_runs, row.num_parameters, f"{row.training_s:.1f}"))
    return out.getvalue()


def read_published(path: Path) -> list[dict[str, Any]]:
    """Published numbers: a list of {system, figure, value, set, citation, where, note}. InputError names the entry."""
    try:
        entries = OmegaConf.to_container(OmegaConf.load(path))
    except OSError as error:
        raise InputError(f"{path}: no such file") from error
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable YAML file: {str(error).splitlines()[0]}") from error
    if not isinstance(entries, list):
        raise InputError(f"{path}: must be a list of published numbers")
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise InputError(f"{path}: entry {number}: must hold keys and values")
        lacking = [key for key in ("system", "figure", "value", "citation", "where") if key not in entry]
        if lacking:
            raise InputError(f"{path}: entry {number}: {lacking[0]} is missing")
    return entries  # type: ignore[return-value]


def provenance_lines(table: Table, command: str) -> list[str]:
    """How the table was made: command, code, hardware, packages."""
    facts, comparison = table.provenance, table.comparison
    hardware = facts["hardware"]
    machine = f"{hardware['processor']}, {hardware['cores']} cores" + (
        f", {hardware['gpu']}" if hardware["gpu"] else ""
    )
    packages = ", ".join(f"{name} {facts['packages'][name]}" for name in ("torch", "av") if name in facts["packages"])
    runs = sum(row.num_runs for row in table.rows)
    minutes = sum(row.num_runs * row.training_s for row in table.rows) / 60
    return [
        f"- command: `{command}`",
        f"- commit: {', '.join(facts['commits']) or 'not recorded'}",
        f"- hardware: {machine}; {packages}",
        f"- {runs} runs, {minutes:.0f} minutes of training in all; "
        f"seeds {', '.join(map(str, comparison.seeds))}; {table.num_clips} {comparison.split} clips",
    ]


def header(figure: FigureConfig) -> str:
    """The head of a figure's column."""
    return f"{figure.title} (%)" if figure.scale == 100 else figure.title


def _cell(cell: Cell, figure: FigureConfig) -> str:
    if not cell.values:
        return "-"
    text = show_value(cell.mean, figure)
    if cell.sd is not None:
        text += f" ± {show_value(cell.sd, figure)}"
    if cell.low is not None and cell.high is not None:
        text += f" [{show_value(cell.low, figure)}, {show_value(cell.high, figure)}]"
    return text if cell.p is None else f"{text} {show_p(cell.p)}"


def show_value(value: float, figure: FigureConfig) -> str:
    """The value as the figure is printed, without its unit."""
    return f"{value * figure.scale:.{figure.digits}f}"


def show_p(p: float) -> str:
    """`p = 0.012`, or `p < 0.001` where more digits would say nothing."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def legend(table: Table) -> str:
    """One sentence that says what stands in the cells."""
    parts = ["mean ± standard deviation over folds and seeds"] if any(r.num_runs > 1 for r in table.rows) else []
    tested = {figure.title: ref for figure, ref in zip(table.comparison.figures, table.references, strict=True) if ref}
    if any(figure.significance for figure in table.comparison.figures):
        clips = f"{table.num_clips} {table.comparison.split} {'mixtures' if table.of_mixtures else 'clips'}"
        drawn = f"the source clips of {clips}" if table.of_mixtures else clips
        parts.append(f"[95 % bootstrap interval over {drawn}]")
    if tested:
        titles = {row.key: row.title for row in table.rows}
        against = ", ".join(f"{titles[row]} in {figure}" for figure, row in tested.items())
        alone = len(table.comparison.reference) == 1
        other = titles[table.comparison.reference[0]] if alone else f"the best single row ({against})"
        parts.append(f"p: two-sided paired bootstrap against {other}")
    rows = table.comparison.rows.values()
    if any(getattr(row, key) for row in rows for key in ("parts", "start", "ensemble", "rerank")):
        parts.append("training: the row's own, without the rows that it is built from")
    return "; ".join(parts) + "." if parts else ""


def _published(entries: list[dict[str, Any]]) -> list[str]:
    lines = ["## Reported elsewhere", "", "Not measured here; other data, splits or scorers than the table above.", ""]
    lines += [_row(["system", "figure", "value", "set", "source"]), _row(["---", "---", "---:", "---", "---"])]
    for entry in entries:
        source = f"{entry['citation']}, {entry['where']}" + (f" ({entry['note']})" if entry.get("note") else "")
        lines.append(_row([entry["system"], entry["figure"], str(entry["value"]), str(entry.get("set", "")), source]))
    return [*lines, ""]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def show_count(number: int | None) -> str:
    """A number of parameters, "-" where none are counted."""
    if number is None:
        return "-"
    return f"{number / 1e6:.2f} M" if number >= 1e5 else f"{number / 1e3:.1f} k"


def show_seconds(seconds: float) -> str:
    """A training time."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
