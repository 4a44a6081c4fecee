"""A comparison: rows (variants of a run) x folds x seeds, as one YAML file, and the runs that it asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from mmfusion.config import configclass, load, load_tree, validate
from mmfusion.heads.caption import CaptionConfig
from mmfusion.heads.labels import LabelsConfig
from mmfusion.heads.separation import SeparationConfig
from mmfusion.metrics.captions import CAPTION_METRICS
from mmfusion.metrics.resampled import LABEL_STATISTICS
from mmfusion.metrics.separated import SEPARATION_STATISTICS
from mmfusion.report.search import RandomSearchConfig, drawn_rows
from mmfusion.report.seconds_columns import ACTIVITY, check_seconds
from mmfusion.training.run import RunConfig
from mmfusion.types import InputError

SOURCES = ("parts", "start", "ensemble", "rerank", "baseline")
"""what a row can be built from, by its field in RowConfig"""
CaptionBaseline = Literal["constant", "nearest", "human"]
LabelBaseline = Literal["knn", "svm", "forest"]
SeparationBaseline = Literal["mixture", "band_split", "ideal_ratio", "ideal_binary"]
BaselineKind = Literal[CaptionBaseline, LabelBaseline, SeparationBaseline]
SAID_BY: tuple[tuple[str, Any, Any, tuple[str, ...]], ...] = (
    ("captions", CaptionConfig, CaptionBaseline, CAPTION_METRICS),
    ("labels", LabelsConfig, LabelBaseline, LABEL_STATISTICS),
    ("sources", SeparationConfig, SeparationBaseline, SEPARATION_STATISTICS),
)
"""what heads say: the heads' configuration, the baselines that say it too, the figures of it that can be resampled"""
DRAWN = ("human", "forest")
"""baselines that draw: one run a seed; the others have one run"""
ONLY_OF = {"says": ("constant",), "neighbours": ("nearest", "knn"), "split_hz": ("band_split",)}
"""settings of a row that belong to some baselines only"""
NUM_NEIGHBOURS = 5
"""training clips that a nearest or knn row looks at by itself: for captions the best CIDEr of 1, 3, 5, 10, 20, 40 on
the 22 validation clips of MSVD-476 (both streams; about 30 captions a clip)"""
HUMAN_TITLE = "one reference against the others"
HUMAN_NOTE = (
    f"*{HUMAN_TITLE}*: one reference caption of each clip, drawn by seed, is scored as if a system had said it; its "
    "references lack that one, while every other row is scored against all of them."
)


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
    start: str | None = None
    """row whose trained weights this row starts from, fold by fold and seed by seed; a language model may come in"""
    ensemble: tuple[str, ...] = ()
    """rows whose runs of the same fold and seed speak together; nothing is trained"""
    rerank: str | None = None
    """row whose n best captions are ranked anew by what a tagger hears (report/reranked.py); nothing is trained"""
    tagger: str | None = None
    """row whose label head hears for a `rerank` row; null takes the re-ranked row's own, given the sound alone"""
    baseline: BaselineKind | None = None
    """what speaks instead of a trained model. Captions (report/baselines.py): one sentence for all clips, the consensus
    of the nearest training clips by the configuration's feature inputs, or one reference of each clip. Labels, from
    statistics of the sound (report/classical.py): k nearest neighbours, a linear SVM, a random forest. Sources
    (report/separation_baselines.py): the mixture itself, two bands of it, the ideal ratio and binary mask"""
    needs_file: str | None = None
    """file without which this row is left out, and the table says so"""
    says: str | None = None
    """the sentence of a constant row; null takes the consensus of the training captions"""
    neighbours: int | None = Field(default=None, ge=1)
    """training clips that a nearest or knn row looks at; null takes 5"""
    split_hz: float | None = Field(default=None, gt=0)
    """frequency at which a band_split row parts a mixture; null takes 500"""


@configclass
class FigureConfig:
    """One column of the table."""

    name: str
    """dotted name in metrics.<split>.json, such as labels.map or activity.segment_based.f1_micro"""
    title: str
    scale: float = 100.0
    digits: int = Field(default=1, ge=0)
    lowest_wins: bool = False
    """a lower value is a better one"""
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
    search: RandomSearchConfig | None = None
    """a random search: more rows, with settings that are drawn (report/search.py); ranked by the first figure"""
    language_models: tuple[str, ...] = ()
    """configurations of language models to train first, relative to this file"""
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
class Baseline:
    """What speaks for a row that has no trained model; fields as in RowConfig."""

    kind: BaselineKind
    says: str | None = None
    neighbours: int | None = None
    split_hz: float | None = None


@dataclass(frozen=True)
class Ensemble:
    """Run folders that are evaluated together."""

    folders: tuple[Path, ...]


@dataclass(frozen=True)
class Reranked:
    """The run folder whose n best captions are ranked anew, and the one that hears."""

    folder: Path
    tagger: Path | None = None


@dataclass(frozen=True)
class Job:
    """One run of a comparison; `needs` are the folders of runs that must be finished before."""

    row: str
    fold: str
    seed: int
    config: RunConfig
    needs: tuple[Path, ...]
    instead: Baseline | Ensemble | Reranked | None = None
    """what gives the predictions where nothing is trained"""

    @property
    def by_models(self) -> bool:
        """Whether networks classify its clips: one that is trained for it, or several of other rows."""
        return self.instead is None or isinstance(self.instead, Ensemble)


def load_comparison(path: str | Path, overrides: tuple[str, ...] = ()) -> ComparisonConfig:
    """The comparison in a YAML file. Raises InputError that names the file and the field."""
    comparison = _without_absent(load(ComparisonConfig, path, overrides))
    known = comparison.rows
    for row in comparison.reference:
        if row not in known:
            raise InputError(f"{path}: reference: there is no row {row!r}")
    for name, row in comparison.rows.items():
        _check_sources(name, row, known, path)
        for key, kinds in ONLY_OF.items():
            if getattr(row, key) is not None and row.baseline not in kinds:
                raise InputError(f"{path}: rows.{name}.{key}: only a row with baseline: {' or '.join(kinds)} has it")
        if row.tagger is not None and row.rerank is None:
            raise InputError(f"{path}: rows.{name}.tagger: only a row with rerank has it")
        if row.rerank and (row.config or row.set):
            raise InputError(f"{path}: rows.{name}: has the settings of the row that it ranks, and none of its own")
    return _with_human_note(_with_draws(comparison, path))


def _with_draws(comparison: ComparisonConfig, path: str | Path) -> ComparisonConfig:
    """With the rows of the random search, if there is one."""
    search = comparison.search
    if search is None:
        return comparison
    start = comparison.rows.get(search.row)
    if start is None or any(getattr(start, key) for key in SOURCES):
        raise InputError(f"{path}: search.row: there is no row {search.row!r} that trains on its own")
    return replace(comparison, rows={**comparison.rows, **drawn_rows(search, start)})


def _without_absent(comparison: ComparisonConfig) -> ComparisonConfig:
    """Leaves out the rows whose file is not there, and says so in a note."""
    absent = {
        name: row for name, row in comparison.rows.items() if row.needs_file and not Path(row.needs_file).exists()
    }
    if not absent:
        return comparison
    rows = {name: row for name, row in comparison.rows.items() if name not in absent}
    told = "; ".join(f"{row.title or name} (no file {Path(str(row.needs_file)).name})" for name, row in absent.items())
    return replace(comparison, rows=rows, notes=(*comparison.notes, f"Left out: {told}."))


def _check_sources(name: str, row: RowConfig, known: Mapping[str, RowConfig], path: str | Path) -> None:
    """A row is built from at most one thing, and from rows that are trained on their own."""
    given = [key for key in SOURCES if getattr(row, key)]
    if len(given) > 1:
        raise InputError(f"{path}: rows.{name}: {given[0]} and {given[1]} exclude one another")
    named = [(f"parts.{stream}", part) for stream, part in row.parts.items()]
    named += [("start", row.start)] if row.start else []
    for field, other in named:
        if other not in known or any(getattr(known[other], key) for key in SOURCES):
            raise InputError(f"{path}: rows.{name}.{field}: {other!r} is not a row that trains on its own")
    models = [("ensemble", other) for other in row.ensemble]
    models += [(key, other) for key in ("rerank", "tagger") if (other := getattr(row, key))]
    for field, other in models:
        if other not in known or any(getattr(known[other], key) for key in ("ensemble", "baseline", "rerank")):
            raise InputError(f"{path}: rows.{name}.{field}: {other!r} is not a row with a model of its own")


def _with_human_note(comparison: ComparisonConfig) -> ComparisonConfig:
    """Says in title and notes that human rows are scored against other references than the rest."""
    told = {name: replace(row, title=f"{row.title or name} ({HUMAN_TITLE})")
            for name, row in comparison.rows.items() if row.baseline == "human"}  # fmt: skip
    if not told:
        return comparison
    return replace(comparison, rows={**comparison.rows, **told}, notes=(*comparison.notes, HUMAN_NOTE))


def jobs_of(comparison: ComparisonConfig, path: str | Path) -> list[Job]:
    """Every run that the table needs, rows in order, folds and seeds inside; what draws nothing has the first seed."""
    folds = comparison.folds or {"": {}}
    jobs = [
        _job(comparison, Path(path), name, fold, seed)
        for name, row in comparison.rows.items()
        for fold in folds
        for seed in comparison.seeds[: 1 if row.baseline and row.baseline not in DRAWN else None]
    ]
    _check_figures(comparison, jobs, path)
    if comparison.search and any(job.config.data.test_split == comparison.split for job in jobs):
        raise InputError(f"{path}: search: chooses between its draws, so split must not be the test split")
    return jobs


def _check_figures(comparison: ComparisonConfig, jobs: Sequence[Job], path: str | Path) -> None:
    """Says before anything is trained that a column asks for what no row, or not this kind of row, can give."""
    for number, figure in enumerate(comparison.figures):
        head, _, metric = figure.name.partition(".")
        where = f"{path}: figures.{number}.name"
        if head == ACTIVITY:
            check_seconds(figure, jobs, where)
            continue
        having = [(job, job.config.model.heads[head]) for job in jobs if head in job.config.model.heads]
        if not having:
            raise InputError(f"{where}: no row has a head {head!r}")
        for job, config in having:
            ((said, _, kinds, tested),) = (entry for entry in SAID_BY if isinstance(config, entry[1]))
            if isinstance(job.instead, Baseline) and job.instead.kind not in get_args(kinds):
                other = next(entry[0] for entry in SAID_BY if job.instead.kind in get_args(entry[2]))
                raise InputError(
                    f"{where}: row {job.row} says {other} only and has no {figure.name}, which is of {said}"
                )
            if figure.significance and metric not in tested:
                raise InputError(f"{where}: {metric!r} cannot be resampled; significance takes {', '.join(tested)}")


def _job(comparison: ComparisonConfig, path: Path, row: str, fold: str, seed: int) -> Job:
    chosen = comparison.rows[row]
    config = _run_config(comparison, path, row, fold, seed)
    needed = [*chosen.parts.values(), *chosen.ensemble]
    needed += [other for other in (chosen.start, chosen.rerank, chosen.tagger) if other]
    needs = tuple(_run_config(comparison, path, other, fold, seed).folder for other in needed)
    if chosen.baseline:
        instead = Baseline(chosen.baseline, chosen.says, chosen.neighbours, chosen.split_hz)
        return Job(row, fold, seed, config, needs, instead)
    if chosen.ensemble:
        return Job(row, fold, seed, config, needs, Ensemble(needs))
    return Job(row, fold, seed, config, needs, Reranked(*needs) if chosen.rerank else None)


def _run_config(comparison: ComparisonConfig, path: Path, row: str, fold: str, seed: int) -> RunConfig:
    chosen = comparison.rows[row]
    if chosen.rerank:
        trained = comparison.rows[chosen.rerank]
        chosen = RowConfig(config=trained.config, set=trained.set)
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
    if chosen.start:
        tree.setdefault("training", {})["start_from"] = str(
            _run_config(comparison, path, chosen.start, fold, seed).folder
        )
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
