"""One colour a row: a hue for each depth of fusion, shades for what else differs, told apart by the colour-blind.

The hues are those of Okabe and Ito (2008), at a lightness that can be seen on white and on black.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from mmfusion.fusion.build import FusionConfig
from mmfusion.report.comparison import Baseline, Job

# By place in the union of fusion configurations; what fuses nothing is grey.
HUES = ("#e08e0b", "#2f80c2", "#129a74", "#c0649b", "#b5541c")
GREY = "#7d8896"
DASHES = ("solid", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
DARKEST, LIGHTEST = 0.37, 0.68


@dataclass(frozen=True)
class Look:
    """How a row is drawn: its colour (#rrggbb), its line in plots, and the family whose hue it has."""

    colour: str
    dash: str | tuple[float, tuple[float, ...]]
    family: str


def looks(jobs: Sequence[Job]) -> dict[str, Look]:
    """The look of every row, by its key; the same row of the same comparison always looks the same."""
    families: dict[str, list[str]] = {}
    for job in jobs:
        rows = families.setdefault(_family(job), [])
        if job.row not in rows:
            rows.append(job.row)
    found = {}
    for family, rows in families.items():
        hue = _hue(family)
        for number, row in enumerate(rows):
            found[row] = Look(_shade(hue, number, len(rows)), DASHES[number % len(DASHES)], family)
    return {job.row: found[job.row] for job in jobs}


def _family(job: Job) -> str:
    if isinstance(job.instead, Baseline):
        return "baseline"
    model = job.config.model
    return "single modality" if len(model.encoders) == 1 else str(model.fusion.depth)


def _hue(family: str) -> str:
    members = get_args(get_args(FusionConfig)[0])
    depths = [member.__dataclass_fields__["depth"].default for member in members]
    return HUES[depths.index(family) % len(HUES)] if family in depths else GREY


def _shade(colour: str, number: int, count: int) -> str:
    """The colour itself for a family of one, else one of `count` shades from dark to light."""
    if count == 1:
        return colour
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    hue, _, saturation = colorsys.rgb_to_hls(red, green, blue)
    lightness = DARKEST + (LIGHTEST - DARKEST) * number / (count - 1)
    return "#" + "".join(f"{round(255 * part):02x}" for part in colorsys.hls_to_rgb(hue, lightness, saturation))
