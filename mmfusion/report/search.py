"""A random search over settings: draws from given ranges, each of which is a row of the comparison.

Bergstra & Bengio 2012 (JMLR 13, section 1): where few of the settings matter, random draws find good ones in fewer
trials than a grid. A draw depends on the seed, its number and the setting's name alone: more draws, or one more
setting, leave the others as they are, and a search that was cut off goes on where it was.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from mmfusion.config import configclass
from mmfusion.data.catalog.prepared import seeded

DIGITS = 4  # of a drawn number: what is printed is what was used


@configclass
class UniformRange:
    """Any number from low to high, all as likely."""

    kind: Literal["uniform"] = "uniform"
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, got {self.low:g} and {self.high:g}")

    def draw(self, rng: np.random.Generator) -> float:
        return _rounded(rng.uniform(self.low, self.high))


@configclass
class LogUniformRange:
    """Any number from low to high, all magnitudes as likely."""

    kind: Literal["loguniform"] = "loguniform"
    low: Annotated[float, Field(gt=0)]
    high: float

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, got {self.low:g} and {self.high:g}")

    def draw(self, rng: np.random.Generator) -> float:
        return _rounded(math.exp(rng.uniform(math.log(self.low), math.log(self.high))))


@configclass
class IntRange:
    """A whole number from low to high, both included."""

    kind: Literal["int"] = "int"
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(self.low, self.high + 1))


@configclass
class ChoiceRange:
    """One of the values, which may be of any kind, blocks too."""

    kind: Literal["choice"] = "choice"
    values: tuple[Any, ...] = Field(min_length=1)

    def draw(self, rng: np.random.Generator) -> Any:
        return self.values[int(rng.integers(len(self.values)))]


Range = Annotated[UniformRange | LogUniformRange | IntRange | ChoiceRange, Field(discriminator="kind")]


@configclass
class RandomSearchConfig:
    """Which row's settings are drawn, how often, and from where."""

    row: str
    """the row that every draw starts from"""
    num_draws: int = Field(ge=1)
    seed: int = Field(default=0, ge=0)
    ranges: dict[str, Range] = Field(min_length=1)
    """dotted setting -> what it is drawn from"""


def draw(search: RandomSearchConfig, number: int) -> dict[str, Any]:
    """The settings of a draw, by their dotted names."""
    return {name: where.draw(seeded(search.seed, "search", number, name)) for name, where in search.ranges.items()}


def draw_key(search: RandomSearchConfig, number: int) -> str:
    """The key of a draw's row, and so part of its run's name."""
    return f"{search.row}-draw{number:03d}"


def drawn_rows(search: RandomSearchConfig, start: Any) -> dict[str, Any]:
    """The draws as rows: copies of the row `start` (a RowConfig) with what was drawn in `set`, told in the title."""
    rows = {}
    for number in range(search.num_draws):
        chosen = draw(search, number)
        told = ", ".join(f"{name.rpartition('.')[2]} {_shown(value)}" for name, value in chosen.items())
        rows[draw_key(search, number)] = replace(start, title=f"draw {number}: {told}", set={**start.set, **chosen})
    return rows


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
