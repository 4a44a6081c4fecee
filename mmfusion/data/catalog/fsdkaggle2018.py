"""FSDKaggle2018 (Fonseca et al. 2018): 11,073 Freesound clips of 0.3 to 30 s, one of 41 classes each.

About 3,710 of the 9,473 training clips were verified by hand (`manually_verified`); all 1,600 test clips were. The
table does not name who uploaded a clip: every clip is a group of its own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from mmfusion.config import configclass
from mmfusion.data.catalog.prepared import Prepared, drawn, media_path, write_set
from mmfusion.data.catalog.tables import read_table
from mmfusion.types import Clip, InputError

TRAIN = ("FSDKaggle2018.audio_train", "FSDKaggle2018.meta/train_post_competition.csv")
TEST = ("FSDKaggle2018.audio_test", "FSDKaggle2018.meta/test_post_competition_scoring_clips.csv")


@configclass
class Fsdkaggle2018Config:
    unverified: Literal["keep", "unlabelled", "drop"] = "keep"
    """Training clips that were not verified by hand: as they are, without their label, or left out."""
    val_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Part of the verified training clips of each class that validates."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Draws the clips that validate."""


def prepare(root: Path, out: Path, config: Fsdkaggle2018Config) -> Prepared:
    """Writes `out/manifest.jsonl`. InputError naming what is missing."""
    clips: list[Clip] = []
    missing, dropped = [], []
    verified: dict[str, list[int]] = {}
    for folder, table in (TRAIN, TEST):
        columns = ("fname", "label", *(("manually_verified",) if folder == TRAIN[0] else ()))
        for row in read_table(root / table, columns):
            file, sure = root / folder / row["fname"], row.get("manually_verified", "1") == "1"
            if not sure and config.unverified == "drop":
                dropped.append(row["fname"])
                continue
            if not file.is_file():
                missing.append(row["fname"])
                continue
            if folder == TRAIN[0] and sure:
                verified.setdefault(row["label"], []).append(len(clips))
            labels = (row["label"],) if sure or config.unverified == "keep" else None
            split = "train" if folder == TRAIN[0] else "test"
            clips.append(Clip(id=f"{split}-{file.stem}", media={"audio": media_path(file, out)}, split=split,
                              group=f"{split}-{file.stem}", labels=labels))  # fmt: skip
    if not clips:
        raise InputError(f"{root}: holds no file of its tables (the first would be {missing[0] if missing else '?'})")
    held_out = _held_out(verified, config)
    clips = [replace(clip, split="val") if place in held_out else clip for place, clip in enumerate(clips)]
    remarks = {"files of the tables that are missing": missing, "clips not verified by hand": dropped}
    return write_set({out / "manifest.jsonl": clips}, remarks)


def _held_out(verified: dict[str, list[int]], config: Fsdkaggle2018Config) -> set[int]:
    found: set[int] = set()
    for label, places in sorted(verified.items()):
        found |= drawn(places, config.val_share, config.seed, "val", label)
    return found
