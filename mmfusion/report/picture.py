"""A comparison as one picture for a README: its figures as bars, and one clip with what every row says about it.

A stand-alone SVG with its images inside, so that it is shown wherever Markdown is, in light and in dark.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mmfusion.report.comparison import Job
from mmfusion.report.examples import Answer, Example
from mmfusion.report.footage import Footage
from mmfusion.report.page import environment, shown_examples
from mmfusion.report.palette import Look, looks
from mmfusion.report.panels import figure_panels
from mmfusion.report.plots import WIDTH
from mmfusion.report.table import Table

MARGIN, GAP, LINE = 18, 24, 19
MOST_PANELS = 2
SPECTROGRAM_PX = 56
TITLE_CHARS, TEXT_CHARS = 24, 76
TEXT_X = 190


@dataclass(frozen=True)
class Drawn:
    """Something at a place, in units of the picture."""

    x: float
    y: float


@dataclass(frozen=True)
class Panel(Drawn):
    title: str
    svg: Markup


@dataclass(frozen=True)
class Image(Drawn):
    width: float
    height: float
    data: str


@dataclass(frozen=True)
class Text(Drawn):
    text: str
    colour: str = "var(--ink)"
    bold: bool = False


def as_picture(table: Table, jobs: Sequence[Job]) -> str:
    """The picture as SVG. InputError when a run folder lacks a file.

    Bars are of the first figures that are tested for significance, else of the first. The clip is one of the
    page's examples on which the rows differ (none of them: bars alone): with pictures and sound, something that is both
    seen and heard, and little else, as far as there is such a one; whoever is right about it.
    """
    drawn = looks(jobs)
    width = 2 * MARGIN + MOST_PANELS * WIDTH + (MOST_PANELS - 1) * GAP
    panels, below = _panels(table, drawn)
    images: list[Image] = []
    lines: list[Text] = []
    shown = [pair for pair in shown_examples(table, jobs) if pair[0].differs and _num_shown(pair[1])]
    if shown:
        example, footage = max(shown, key=lambda pair: _fitness(pair[1]))
        images, below = _images(footage, width, below)
        titles = {row.key: row.title for row in table.rows}
        lines, below = _lines(example, drawn, titles, below)
    template = environment().get_template("picture.svg.j2")
    return template.render(title=table.comparison.title, width=width, height=round(below + MARGIN), panels=panels,
                           images=images, lines=lines)  # fmt: skip


def _panels(table: Table, drawn: Mapping[str, Look]) -> tuple[list[Panel], float]:
    """The bars, side by side, and where they end."""
    figures = table.comparison.figures
    order = sorted(range(len(figures)), key=lambda place: not figures[place].significance)
    every = figure_panels(table, drawn)
    panels, below = [], 0.0
    for number, place in enumerate(order[:MOST_PANELS]):
        found, x, y = every[place], MARGIN + number * (WIDTH + GAP), MARGIN + LINE
        box = re.search(r'viewBox="0 0 [\d.]+ ([\d.]+)"', found.svg)
        assert box is not None
        height = float(box[1])
        placed = f'<svg x="{x}" y="{y}" width="{WIDTH}" height="{height}" ' + found.svg.removeprefix("<svg ")
        panels.append(Panel(x, y - 8, found.title, Markup(placed)))  # drawn by matplotlib, its texts escaped there
        below = max(below, y + height)
    return panels, below


def _num_shown(footage: Footage) -> int:
    return (footage.strip is not None) + (footage.spectrogram is not None)


def _fitness(footage: Footage) -> tuple[int, bool, int]:
    manners = [event.manner for event in footage.events]
    return _num_shown(footage), "seen and heard" in manners, -len(manners)


def _images(footage: Footage, width: float, top: float) -> tuple[list[Image], float]:
    """Frames and log-mel on one time axis, and where they end."""
    images, below, across = [], top + MARGIN, width - 2 * MARGIN
    if footage.strip is not None:
        # Few frames are not blown up.
        height = min(across / max(footage.num_frames, 1), 110)
        own = min(across, footage.num_frames * height)
        images.append(Image(MARGIN, below, own, height, footage.strip))
        below += height + 4
    if footage.spectrogram is not None:
        share = across * footage.sound_share / 100
        images.append(Image(MARGIN, below, share, SPECTROGRAM_PX, footage.spectrogram))
        below += SPECTROGRAM_PX + 4
    return images, below + LINE


def _lines(example: Example, drawn: Mapping[str, Look], titles: Mapping[str, str], top: float
           ) -> tuple[list[Text], float]:  # fmt: skip
    """The truth and every row's answer, and where they end."""
    told: list[tuple[str, str, str]] = []
    if example.labels is not None:
        told.append(("truth", ", ".join(example.labels) or "none of the classes", "var(--soft)"))
    if example.captions:
        told.append(("a reference caption", example.captions[0], "var(--soft)"))
    told += [
        (titles[answer.row], said, drawn[answer.row].colour) for answer in example.answers for said in _said(answer)
    ]
    lines, y = [], top
    for name, said, colour in told:
        lines.append(Text(MARGIN, y, textwrap.shorten(name, TITLE_CHARS, placeholder=" …"), colour, bold=True))
        for part in textwrap.wrap(said, TEXT_CHARS) or [""]:
            lines.append(Text(TEXT_X, y, part))
            y += LINE
    return lines, y - LINE


def _said(answer: Answer) -> Iterator[str]:
    """A row's sentences; of a row without any, its likeliest classes."""
    if answer.captions:
        yield from answer.captions
    else:
        yield ", ".join(f"{guess.label} {100 * guess.chance:.0f} %" for guess in answer.guesses)
