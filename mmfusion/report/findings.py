"""The errors of a label head, from the predictions of a run and, for the gradients, its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmfusion.data.windows import Aggregate
from mmfusion.evaluate import Row, chances_of, label_truth, levels_of, read_rows
from mmfusion.heads.labels import LabelsConfig
from mmfusion.metrics.labels import label_metrics, label_table
from mmfusion.report.clip_losses import clip_losses
from mmfusion.report.confusion import Confusion, confusions
from mmfusion.report.examples import TOP, Guess
from mmfusion.report.hardest import Judged, gradient_norms
from mmfusion.report.worst_window import WorstWindow, worst_windows
from mmfusion.training.run import Run
from mmfusion.types import THRESHOLD, InputError


@dataclass(frozen=True)
class Findings:
    """What was found. `figures` are those of metrics/labels.py, decided as `keep_scores` does."""

    head: str
    labels: tuple[str, ...]
    single: bool
    figures: dict[str, Any]
    matrices: list[Confusion]
    clips: list[Judged]
    """those of which some truth is known"""
    num_unknown: int
    """the others"""
    windows: Aggregate | None = None
    """how the windows of a clip became one answer; None where clips were not read in windows"""

    @property
    def tuned(self) -> bool:
        """Whether each class has a threshold of its own."""
        return any("threshold" in figures for figures in self.figures["per_class"].values())


def find_errors(run: Run, split: str, head: str | None = None, gradients: bool = True, quiet: bool = True) -> Findings:
    """The errors of a label head (None: the run's first) on a split that was predicted.

    A relevance counts as the class from 0.5 on, as in metrics/labels.py. Gradients are left out where the run has no
    weights. The loss of a clip is that of its probabilities, those that were joined where it was read in windows; but
    han2016 joins them to what is no probability, and there it is the mean of the windows' losses. InputError when the
    split was not predicted, the run has no such head, or no truth is known.
    """
    name, config = _label_head(run, head)
    path = run.folder / f"predictions.{split}.jsonl"
    if not path.exists():
        raise InputError(f"{path}: no such file; tools/evaluate.py {run.folder} --split {split} makes it")
    rows = read_rows(path)
    if not rows or name not in rows[0]:
        raise InputError(f"{path}: says nothing by the head {name!r}")
    labels, single = tuple(rows[0][name]), config.target == "single"
    reference, known = label_truth(rows, labels)
    if not known.any():
        raise InputError(f"{path}: the truth of no clip is known")
    chances, levels = chances_of(rows, name, labels), levels_of(run.thresholds(), name, labels)
    figures = label_metrics(reference, chances, labels, known, config.scored_as, levels)
    matrices = confusions(label_table(reference, chances, known, config.scored_as), labels, single, levels)
    norms = gradient_norms(run, split, name, quiet) if gradients and run.weights.exists() else {}
    worst = worst_windows(run, rows, name, labels, reference, known, config.target)
    how = run.config.windows.aggregate if run.config.windows and worst else None
    losses, sure = clip_losses(reference, chances, known, config.target), chances
    if worst and how == "han2016":
        losses = np.array([window.mean_loss for window in worst])
        sure = np.array([window.mean_chances for window in worst])
    windows = worst or [None] * len(rows)
    cells = zip(rows, losses.tolist(), reference >= THRESHOLD, known, chances, sure, windows, strict=True)
    clips = [
        _judge(row, loss, norms.get(row["id"]), labels, *own, single=single, levels=levels)
        for row, loss, *own in cells
        if np.isfinite(loss)
    ]
    return Findings(name, labels, single, figures, matrices, clips, len(rows) - len(clips), how)


def as_text(found: Findings) -> str:
    """The worst classes and the most frequent mistakes, for a person to read."""
    scored = {name: own["f1"] for name, own in found.figures["per_class"].items() if own["f1"] is not None}
    worst = sorted(scored.items(), key=lambda one: one[1])[:5]
    lines = [f"{len(found.clips)} clips, {len(found.labels)} classes"]
    if worst:
        lines[0] += f", macro F1 {found.figures['f1_macro']:.3f}"
        lines.append("lowest F1: " + ", ".join(f"{name} {value:.2f}" for name, value in worst))
    for matrix in found.matrices:
        pairs = [f"{row} -> {column} ({count} of {total})" for row, column, count, total in matrix.worst(5)]
        lines.append(f"{matrix.title.lower()}: " + ("; ".join(pairs) or "none"))
    if found.num_unknown:
        lines.append(f"{found.num_unknown} clips whose truth is not known are left out")
    return "\n".join(lines)


def _label_head(run: Run, wanted: str | None) -> tuple[str, LabelsConfig]:
    heads = {name: head for name, head in run.config.model.heads.items() if isinstance(head, LabelsConfig)}
    if not heads:
        raise InputError(f"{run.folder}: has no label head, and this is about labels")
    name = wanted or next(iter(heads))
    if name not in heads:
        raise InputError(f"{run.folder}: has no label head {name!r} (there are: {', '.join(heads)})")
    return name, heads[name]


def _judge(row: Row, loss: float, gradient: float | None, labels: Sequence[str], positive: np.ndarray,
           known: np.ndarray, chances: np.ndarray, believed: np.ndarray, window: WorstWindow | None, single: bool,
           levels: Sequence[float] | None) -> Judged:  # fmt: skip
    decided = np.arange(len(labels)) == chances.argmax() if single else chances >= np.array(levels or THRESHOLD)
    true = positive & known
    order = np.argsort(-chances, kind="stable")
    shown = [*order[:TOP], *(place for place in order[TOP:] if true[place])]
    guesses = tuple(Guess(labels[int(at)], float(chances[at]), bool(true[at]) if known[at] else None) for at in shown)
    true_names, said = (tuple(label for label, is_one in zip(labels, which, strict=True) if is_one)
                        for which in (true, decided))  # fmt: skip
    sure = float(believed.max() if single else np.maximum(believed, 1 - believed).mean())
    return Judged(row["id"], loss, gradient, true_names, said, guesses, min(max(sure, 0.0), 1.0), window)
