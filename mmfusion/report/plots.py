"""Plots as inline SVG that follows the page: its font, and its colours in light and in dark.

matplotlib draws them without any global state, with four marker colours that are then replaced by the page's CSS
variables. One figure is one panel of WIDTH units, narrow enough for a phone; the page lays panels out side by side.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from mmfusion.report.palette import Look

WIDTH = 330
INK, SOFT, GRID = "#010203", "#010204", "#010205"
VARIABLES = {INK: "var(--ink)", SOFT: "var(--soft)", GRID: "var(--line)"}
SIZE = 11
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mmfusion",
    "font.size": SIZE,
    "font.family": "sans-serif",
}
LABEL_CHARS = 20
RIGHT, WRONG = "#2f80c2", "#c4541c"


@dataclass(frozen=True)
class Bar:
    """One bar: what it is called, how long it is, what bounds it, and the single runs behind it."""

    title: str
    value: float
    text: str
    look: Look
    low: float | None = None
    high: float | None = None
    runs: tuple[float, ...] = ()


@dataclass(frozen=True)
class Line:
    """One curve over epochs: mean, and spread on both sides (zeros for a single run); `faint` ones stand behind."""

    look: Look
    epochs: Sequence[int]
    mean: Sequence[float]
    spread: Sequence[float]
    faint: bool = False


def bar_panel(bars: Sequence[Bar], alt: str, mark: float | None = None) -> str:
    """Horizontal bars from 0 with their intervals as whiskers; `mark` draws a dashed line at a value."""
    labels = [textwrap.wrap(bar.title, LABEL_CHARS, max_lines=2, placeholder=" …") for bar in bars]
    left = 14 + 6.3 * max(len(part) for label in labels for part in label)
    figure, axes = _panel(30 * len(bars) + 34, left=left, bottom=26, right=40)
    ends = [bar.high if bar.high is not None else bar.value for bar in bars]
    places = np.arange(len(bars))[::-1]
    for place, bar, end, label in zip(places, bars, ends, labels, strict=True):
        _name(axes, float(place), label)
        axes.barh(place, bar.value, 0.62, color=bar.look.colour)
        if bar.low is not None and bar.high is not None:
            axes.plot([bar.low, bar.high], [place, place], color=INK, linewidth=1.3, solid_capstyle="butt")
            for bound in (bar.low, bar.high):
                axes.plot([bound, bound], [place - 0.13, place + 0.13], color=INK, linewidth=1.3)
        if len(bar.runs) > 1:
            axes.scatter(bar.runs, np.full(len(bar.runs), place), s=7, color=INK, alpha=0.45, linewidths=0, zorder=3)
        farthest = max(end, bar.value, *bar.runs) if bar.runs else max(end, bar.value)
        axes.annotate(bar.text, (farthest, place), (5, 0), textcoords="offset points", va="center", color=INK,
                      weight="bold", fontsize=SIZE, annotation_clip=False, parse_math=False)  # fmt: skip
    if mark is not None:
        axes.axvline(mark, color=SOFT, linewidth=1, linestyle=(0, (3, 3)), zorder=0.5)
    axes.set_yticks([])
    axes.set_ylim(-0.6, len(bars) - 0.4)
    axes.set_xlim(*_from_zero([bar.value for bar in bars] + ends))
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    return _svg(figure, alt)


def class_panel(classes: Mapping[str, Sequence[float | None]], rows: Sequence[Look], top: float, alt: str) -> str:
    """Grouped bars: one group a class, one bar a row in the order of `rows`; None draws nothing."""
    labels = [textwrap.wrap(name, LABEL_CHARS, max_lines=2, placeholder=" …") for name in classes]
    left = 14 + 6.3 * max(len(part) for label in labels for part in label)
    step = 9 * len(rows) + 11
    figure, axes = _panel(step * len(classes) + 26, left=left, bottom=26, right=12)
    thick = 8 / step
    middles = np.arange(len(classes))[::-1]
    for middle, label, values in zip(middles, labels, classes.values(), strict=True):
        _name(axes, float(middle), label)
        for number, (value, look) in enumerate(zip(values, rows, strict=True)):
            if value is not None:
                place = middle + ((len(rows) - 1) / 2 - number) * 9 / step
                axes.barh(place, value, thick, color=look.colour)
    axes.set_yticks([])
    axes.set_ylim(-0.5, len(classes) - 0.5)
    axes.set_xlim(0, top)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    return _svg(figure, alt)


def curve_panel(lines: Sequence[Line], alt: str) -> str:
    """Curves over epochs with a band of one spread on both sides."""
    figure, axes = _panel(215, left=40, bottom=38, right=10)
    for line in sorted(lines, key=lambda line: not line.faint):
        epochs, mean, spread = (np.asarray(part, dtype=float) for part in (line.epochs, line.mean, line.spread))
        width, alpha = (1.0, 0.5) if line.faint else (1.9, 1.0)
        alone = "o" if len(epochs) == 1 else None
        axes.plot(epochs, mean, color=line.look.colour, linestyle=line.look.dash, linewidth=width, alpha=alpha,
                  marker=alone, markersize=5)  # fmt: skip
        if spread.any() and not line.faint:
            axes.fill_between(epochs, mean - spread, mean + spread, color=line.look.colour, alpha=0.14, linewidth=0)
    axes.set_xlabel("epochs", color=SOFT, fontsize=SIZE)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.grid(color=GRID, linewidth=0.8)
    return _svg(figure, alt)


def matrix_panel(shares: np.ndarray, rows: Sequence[str], columns: Sequence[str], alt: str) -> str:
    """Cells (R, C) shaded by a share in [0, 1], those of a row and a column of one name in a colour of their own.

    Large cells say their share in percent. The panel is as wide as its cells need.
    """
    cell = float(np.clip(420 / max(len(rows), len(columns)), 11, 34))
    beside, below = (10 + 5.4 * min(LABEL_CHARS, max(map(len, names))) for names in (rows, columns))
    width, height = beside + cell * len(columns) + 8, below + cell * len(rows) + 8
    figure, axes = _panel(height, left=beside, bottom=below, right=8, width=width)
    for (row, column), share in np.ndenumerate(shares):
        if share > 0:
            colour = RIGHT if rows[row] == columns[column] else WRONG
            axes.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, alpha=0.1 + 0.9 * share, linewidth=0))
        if cell >= 22 and share >= 0.005:
            axes.text(column + 0.5, row + 0.5, f"{100 * share:.0f}", ha="center", va="center", fontsize=9,
                      color="#ffffff" if share > 0.6 else INK)  # fmt: skip
    axes.set_xlim(0, len(columns))
    axes.set_ylim(len(rows), 0)
    axes.set_xticks(np.arange(len(columns)) + 0.5, [_short(name) for name in columns], rotation=90, parse_math=False)
    axes.set_yticks(np.arange(len(rows)) + 0.5, [_short(name) for name in rows], parse_math=False)
    axes.tick_params(labelsize=9, pad=3, colors=INK)
    for place in range(len(columns) + 1):
        axes.axvline(place, color=GRID, linewidth=0.5, zorder=0.5)
    for place in range(len(rows) + 1):
        axes.axhline(place, color=GRID, linewidth=0.5, zorder=0.5)
    return _svg(figure, alt).replace("<svg ", f'<svg style="max-width:{1.2 * width:.0f}px" ', 1)


def _short(name: str) -> str:
    return name if len(name) <= LABEL_CHARS else name[: LABEL_CHARS - 1] + "…"


def _panel(height: float, left: float, bottom: float, right: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    """An empty panel; all sizes in units of the drawing (72 an inch, so that a point is a unit)."""
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        FigureCanvasSVG(figure)
        left = min(left, 0.5 * width)
        axes = figure.add_axes((left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + 8) / height))
    for side in axes.spines.values():
        side.set_visible(False)
    axes.patch.set_visible(False)
    figure.patch.set_visible(False)
    axes.tick_params(length=0, pad=6, colors=SOFT, labelsize=SIZE)
    axes.set_axisbelow(True)
    return figure, axes


def _name(axes: Axes, place: float, lines: Sequence[str]) -> None:
    """A name to the left of the axis, each line on its own so that its right end holds in any font."""
    for number, line in enumerate(lines):
        shift = ((len(lines) - 1) / 2 - number) * (SIZE + 1)
        axes.annotate(line, (0, place), (-6, shift), xycoords=("axes fraction", "data"), textcoords="offset points",
                      ha="right", va="center", color=INK, fontsize=SIZE, annotation_clip=False,
                      parse_math=False)  # fmt: skip


def _from_zero(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(0.0, *values), max(0.0, *values)
    return (low * 1.06, high * 1.06) if high > low else (0.0, 1.0)


def _svg(figure: Figure, alt: str) -> str:
    """The figure as an `<svg>` element without a size of its own, named by `alt` for those who cannot see it."""
    out = io.StringIO()
    nothing: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context(SETTINGS):
        figure.savefig(out, format="svg", metadata=nothing, transparent=True)
    text = out.getvalue()
    text = text[text.index("<svg") :]
    box = re.search(r'viewBox="([^"]*)"', text)
    assert box is not None
    body = text[text.index(">") + 1 :]
    body = re.sub(r' id="(?![mp][0-9a-f]{10}")[^"]*"', "", body)  # only markers and clip paths are referred to
    for unwanted in (r"<metadata>.*?</metadata>", r"<defs>\s*<style.*?</defs>", r"<!--.*?-->", r"<g/>",
                     r"font-family: [^;\"]*; ?"):  # fmt: skip
        body = re.sub(unwanted, "", body, flags=re.S)
    body = re.sub(r' transform="rotate\(-0 [^"]*"', "", body)
    body = re.sub(r' (?:d|x|y|transform)="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found.group()), body)
    body = re.sub(r"\s*\n\s*", "\n", body)
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, variable)
    safe = alt.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return f'<svg viewBox="{box.group(1)}" role="img" aria-label="{safe}">{body}'
