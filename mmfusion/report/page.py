"""The page of a comparison: one HTML file that needs nothing but itself."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from mmfusion.data.manifest import Manifest, read_manifest
from mmfusion.report.comparison import Job
from mmfusion.report.examples import Example, find_examples
from mmfusion.report.footage import Footage, merged_inputs, read_footage
from mmfusion.report.palette import Look, looks
from mmfusion.report.panels import class_sections, curve_panels, figure_panels
from mmfusion.report.table import Table, TableRow
from mmfusion.report.write import header, legend, provenance_lines, show_count, show_p, show_seconds, show_value
from mmfusion.types import InputError

MINUS = "\u2212"
MOST_SOUNDS = 8  # examples that can be heard; sound is most of what a page weighs


@dataclass(frozen=True)
class Figure:
    """One cell of the table as printed; empty strings for what it does not have."""

    mean: str
    sd: str
    interval: str
    change: str
    best: bool
    reference: bool


@dataclass(frozen=True)
class Line:
    """One row of the table as printed."""

    key: str
    title: str
    look: Look
    figures: tuple[Figure, ...]
    parameters: str
    training: str


def write_page(
    table: Table, jobs: Sequence[Job], published: list[dict[str, Any]], path: Path, command: str = ""
) -> None:
    """Writes the page of a finished comparison, whole or not at all; `command` is what made it.

    Reads the run folders of `jobs`, and for the example clips the files of the data set. What of those cannot be read
    is said on the page. Raises InputError when a run folder lacks a file.
    """
    drawn = looks(jobs)
    titles = {row.key: row.title for row in table.rows}
    comparison = table.comparison
    text = environment().get_template("page.html.j2").render(
        comparison=comparison,
        notes=[as_markup(note) for note in comparison.notes],
        facts=_facts(table, jobs),
        headers=[header(figure) for figure in comparison.figures],
        lines=[_line(table, row, drawn[row.key]) for row in table.rows],
        legend=_sentence(legend(table)),
        tested=any(table.references),
        looks=drawn,
        titles=titles,
        figure_panels=figure_panels(table, drawn),
        curve_panels=curve_panels(table, jobs, drawn),
        class_sections=class_sections(table, jobs, drawn),
        examples=shown_examples(table, jobs),
        published=published,
        made=[as_markup(line.removeprefix("- ")) for line in provenance_lines(table, command)[0 if command else 1 :]],
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def as_markup(paragraph: str) -> Markup:
    """A paragraph with the inline marks of Markdown: `code`, **strong**, *emphasis*, and links to the web."""
    text = str(escape(" ".join(paragraph.split())))
    pieces = re.split(r"`([^`]+)`", text)
    for place, piece in enumerate(pieces):
        if place % 2:
            pieces[place] = f"<code>{piece}</code>"
            continue
        piece = re.sub(r"\[([^\]]+)\]\((https?://[^\s)]+)\)", r'<a href="\2">\1</a>', piece)
        piece = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", piece)
        pieces[place] = re.sub(r"\*(?!\s)(.+?)(?<!\s)\*", r"<em>\1</em>", piece)
    return Markup("".join(pieces))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def environment() -> Environment:
    """The templates beside this file; what they print is escaped, and a name that is not given is an error."""
    here = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=here, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _facts(table: Table, jobs: Sequence[Job]) -> list[tuple[str, str]]:
    """What the table stands on, in a few numbers."""
    comparison = table.comparison
    seconds = sum(row.num_runs * row.training_s for row in table.rows)
    folds = len({job.fold for job in jobs})
    facts = [
        (str(len(table.rows)), "variants"),
        (str(len(jobs)), "runs"),
        (str(table.num_clips), f"{comparison.split} clips"),
        (str(len(comparison.seeds)), "seeds" if len(comparison.seeds) > 1 else "seed"),
        (show_seconds(seconds), "of training"),
    ]
    return facts[:3] + ([(str(folds), "folds")] if folds > 1 else []) + facts[3:]


def _line(table: Table, row: TableRow, look: Look) -> Line:
    figures = tuple(_figure(table, row, place) for place in range(len(row.cells)))
    return Line(row.key, row.title, look, figures, show_count(row.num_parameters), show_seconds(row.training_s))


def _figure(table: Table, row: TableRow, place: int) -> Figure:
    cell, settings = row.cells[place], table.comparison.figures[place]

    def shown(value: float) -> str:
        return show_value(value, settings)

    if not cell.values:
        return Figure("-", "", "", "", best=False, reference=False)
    means = [other.cells[place].mean for other in table.rows if other.cells[place].values]
    best = shown(min(means) if settings.lowest_wins else max(means))
    bounded = cell.low is not None and cell.high is not None
    change = ""
    if cell.difference is not None and cell.p is not None:
        change = f"{cell.difference * settings.scale:+.{settings.digits}f}, {show_p(cell.p)}".replace("-", MINUS)
    return Figure(
        mean=shown(cell.mean),
        sd="" if cell.sd is None else shown(cell.sd),
        interval=f"[{shown(cell.low)}, {shown(cell.high)}]" if bounded else "",  # type: ignore[arg-type]
        change=change,
        best=len(table.rows) > 1 and shown(cell.mean) == best,
        reference=table.references[place] == row.key,
    )


def shown_examples(table: Table, jobs: Sequence[Job]) -> list[tuple[Example, Footage]]:
    """Examples of the first fold, each with its footage."""
    comparison = table.comparison
    if not comparison.examples:
        return []
    first = [job for job in jobs if (job.fold, job.seed) == (jobs[0].fold, jobs[0].seed)]
    try:
        manifest = read_manifest(Path(first[0].config.data.manifest))
    except InputError as error:
        examples = find_examples(jobs, {}, comparison.split, comparison.examples)
        missing = Footage(duration_s=0.0, problem=str(error))
        return [(example, missing) for example in examples]
    groups = {clip.id: clip.group for clip in manifest.clips}
    examples = find_examples(jobs, groups, comparison.split, comparison.examples)
    return [(example, _footage(example, manifest, first, place)) for place, example in enumerate(examples)]


def _footage(example: Example, manifest: Manifest, jobs: Sequence[Job], place: int) -> Footage:
    clip = next((clip for clip in manifest.clips if clip.id == example.clip), None)
    if clip is None:
        return Footage(duration_s=0.0, problem=f"{manifest.path} has no clip {example.clip}")
    inputs: Mapping[str, Any] = merged_inputs([job.config.data.inputs for job in jobs])
    longest_s = max(job.config.data.max_duration_s for job in jobs)
    return read_footage(clip, manifest, inputs, longest_s, with_sound=place < MOST_SOUNDS)
