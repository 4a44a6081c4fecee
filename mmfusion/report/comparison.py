"""A comparison: rows (variants of a run) x folds x seeds, as one YAML file, and the runs that it asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from mmfusion.config import configclass, load, load_tree, validate
from mmfusion.heads.labels import LabelsConfig
from mmfusion.metrics.captions import CAPTION_METRICS
from mmfusion.metrics.resampled import LABEL_STATISTICS
from mmfusion.training.run import RunConfig
from mmfusion.types import InputError


@configclass
class PrepareConfig:
    """A data set to make ready first, unless it is there."""

    name: str
    """name in the catalogue (tools/prepare.py --help lists them)"""
    root: str = ""
    """folder of the set as it lies on disk"""
    out: str
    options: tuple[str, ...] = ()
    """settings of the set's reader, as key=value"""


@configclass
class RowConfig:
    """One line of the table."""

    title: str | None = None
    """as printed; null prints the row's key"""
    config: str | None = None
    """run configuration, relative to the comparison's file; null takes the comparison's own"""
    set: dict[str, Any] = Field(default_factory=dict)
    """dotted settings that replace the configuration's; null removes a block"""
    parts: dict[str, str] = Field(default_factory=dict)
    """stream -> row whose trained encoder and heads this row starts from, fold by fold and seed by seed"""


@configclass
class FigureConfig:
    """One column of the table."""

    name: str
    """dotted name in metrics.<split>.json, such as labels.map"""
    title: str
    scale: float = 100.0
    digits: int = Field(default=1, ge=0)
    significance: bool = False
    """print a bootstrap interval and the paired p-value against the reference row"""


@configclass
class ComparisonConfig:
    """What to train, on what, and what to print."""

    name: str = Field(pattern=r"^[\w.+-]+$")
    title: str
    notes: tuple[str, ...] = ()
    """paragraphs (Markdown) that are printed below the table"""
    prepare: tuple[PrepareConfig, ...] = ()
    config: str
    """run configuration that every row starts from, relative to this file"""
    rows: dict[str, RowConfig] = Field(min_length=1)
    folds: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """fold name -> dotted settings; empty for a single fold"""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0,)
    figures: tuple[FigureConfig, ...] = Field(min_length=1)
    """the first one ranks"""
    reference: tuple[str, ...] = ()
    """rows of which the best (by a figure's mean) is what the others are tested against, figure by figure"""
    split: str = "test"
    published: str | None = None
    """file of published numbers, relative to this file, printed in a block of their own"""
    workers: int | None = Field(default=None, ge=1)
    """runs at a time; null takes one a GPU, or one a core"""
    examples: int = Field(default=6, ge=0)
    """clips shown on the page"""
    num_resamples: int = Field(default=2000, ge=100)
    """bootstrap resamples"""


@dataclass(frozen=True)
class Job:
    """One run of a comparison; `needs` are the folders of runs that must be finished before."""

    row: str
    fold: str
    seed: int
    config: RunConfig
    needs: tuple[Path, ...]


def load_comparison(path: str | Path, overrides: tuple[str, ...] = ()) -> ComparisonConfig:
    """The comparison in a YAML file. Raises InputError that names the file and the field."""
    comparison = load(ComparisonConfig, path, overrides)
    known = comparison.rows
    for row in comparison.reference:
        if row not in known:
            raise InputError(f"{path}: reference: there is no row {row!r}")
    for name, row in comparison.rows.items():
        for stream, part in row.parts.items():
            if part not in known or known[part].parts:
                raise InputError(f"{path}: rows.{name}.parts.{stream}: {part!r} is not a row that trains on its own")
    return comparison


def jobs_of(comparison: ComparisonConfig, path: str | Path) -> list[Job]:
    """Every run that the table needs, rows in order, folds and seeds inside."""
    folds = comparison.folds or {"": {}}
    jobs = [
        _job(comparison, Path(path), row, fold, seed)
        for row in comparison.rows
        for fold in folds
        for seed in comparison.seeds
    ]
    _check_figures(comparison, jobs, path)
    return jobs


def _check_figures(comparison: ComparisonConfig, jobs: Sequence[Job], path: str | Path) -> None:
    """Says before anything is trained that a column asks for what no row can give."""
    for number, figure in enumerate(comparison.figures):
        head, _, metric = figure.name.partition(".")
        where = f"{path}: figures.{number}.name"
        for job in jobs:
            config = job.config.model.heads.get(head)
            if config is None:
                raise InputError(f"{where}: row {job.row} has no head {head!r}")
            tested = LABEL_STATISTICS if isinstance(config, LabelsConfig) else CAPTION_METRICS
            if figure.significance and metric not in tested:
                raise InputError(f"{where}: {metric!r} cannot be resampled; significance takes {', '.join(tested)}")


def _job(comparison: ComparisonConfig, path: Path, row: str, fold: str, seed: int) -> Job:
    config = _run_config(comparison, path, row, fold, seed)
    parts = {
        stream: _run_config(comparison, path, other, fold, seed).folder
        for stream, other in comparison.rows[row].parts.items()
    }
    return Job(row, fold, seed, config, tuple(parts.values()))


def _run_config(comparison: ComparisonConfig, path: Path, row: str, fold: str, seed: int) -> RunConfig:
    chosen = comparison.rows[row]
    source = path.parent / (chosen.config or comparison.config)
    name = f"{comparison.name}-{row}" + (f"+{fold}" if fold else "")
    parts = {
        stream: str(_run_config(comparison, path, other, fold, seed).folder) for stream, other in chosen.parts.items()
    }
    tree = load_tree(source)
    settings: Mapping[str, Any] = {**comparison.folds.get(fold, {}), **chosen.set, "name": name, "seed": seed}
    for key, value in settings.items():
        _put(tree, key, value, f"{path}: rows.{row}")
    if parts:
        tree.setdefault("training", {})["parts_from"] = parts
    return validate(RunConfig, tree, f"{path}: rows.{row} ({source})")


def _put(tree: dict[str, Any], name: str, value: Any, where: str) -> None:
    """Sets a nested key; None removes a block and otherwise is the value."""
    keys = name.split(".")
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise InputError(f"{where}: {name} cannot be set, because {key} is no block here")
    if value is None and isinstance(tree.get(keys[-1]), dict):
        del tree[keys[-1]]
    else:
        tree[keys[-1]] = deepcopy(value)
