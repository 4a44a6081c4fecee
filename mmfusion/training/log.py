"""Figures of a training: one CSV row each (and TensorBoard), cut back on resume to what the checkpoint had seen."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COLUMNS = ("update", "epoch", "split", "figure", "value")


class Log:
    """Appends figures to `metrics.csv`; only the main process writes.

    `epoch` is the one that training is in: rows of closed epochs are kept, later ones were written after the checkpoint
    and will be written again.
    """

    def __init__(self, folder: Path, update: int, epoch: int, tensorboard: bool, writing: bool = True) -> None:
        self.writing = writing
        self._file: Any = None
        self._board: Any = None
        if not writing:
            return
        path = folder / "metrics.csv"
        kept = [row for row in read_log(path) if row["epoch"] < epoch]
        part = path.with_name("metrics.csv.part")
        with part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows([row[column] for column in COLUMNS] for row in kept)
        os.replace(part, path)
        self._file = path.open("a", newline="", encoding="utf-8")
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=update + 1)

    def write(self, update: int, epoch: int, split: str, figures: Mapping[str, float]) -> None:
        if not self.writing:
            return
        for name, value in figures.items():
            csv.writer(self._file).writerow((update, epoch, split, name, repr(float(value))))
            if self._board is not None:
                self._board.add_scalar(f"{split}/{name}", value, update)
        self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.csv with numbers as numbers; [] when there is none."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    read: list[dict[str, Any]] = []
    for row in rows:
        try:
            read.append({**row, "update": int(row["update"]), "epoch": int(row["epoch"]), "value": float(row["value"])})
        except (TypeError, ValueError):  # a kill may leave half a last line
            continue
    return read
