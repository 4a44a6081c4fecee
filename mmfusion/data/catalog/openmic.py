"""OpenMIC-2018 (Humphrey, Durand, McFee 2018): 20,000 ten-second clips of music, rated for some of 20 instruments.

Each clip was rated for a few instruments only. `Y_true` holds 0.5 where nothing was rated: that number is no label, and
becomes no entry of `relevances`. Artists, where the metadata name them, are the groups; the official split (split01)
keeps them apart.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from mmfusion.config import configclass
from mmfusion.data.catalog.prepared import Prepared, drawn, media_path, read_arrays, write_set
from mmfusion.data.catalog.tables import read_object, read_table, read_text
from mmfusion.data.features import write_features
from mmfusion.types import Clip, InputError

RATE = 1.0  # VGGish embeddings a second
LENGTH_S = 10.0
ARCHIVE, CLASSES = "openmic-2018.npz", "class-map.json"
RATED, METADATA = "openmic-2018-aggregated-labels.csv", "openmic-2018-metadata.csv"


@configclass
class OpenmicConfig:
    media: Literal["audio", "vggish", "both", "either"] = "either"
    """What a clip must have to be taken: its ogg file, its VGGish embedding from the npz, both, or either."""
    val_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Part of the training artists that validates."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Draws the artists that validate."""


def prepare(root: Path, out: Path, config: OpenmicConfig) -> Prepared:
    """Writes `out/manifest.jsonl` and the embeddings (10, 128) as the stream `vggish`. InputError as usual."""
    names = _names(root / CLASSES)
    arrays = _arrays(root / ARCHIVE)
    ratings = _from_archive(root / ARCHIVE, arrays, names) if arrays else _from_table(root / RATED, names)
    artists = _artists(root / METADATA)
    split_of = _splits(root / "partitions", sorted(ratings), artists, config)
    row_of = {key: row for row, key in enumerate(arrays["sample_key"])} if arrays else {}
    clips, missing, unsplit, partial = [], [], [], []
    for key in sorted(ratings):
        file = root / "audio" / key[:3] / f"{key}.ogg"
        media = {"audio": media_path(file, out)} if config.media != "vggish" and file.is_file() else {}
        if arrays and config.media != "audio":
            features = out / "vggish" / key[:3] / f"{key}.npz"
            # As published: quantized to 8 bits; the steps keep that scale.
            write_features(features, arrays["X"][row_of[key]].astype(np.float32), RATE)
            media["vggish"] = media_path(features, out)
        if not media or (config.media == "both" and len(media) < 2):
            missing.append(key)
        elif key not in split_of:
            unsplit.append(key)
        else:
            if config.media == "either" and arrays and "audio" not in media:
                partial.append(key)
            clips.append(Clip(id=key, media=media, split=split_of[key], group=artists.get(key, key), end_s=LENGTH_S,
                              relevances=ratings[key]))  # fmt: skip
    if not clips:
        raise InputError(f"{root}: no rated clip has a file (audio/<abc>/<key>.ogg) or an embedding ({ARCHIVE})")
    remarks = {
        "rated clips without a file": missing,
        "rated clips with an embedding and without a sound file": partial,
        "rated clips in neither part of split01": unsplit,
    }
    return write_set({out / "manifest.jsonl": clips}, remarks)


def _arrays(path: Path) -> dict[str, Any] | None:
    """The published arrays; the keys are stored as objects there."""
    return read_arrays(path, ("X", "Y_true", "Y_mask", "sample_key"), texts=["sample_key"]) if path.exists() else None


def _names(path: Path) -> list[str]:
    numbered = read_object(path)
    if sorted(numbered.values()) != list(range(len(numbered))):
        raise InputError(f"{path}: must number its classes from 0 to {len(numbered) - 1}")
    return sorted(numbered, key=lambda name: numbered[name])


def _from_archive(path: Path, arrays: dict[str, Any], names: Sequence[str]) -> dict[str, dict[str, float]]:
    truth, mask, keys = arrays["Y_true"], arrays["Y_mask"].astype(bool), arrays["sample_key"]
    if truth.shape != (len(keys), len(names)) or mask.shape != truth.shape or len(arrays["X"]) != len(keys):
        raise InputError(f"{path}: Y_true: must have a row a sample_key and a column a class, as Y_mask has")
    return {
        key: {name: float(truth[row, place]) for place, name in enumerate(names) if mask[row, place]}
        for row, key in enumerate(keys)
    }


def _from_table(path: Path, names: Sequence[str]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for number, row in enumerate(read_table(path, ("sample_key", "instrument", "relevance")), start=1):
        if row["instrument"] not in names:
            raise InputError(f"{path}: row {number}: instrument: {row['instrument']!r} is not in {CLASSES}")
        try:
            found.setdefault(row["sample_key"], {})[row["instrument"]] = float(row["relevance"])
        except ValueError as error:
            raise InputError(f"{path}: row {number}: relevance: {row['relevance']!r} is no number") from error
    return found


def _artists(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    return {row["sample_key"]: f"artist {row['artist_id']}" for row in read_table(path, ("sample_key", "artist_id"))}


def _splits(folder: Path, keys: Sequence[str], artists: dict[str, str], config: OpenmicConfig) -> dict[str, str]:
    """Key -> split; validation takes whole artists of the training part."""
    found = {}
    for split in ("train", "test"):
        lines = csv.reader(read_text(folder / f"split01_{split}.csv").splitlines())
        found |= {line[0]: split for line in lines if line}
    groups = sorted({artists.get(key, key) for key in keys if found.get(key) == "train"})
    held_out = drawn(groups, config.val_share, config.seed, "val")
    return {key: "val" if split == "train" and artists.get(key, key) in held_out else split
            for key, split in found.items()}  # fmt: skip
