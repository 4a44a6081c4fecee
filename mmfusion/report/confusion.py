"""What is taken for what, by counting clips: a confusion matrix, or false alarms beside what was there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmfusion.metrics.labels import LabelTable, decide

NOTHING = "(nothing)"


@dataclass(frozen=True)
class Confusion:
    """Counts (R, C) of clips. `totals` (R,) are the clips that a row is about, `meaning` says what a cell is."""

    name: str
    title: str
    meaning: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: np.ndarray
    totals: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """(R, C) in [0, 1]: of the clips of a row; zeros where it has none."""
        return self.counts / np.maximum(self.totals, 1)[:, None]

    def worst(self, number: int) -> list[tuple[str, str, int, int]]:
        """The `number` most frequent pairs of two classes: (row, column, clips, clips of the row), most clips first."""
        wrong = [
            (row, column, int(self.counts[r, c]), int(self.totals[r]))
            for r, row in enumerate(self.rows)
            for c, column in enumerate(self.columns)
            if row != column and self.counts[r, c]
        ]
        return sorted(wrong, key=lambda one: (-one[2], one[3]))[:number]


def confusions(
    table: LabelTable, names: Sequence[str], single: bool, thresholds: Sequence[float] | None = None
) -> list[Confusion]:
    """The matrix of a single label, or for several labels the two that say what false alarms go with.

    `thresholds` (C,) stand for 0.5. Clips (`single`) or cells whose truth is not known count nowhere.
    """
    names = tuple(names)
    decided = decide(table, "single" if single else "multi", thresholds)
    true = table.reference & table.mask
    if single:
        meaning = "Of the clips of the class on the left, the share that was taken for the class below."
        return [_together("confusion", "Confusion matrix", meaning, names, names, true, decided & table.mask)]
    alarm = decided & ~table.reference & table.mask
    missed = true & ~decided
    nothing = table.mask.any(axis=1) & ~true.any(axis=1)
    return [
        _together(
            "false_alarms_with_missed", "False alarms where a class was missed",
            "Of the clips in which the class on the left was missed, the share in which the class below was a false "
            "alarm: what may have been said in its place. No confusion matrix: with several labels a clip, no false "
            "alarm belongs to one missed class, a clip may count in many cells, and rows need not sum to 1.",
            names, names, missed, alarm,
        ),
        _together(
            "false_alarms_with_true", "False alarms where a class is there",
            "Of the clips in which the class on the left is there, found or not, the share in which the class below "
            "was a false alarm: what may have set it off. A clip may count in many cells; rows need not sum to 1.",
            (*names, NOTHING), names, np.column_stack([true, nothing]), alarm,
        ),
    ]  # fmt: skip


def _together(name: str, title: str, meaning: str, rows: tuple[str, ...], columns: tuple[str, ...], here: np.ndarray,
              there: np.ndarray) -> Confusion:  # fmt: skip
    """Clips in which a row's thing (N, R) and a column's thing (N, C) occur together."""
    counts = here.T.astype(np.int64) @ there.astype(np.int64)
    return Confusion(name, title, meaning, rows, columns, counts, here.sum(axis=0))
