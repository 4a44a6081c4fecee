"""The windows of a clip, each graded against what is known of the whole clip; the worst one is what a page plays.

What is known of a clip says nothing about when: a window in which a class of the clip does not sound counts as wrong
when it does not name the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmfusion.evaluate import Row, chances_of
from mmfusion.report.clip_losses import clip_losses
from mmfusion.report.examples import TOP, Guess
from mmfusion.training.run import Run
from mmfusion.types import THRESHOLD, InputError


@dataclass(frozen=True, eq=False)
class WorstWindow:
    """The window of highest loss, on the clip's clock; the clip ends at `clip_s`, of `num` windows.

    `guesses` are the classes that are likeliest in it; `mean_loss` is over all windows of the clip.
    """

    start_s: float
    end_s: float
    loss: float
    guesses: tuple[Guess, ...]
    num: int
    clip_s: float
    mean_loss: float
    mean_chances: np.ndarray
    """(C,) over all windows"""


def worst_windows(run: Run, rows: Sequence[Row], head: str, labels: Sequence[str], reference: np.ndarray,
                  known: np.ndarray, target: str) -> list[WorstWindow] | None:  # fmt: skip
    """The worst window of each row, by `clip_losses`; None where the rows were not said of windows.

    Rows of classifiers without a model are of whole clips in a run with windows too. InputError where a run with
    windows was predicted before its rows kept them.
    """
    if run.config.windows is None:
        return None
    if any("windows" not in row for row in rows):
        facts = run.folder / "provenance.json"
        if facts.exists() and "baseline" in run.read_json(facts.name):
            return None
        raise InputError(f"{run.folder}: its predictions do not keep what was said of windows; evaluate it again")
    return [
        _worst(row["windows"], head, labels, *cells, target=target)
        for row, *cells in zip(rows, reference, known, strict=True)
    ]


def _worst(windows: Sequence[Row], head: str, labels: Sequence[str], reference: np.ndarray, known: np.ndarray,
           target: str) -> WorstWindow:  # fmt: skip
    chances = chances_of(windows, head, labels)
    whole, there = (np.broadcast_to(own, chances.shape) for own in (reference, known))
    losses = clip_losses(whole, chances, there, target)
    at = int(np.nan_to_num(losses).argmax())
    truth = [bool(own >= THRESHOLD) if is_known else None for own, is_known in zip(reference, known, strict=True)]
    likeliest = np.argsort(-chances[at], kind="stable")[:TOP]
    return WorstWindow(
        start_s=windows[at]["start_s"],
        end_s=windows[at]["end_s"],
        loss=float(losses[at]),
        guesses=tuple(Guess(labels[int(place)], float(chances[at, place]), truth[int(place)]) for place in likeliest),
        num=len(windows),
        clip_s=max(window["end_s"] for window in windows),
        mean_loss=float(losses.mean()),
        mean_chances=chances.mean(axis=0),
    )
