"""Clotho (Drossos et al. 2020), version 1: five captions a Freesound recording of 15 to 30 seconds; no pictures.

`development` trains and `evaluation` tests; version 1 has no validation part, so some of development is drawn for it. A
clip is named as its file is, `.wav` included. Who uploaded a recording is not told: every clip is a group of its own.
The Korean columns of the tables at hand (cp949) are not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from mmfusion.config import configclass
from mmfusion.data.catalog.captioned import Captioned, Captions, part_files, write_captioned
from mmfusion.data.catalog.prepared import Prepared, seeded
from mmfusion.data.catalog.tables import read_table
from mmfusion.types import InputError

FILES = {"train": "clotho_captions_development.csv", "test": "clotho_captions_evaluation.csv"}
COLUMNS = ("file_name", *(f"caption_{number}" for number in range(1, 6)))


@configclass
class ClothoConfig:
    media: str | None = None
    """Folder of the recordings, with or without `development/` and `evaluation/`; null writes references for scoring
    and no manifest."""
    num_val_clips: Annotated[int, Field(ge=0)] = 200
    """Recordings of the development part that validate."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Draws the recordings that validate."""


def prepare(root: Path, out: Path, config: ClothoConfig) -> Prepared:
    """Writes `out/manifest.jsonl`, or `out/references.<split>.json` without media. Raises InputError."""
    files, remarks = part_files(root, FILES)
    clips = []
    for split, path in files.items():
        captions = read_captions(path)
        names = list(captions)
        if split == "train" and config.num_val_clips >= len(names):
            raise InputError(f"clotho: num_val_clips: must leave some of the {len(names)} clips of {path.name}")
        num_val = config.num_val_clips if split == "train" else 0
        val = {names[index] for index in seeded(config.seed, "val").permutation(len(names))[:num_val]}
        clips += [
            Captioned(id=name, split="val" if name in val else split, group=name, captions=captions[name],
                      stems=(Path(name).stem,))
            for name in names
        ]  # fmt: skip
    return write_captioned(out, clips, config.media, remarks)


def read_captions(path: Path) -> Captions:
    """File name -> its five English captions. InputError names the file that stands twice."""
    found: Captions = {}
    for row in read_table(path, COLUMNS):
        if row["file_name"] in found:
            raise InputError(f"{path}: file_name: {row['file_name']} stands twice")
        found[row["file_name"]] = [row[column] for column in COLUMNS[1:]]
    return found
