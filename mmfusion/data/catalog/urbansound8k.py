"""UrbanSound8K (Salamon, Jacoby, Bello 2014): 8732 sounds of at most 4 s, ten classes, ten official folds.

Slices of one Freesound recording (`fsID`) are in one fold; the recording is the group. Results on other than the
official folds, or on folds that were shuffled, do not compare with anybody's.
"""

from __future__ import annotations

from pathlib import Path

from mmfusion.config import configclass
from mmfusion.data.catalog.folds import write_folds
from mmfusion.data.catalog.prepared import Prepared
from mmfusion.data.catalog.tables import read_table
from mmfusion.types import Clip, InputError

COLUMNS = ("slice_file_name", "fsID", "salience", "fold", "class")
# The class's column is `class` in the set as it is published and `class_name` in some copies.
ALIASES = {"class": "class_name"}
FOREGROUND = "1"


@configclass
class Urbansound8kConfig:
    foreground: bool = False
    """Only sounds that their annotators heard in the foreground (`salience` 1)."""
    validate: bool = True
    """Keep the fold after the test fold for validation."""


def prepare(root: Path, out: Path, config: Urbansound8kConfig) -> Prepared:
    """Writes `out/fold-<k>/manifest.jsonl`, k = 1 .. 10: fold k tests. InputError naming what is missing."""
    folds: dict[int, list[Clip]] = {}
    missing = []
    table = root / "metadata" / "UrbanSound8K.csv"
    for number, row in enumerate(read_table(table, COLUMNS, ALIASES), start=1):
        if config.foreground and row["salience"] != FOREGROUND:
            continue
        if not row["fold"].isdigit():
            raise InputError(f"{table}: row {number}: fold: must be a whole number, got {row['fold']!r}")
        file = root / "audio" / f"fold{row['fold']}" / row["slice_file_name"]
        if not file.is_file():
            missing.append(f"fold{row['fold']}/{row['slice_file_name']}")
            continue
        clip = Clip(id=file.stem, media={"audio": str(file)}, split="", group=f"recording {row['fsID']}",
                    labels=(row["class"],))  # fmt: skip
        folds.setdefault(int(row["fold"]), []).append(clip)
    return write_folds(out, folds, config.validate, {"files of the table that are missing": missing})
