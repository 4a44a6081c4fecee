"""Drones, helicopters and background: real videos and real sounds, paired by class (Svanstrom et al. 2020).

None of the videos has sound, so a clip is a video and a sound recording of the same class, never of the same moment.
The sounds know three classes and the videos four; the classes here are the three of the sounds, and a video of an
airplane or a bird shows background.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mmfusion.config import configclass
from mmfusion.data.catalog.prepared import Prepared, media_path, seeded, write_set
from mmfusion.types import Clip, InputError

CLASS_OF = {"drone": "drone", "helicopter": "helicopter", "background": "background",
            "airplane": "background", "bird": "background"}  # fmt: skip
NUM_FOLDS = 5


@configclass
class DroneConfig:
    seed: Annotated[int, Field(ge=0)] = 0
    """Deals the recordings to the folds and draws the pairs."""
    block_size: Annotated[int, Field(ge=1)] = 6
    """Recordings with neighbouring numbers that stay together, as they can come from one flight."""
    pairs: Annotated[int, Field(ge=1)] = 1
    """Sounds that every video is paired with."""


@dataclass(frozen=True)
class Recording:
    """A file of the set; `source` is what video_description.csv says of its drone or its origin."""

    file: Path
    kind: str
    number: int
    source: str = ""


def prepare(root: Path, out: Path, config: DroneConfig) -> Prepared:
    """Writes `out/split-<k>/manifest.jsonl` for k = 0..4: fold k tests, fold k + 1 (modulo 5) validates.

    Every video is in each manifest `pairs` times, with sounds of its own class and fold; so the fold is the group, and
    a recording is in one split only. Raises InputError naming what is missing.
    """
    sounds, videos, remarks = read_recordings(root)
    pairs = draw_pairs(deal(sounds, config), deal(videos, config), config)
    manifests = {}
    for test in range(NUM_FOLDS):
        folder = out / f"split-{test}"
        split_of = {test: "test", (test + 1) % NUM_FOLDS: "val"}
        manifests[folder / "manifest.jsonl"] = [
            Clip(
                id=f"{video.file.stem}-{sound.file.stem}",
                media={"audio": media_path(sound.file, folder), "video": media_path(video.file, folder)},
                split=split_of.get(fold, "train"),
                group=f"fold {fold}",
                labels=(CLASS_OF[video.kind],),
            )
            for fold, sound, video in pairs
        ]
    return write_set(manifests, remarks)


def read_recordings(root: Path) -> tuple[list[Recording], list[Recording], dict[str, list[str]]]:
    """Sounds, visible videos, and the names of what is described or listed but not there."""
    described = {
        (row["CLASS"].lower(), int(row["NUMBER"])): row["DRONE TYPE / INTERNET SOURCE"]
        for row in _rows(root / "video_description.csv", ("SENSOR", "CLASS", "NUMBER", "DRONE TYPE / INTERNET SOURCE"))
        if row["SENSOR"] == "V"
    }
    sounds, videos, missing = [], [], []
    for row in _rows(root / "index.csv", ("path", "sensor", "label", "number")):
        if row["label"] not in CLASS_OF:
            raise InputError(f"{root / 'index.csv'}: label: {row['label']!r} is not one of {', '.join(CLASS_OF)}")
        file, key = root / row["path"], (row["label"], int(row["number"]))
        if not file.is_file():
            missing.append(row["path"])
        elif row["sensor"] == "Audio":
            sounds.append(Recording(file, *key))
        else:
            videos.append(Recording(file, *key, described.get(key, "")))
    listed = {(video.kind, video.number) for video in videos}
    absent = [f"{kind} {number}" for kind, number in described if (kind, number) not in listed]
    return sounds, videos, {"files of the index that are missing": missing, "described videos without a file": absent}


def deal(recordings: Sequence[Recording], config: DroneConfig) -> list[tuple[int, Recording]]:
    """(fold, recording): blocks of neighbours go, largest first, to the fold that has least of their kind.

    A block never spans two sources. Which of the equally large blocks goes where is drawn; folds that have equally
    many of a kind are taken by how many recordings they have in all.
    """
    dealt = []
    total = [0] * NUM_FOLDS
    for kind in sorted({recording.kind for recording in recordings}):
        members = sorted((r for r in recordings if r.kind == kind), key=lambda r: r.number)
        blocks = _blocks(members, config.block_size)
        if len(blocks) < NUM_FOLDS:
            raise InputError(f"drone: block_size: {len(members)} {kind} recordings make fewer than {NUM_FOLDS} blocks")
        draw = seeded(config.seed, "folds", members[0].file.suffix, kind)
        order = sorted(draw.permutation(len(blocks)).tolist(), key=lambda index: -len(blocks[index]))
        held = [0] * NUM_FOLDS
        for index in order:
            fold = min(range(NUM_FOLDS), key=lambda fold: (held[fold], total[fold]))
            held[fold] += len(blocks[index])
            total[fold] += len(blocks[index])
            dealt += [(fold, recording) for recording in blocks[index]]
    return dealt


def draw_pairs(
    sounds: Sequence[tuple[int, Recording]], videos: Sequence[tuple[int, Recording]], config: DroneConfig
) -> list[tuple[int, Recording, Recording]]:
    """(fold, sound, video) of one class and one fold; sounds are dealt in turn, so that they are used equally often."""
    pairs = []
    for fold in range(NUM_FOLDS):
        for label in ("background", "drone", "helicopter"):
            seen = [video for f, video in videos if f == fold and CLASS_OF[video.kind] == label]
            heard = [sound for f, sound in sounds if f == fold and CLASS_OF[sound.kind] == label]
            if not seen or len(heard) < config.pairs:
                raise InputError(f"drone: pairs: fold {fold} has {len(seen)} videos, {len(heard)} sounds of {label}")
            draw = seeded(config.seed, "pairs", fold, label)
            seen = [seen[index] for index in draw.permutation(len(seen))]
            heard = [heard[index] for index in draw.permutation(len(heard))]
            for place, video in enumerate(seen):
                pairs += [
                    (fold, heard[(place * config.pairs + turn) % len(heard)], video) for turn in range(config.pairs)
                ]
    return pairs


def _blocks(members: Sequence[Recording], size: int) -> list[list[Recording]]:
    blocks: list[list[Recording]] = []
    for recording in members:
        if not blocks or len(blocks[-1]) == size or blocks[-1][-1].source != recording.source:
            blocks.append([])
        blocks[-1].append(recording)
    return blocks


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    for column in columns:
        if not rows or column not in rows[0]:
            raise InputError(f"{path}: {column}: column is missing")
    return rows
