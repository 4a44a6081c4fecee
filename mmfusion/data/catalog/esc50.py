"""ESC-50 and ESC-10 (Piczak 2015): 2000 (400) environmental sounds of 5 s, 50 (10) classes, five official folds.

The Freesound recording is the group; nearly all fragments of one are in one fold. No fold is set aside for validation
unless it is asked for: published results train on four folds and test on the fifth.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mmfusion.config import configclass
from mmfusion.data.catalog.folds import Validate, write_folds
from mmfusion.data.catalog.prepared import Prepared
from mmfusion.data.catalog.tables import read_table
from mmfusion.types import Clip, InputError

COLUMNS = ("filename", "fold", "category", "esc10", "src_file")


@configclass
class Esc50Config:
    subset: Literal["esc50", "esc10"] = "esc50"
    """All 50 classes, or the ten of ESC-10 alone."""
    uncertain: Literal["keep", "drop"] = "keep"
    """Clips whose row says `id_certain` False, where the table has that column: their fold may be wrong."""
    validate: Validate = False
    """Keep the fold after the test fold for validation, or the one before it."""


def prepare(root: Path, out: Path, config: Esc50Config) -> Prepared:
    """Writes `out/fold-<k>/manifest.jsonl`, k = 1 .. 5: fold k tests. InputError naming what is missing."""
    folds: dict[int, list[Clip]] = {}
    missing, dropped = [], []
    table = root / "meta" / "esc50.csv"
    for number, row in enumerate(read_table(table, COLUMNS), start=1):
        if config.subset == "esc10" and row["esc10"] != "True":
            continue
        if config.uncertain == "drop" and row.get("id_certain") == "False":
            dropped.append(row["filename"])
            continue
        file = root / "audio" / row["filename"]
        if not file.is_file():
            missing.append(row["filename"])
            continue
        if not row["fold"].isdigit():
            raise InputError(f"{table}: row {number}: fold: must be a whole number, got {row['fold']!r}")
        clip = Clip(id=file.stem, media={"audio": str(file)}, split="", group=f"recording {row['src_file']}",
                    labels=(row["category"],))  # fmt: skip
        folds.setdefault(int(row["fold"]), []).append(clip)
    remarks = {"files of the table that are missing": missing, "clips whose fold is not certain": dropped}
    return write_folds(out, folds, config.validate, remarks)
