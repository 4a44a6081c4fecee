"""Which clips a page shows, and what every variant said about them.

The rule takes no account of who is right: half of the clips lie evenly over the test clips, the others are those where
the variants differ most; no group twice while there are others. The same runs always give the same clips.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmfusion.evaluate import Row, Thresholds, read_rows
from mmfusion.heads.labels import LabelsConfig
from mmfusion.heads.separation import SeparationConfig
from mmfusion.report.comparison import Job
from mmfusion.training.run import Run
from mmfusion.types import THRESHOLD

TOP = 4


@dataclass(frozen=True)
class Guess:
    """A class, its probability, and whether it is true; None when the truth is not known."""

    label: str
    chance: float
    true: bool | None


@dataclass(frozen=True)
class Answer:
    """What one row said about a clip: its most probable classes and its sentences."""

    row: str
    guesses: tuple[Guess, ...]
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Example:
    """A clip that is shown: the truth, and every row's answer."""

    clip: str
    labels: tuple[str, ...] | None
    captions: tuple[str, ...]
    answers: tuple[Answer, ...]
    differs: bool


def find_examples(jobs: Sequence[Job], groups: Mapping[str, str], split: str, number: int) -> list[Example]:
    """`number` clips of the first fold and seed that every row answered; `groups` maps clip to group where known."""
    first = [job for job in jobs if (job.fold, job.seed) == (jobs[0].fold, jobs[0].seed)]
    told = {job.row: (job, {row["id"]: row for row in _rows(job, split)}) for job in first}
    levels = {job.row: Run(job.config.folder, job.config).thresholds() for job in first}
    shared = [clip for clip in next(iter(told.values()))[1] if all(clip in rows for _, rows in told.values())]
    decided = {clip: [decisions(job, rows[clip], levels[job.row]) for job, rows in told.values()] for clip in shared}
    chosen = choose(shared, {clip: _difference(decided[clip]) for clip in shared}, groups, number)
    return [_example(clip, told, len(set(decided[clip])) > 1) for clip in chosen]


def choose(clips: Sequence[str], difference: Mapping[str, Any], groups: Mapping[str, str], number: int) -> list[str]:
    """Up to `number` of the clips, in their order: half spread evenly, the rest by falling `difference`."""
    num_even = number // 2
    even = [clips[(2 * n + 1) * len(clips) // (2 * num_even)] for n in range(num_even)] if clips else []
    # Equals come in steps of the golden ratio, which spreads them over the list.
    spread = {clip: place * 0.618034 % 1 for place, clip in enumerate(clips)}
    falling = sorted(clips, key=lambda clip: (difference[clip], spread[clip]), reverse=True)
    # From each place of an even clip, the next one of a group that is not shown yet will do as well.
    chosen: list[str] = []
    for wanted in even:
        at = clips.index(wanted)
        _take(chosen, [*clips[at:], *clips[:at]], groups)
    while len(chosen) < min(number, len(clips)):
        _take(chosen, falling, groups)
    return [clip for clip in clips if clip in set(chosen)]


def _take(chosen: list[str], candidates: Sequence[str], groups: Mapping[str, str]) -> None:
    """Adds the first candidate of a new group, else the first that is not there yet."""
    shown = {groups.get(clip, clip) for clip in chosen}
    fresh = [clip for clip in candidates if clip not in chosen]
    chosen += [clip for clip in fresh if groups.get(clip, clip) not in shown][:1] or fresh[:1]


def _rows(job: Job, split: str) -> list[Row]:
    return read_rows(job.config.folder / f"predictions.{split}.jsonl")


def _heads(job: Job, row: Row) -> Iterator[tuple[str, Any, Any]]:
    """(name, configuration, what it said) of every head that said classes or sentences."""
    for name, head in job.config.model.heads.items():
        if name in row and not isinstance(head, SeparationConfig):
            yield name, head, row[name]


def decisions(job: Job, row: Row, levels: Thresholds) -> tuple[Any, ...]:
    """What would be acted on, a head at a time: classes, by the thresholds that the run has tuned, and sentences."""
    return tuple(
        _decided(head, said, levels.get(name, {})) if isinstance(head, LabelsConfig) else said
        for name, head, said in _heads(job, row)
    )


def _decided(head: LabelsConfig, chances: Mapping[str, float], levels: Mapping[str, float]) -> frozenset[str]:
    if head.target == "single":
        return frozenset([max(chances, key=lambda label: chances[label])])
    return frozenset(label for label, chance in chances.items() if chance >= levels.get(label, THRESHOLD))


def _difference(decisions: Sequence[tuple[Any, ...]]) -> tuple[int, int]:
    """How many different answers there are: about classes first, in all second."""
    classes = {tuple(said for said in answer if isinstance(said, frozenset)) for answer in decisions}
    return len(classes), len(set(decisions))


def _example(clip: str, told: Mapping[str, tuple[Job, Mapping[str, Row]]], differs: bool) -> Example:
    truth = next(iter(told.values()))[1][clip]["truth"]
    rated = truth.get("relevances") or {}
    named = dict.fromkeys([*(truth["labels"] or ()), *rated])
    labels = tuple(label for label in named if _is_there(truth, label))
    answers = tuple(_answer(job, rows[clip], truth) for job, rows in told.values())
    labels = None if truth["labels"] is None and not rated else labels
    return Example(clip, labels, tuple(truth["captions"]), answers, differs)


def _is_there(truth: Row, label: str) -> bool | None:
    """Whether a clip has the class: by its rating, else by its labels; None when neither says."""
    rating = (truth.get("relevances") or {}).get(label)
    if rating is not None:
        return rating >= THRESHOLD
    return None if truth["labels"] is None else label in truth["labels"]


def _answer(job: Job, row: Row, truth: Row) -> Answer:
    guesses: list[Guess] = []
    captions: list[str] = []
    for _, head, said in _heads(job, row):
        if isinstance(head, LabelsConfig):
            falling = sorted(said.items(), key=lambda pair: -pair[1])[:TOP]
            guesses += [Guess(label, chance, _is_there(truth, label)) for label, chance in falling]
        else:
            captions.append(said)
    return Answer(job.row, tuple(guesses), tuple(captions))
