"""The figures of a comparison: means, spreads, intervals and tests, from run folders alone.

For every row: mean and standard deviation (sample, n - 1) over folds and seeds; a 95 % percentile bootstrap interval
over test clips, or, where these are mixtures that are made on the fly, over their source clips; the paired bootstrap
p-value (two-sided) of its difference from the reference row, which is the best of the comparison's `reference` rows in
that figure. Where there are several seeds the resampled figure is their mean, and where there are several folds the
mean over folds, clips being drawn from all folds together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmfusion.evaluate import Row, chances_of, label_truth, levels_of, read_rows
from mmfusion.heads.labels import LabelsConfig
from mmfusion.heads.separation import SeparationConfig
from mmfusion.metrics.resampled import caption_statistic, label_statistic
from mmfusion.metrics.separated import separation_statistic
from mmfusion.metrics.significance import Statistic, average, bootstrap_interval, paired_bootstrap
from mmfusion.metrics.source_clips import by_source_clip
from mmfusion.report.comparison import ComparisonConfig, FigureConfig, Job
from mmfusion.report.search import draw_key
from mmfusion.report.seconds_columns import ACTIVITY, hears_seconds
from mmfusion.training.run import Run
from mmfusion.types import InputError


@dataclass(frozen=True)
class Cell:
    """One figure of one row, unscaled; no `values` where the row has no such head.

    `low` and `high` bound it over clips; `p` is None for the reference itself.
    """

    values: tuple[float, ...]
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    p: float | None = None

    @property
    def mean(self) -> float:
        """NaN without values."""
        return float(np.mean(self.values)) if self.values else float("nan")

    @property
    def sd(self) -> float | None:
        """Over folds and seeds; None for a single run."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None


@dataclass(frozen=True)
class TableRow:
    """One variant: its cells in the order of the comparison's figures, and what it cost (means over its runs).

    `num_parameters` is None for a classifier that is not made of weights.
    """

    key: str
    title: str
    cells: tuple[Cell, ...]
    num_parameters: int | None
    training_s: float
    num_runs: int


@dataclass(frozen=True)
class Table:
    """Everything that is printed."""

    comparison: ComparisonConfig
    rows: tuple[TableRow, ...]
    references: tuple[str | None, ...]
    """the reference row of each figure"""
    num_clips: int
    """test clips over all folds"""
    of_mixtures: bool
    """the test clips are mixtures, and what was drawn are their source clips"""
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """One evaluated run."""

    job: Job
    run: Run
    metrics: dict[str, Any]


def make_table(comparison: ComparisonConfig, jobs: Sequence[Job]) -> Table:
    """Reads the run folders of all jobs. InputError when rows were not scored alike."""
    results = [_result(job, comparison.split) for job in jobs]
    _check_alike(results)
    columns = []
    references: list[str | None] = []
    for figure in comparison.figures:
        column, reference = _column(comparison, figure, results)
        columns.append(column)
        references.append(reference)
    rows = []
    for key, settings in comparison.rows.items():
        own = [result for result in results if result.job.row == key]
        facts = [result.run.read_json("provenance.json") for result in own]
        cells = tuple(column[key] for column in columns)
        cost = float(np.mean([fact["training_s"] for fact in facts]))
        title = (settings.title or key) + (" (legacy split)" if own[0].run.config.data.legacy_split else "")
        rows.append(TableRow(key, title, cells, facts[0]["num_parameters"], cost, len(own)))
    clips = {result.job.fold: result.metrics["num_clips"] for result in results}
    ranked = _ranked(rows, comparison)
    mixed = any(result.run.config.data.num_sources for result in results)
    return Table(comparison, ranked, tuple(references), sum(clips.values()), mixed, _provenance(results))


def _ranked(rows: Sequence[TableRow], comparison: ComparisonConfig) -> tuple[TableRow, ...]:
    """The rows in the comparison's order, those of a random search last and the best of them first."""
    if comparison.search is None:
        return tuple(rows)
    drawn = {draw_key(comparison.search, number) for number in range(comparison.search.num_draws)}
    sign = 1 if comparison.figures[0].lowest_wins else -1
    best_first = sorted((row for row in rows if row.key in drawn), key=lambda row: sign * row.cells[0].mean)
    return (*(row for row in rows if row.key not in drawn), *best_first)


def _provenance(results: Sequence[Result]) -> dict[str, Any]:
    """Where the first run comes from, and the `commits` of all runs, in the order of their rows."""
    facts = [result.run.read_json("provenance.json") for result in results]
    return {**facts[0], "commits": list(dict.fromkeys(fact["commit"] for fact in facts if fact.get("commit")))}


def _result(job: Job, split: str) -> Result:
    run = Run.open(job.config.folder)
    return Result(job, run, run.read_json(f"metrics.{split}.json"))


def _check_alike(results: Sequence[Result]) -> None:
    """Rows of one table must be scored by the same scorers, and those of one fold on the same clips."""
    first: dict[tuple[str | None, str], tuple[Result, Any]] = {}
    for result in results:
        scored: dict[tuple[str | None, str], Any] = {
            (result.job.fold, key): result.metrics[key]
            for key in ("split", "clips", "manifest")
            if key in result.metrics
        }
        for head, scores in result.metrics.items():
            if isinstance(scores, dict):
                told = (key for key in ("scorer", "tokenizer", "meteor_version") if key in scores)
                scored |= {(None, f"{head}.{key}"): scores[key] for key in told}
        for key, value in scored.items():
            other, expected = first.setdefault(key, (result, value))
            if value != expected:
                raise InputError(
                    f"{result.run.folder}: {key[1]} differs from that of {other.run.folder} "
                    f"({value} and {expected}), so the two do not belong in one table"
                )


def _column(comparison: ComparisonConfig, figure: FigureConfig, results: Sequence[Result]
            ) -> tuple[dict[str, Cell], str | None]:  # fmt: skip
    head = figure.name.partition(".")[0]
    having = [result for result in results if _has(result, head)]
    values = {
        row: tuple(_figure(result, figure.name) for result in having if result.job.row == row)
        for row in comparison.rows
    }
    cells = {row: Cell(given) for row, given in values.items()}
    if not figure.significance:
        return cells, None
    better = min if figure.lowest_wins else max
    known = [row for row in comparison.reference if values[row]]
    reference = better(known, key=lambda row: cells[row].mean) if known else None
    statistics = {row: _pooled([r for r in having if r.job.row == row], figure.name) for row in values if values[row]}
    for row, statistic in statistics.items():
        interval = bootstrap_interval(statistic, num_samples=comparison.num_resamples)
        difference = p = None
        if reference is not None and row != reference:
            paired = paired_bootstrap(statistic, statistics[reference], num_samples=comparison.num_resamples)
            difference, p = paired.difference, paired.p_value
        cells[row] = Cell(values[row], interval.low, interval.high, difference, p)
    return cells, reference


def _has(result: Result, head: str) -> bool:
    """Whether a run has figures of this head; an ensemble need not say anything of single seconds."""
    if head != ACTIVITY:
        return head in result.run.config.model.heads
    return hears_seconds(result.job) and (result.job.instead is None or ACTIVITY in result.metrics)


def _figure(result: Result, name: str) -> float:
    value: Any = result.metrics
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    if value is None:
        raise InputError(f"{result.run.folder}: its metrics have no figure {name}")
    return float(value)


def _pooled(results: Sequence[Result], name: str) -> Statistic:
    """The figure as a function of drawn clips: mean over seeds within a fold, then over folds."""
    folds: dict[str, list[Statistic]] = {}
    for result in results:
        folds.setdefault(result.job.fold, []).append(_statistic(result, name))
    means = [average(seeds) for seeds in folds.values()]
    ends = np.cumsum([mean.num_clips for mean in means])

    def of_counts(counts: np.ndarray) -> np.ndarray:
        pieces = np.split(counts, ends[:-1], axis=1)
        return np.mean([mean.of_counts(piece) for mean, piece in zip(means, pieces, strict=True)], axis=0)

    return Statistic(int(ends[-1]), of_counts)


def _statistic(result: Result, name: str) -> Statistic:
    head, _, metric = name.partition(".")
    split = result.metrics["split"]
    config = result.run.config.model.heads.get(head)
    if isinstance(config, SeparationConfig):
        rows = read_rows(result.run.folder / f"predictions.{split}.jsonl")
        return separation_statistic(metric, [row[head] for row in rows], _source_clips(rows))
    if not isinstance(config, LabelsConfig):
        per_clip = result.metrics[head].get("per_clip")
        if per_clip is None:
            raise InputError(
                f"{result.run.folder}: {name} has no value a clip to draw from; set its significance to false"
            )
        return caption_statistic(metric, per_clip, list(per_clip))
    labels = result.run.labels()
    rows = read_rows(result.run.folder / f"predictions.{split}.jsonl")
    reference, known = label_truth(rows, labels)
    chances, levels = chances_of(rows, head, labels), levels_of(result.run.thresholds(), head, labels)
    figure = label_statistic(metric, reference, chances, known, config.scored_as, levels)  # type: ignore[arg-type]
    mixed = result.run.config.data.num_sources > 0
    return by_source_clip(figure, _source_clips(rows), 0.0, 1.0) if mixed else figure


def _source_clips(rows: Sequence[Row]) -> list[list[str]]:
    """The clips that each mixture is made of."""
    return [[source["clip"] for source in row["truth"]["sources"]] for row in rows]
