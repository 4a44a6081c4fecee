"""IRMAS (Bosch, Janer, Fuhrmann, Herrera 2012): the predominant instrument of a piece of music, eleven classes.

Training: 6,705 excerpts of 3 s in a folder a class: one instrument each, a genre, and in some with or without drums,
`[cla][cla]0189__2.wav` or, mostly where drums are spoken of, with a number in front, `008__[cel][nod][cla]0058__1.wav`.
Test: 2,874 excerpts of 5 to 20 s in three parts, each with a .txt of one or more instruments. Excerpts of one piece
share the number after the brackets, or in the test parts their name up to the last "-"; the piece is the group.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mmfusion.config import configclass
from mmfusion.data.catalog.prepared import Prepared, drawn, media_path, write_set
from mmfusion.data.catalog.tables import read_text
from mmfusion.types import Clip, InputError

CLASSES = {
    "cel": "cello", "cla": "clarinet", "flu": "flute", "gac": "acoustic guitar", "gel": "electric guitar",
    "org": "organ", "pia": "piano", "sax": "saxophone", "tru": "trumpet", "vio": "violin", "voi": "voice",
}  # fmt: skip
TRAINING, TESTING = "IRMAS-TrainingData", "IRMAS-TestingData-Part*"
GENRES = ("cou_fol", "cla", "pop_roc", "lat_sou", "jaz_blu")
_FORM = re.compile(r"(?:\d+__)?\[(?P<class>[^\]]*)\](?P<tags>(?:\[[^\]]*\])*)\s*(?P<piece>\d+)__\d+$")


@configclass
class IrmasConfig:
    val_share: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Part of the training pieces of each class that validates."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Draws the pieces that validate."""


def prepare(root: Path, out: Path, config: IrmasConfig) -> Prepared:
    """Writes `out/manifest.jsonl`; training clips have one label, test clips one or more. InputError as usual."""
    training, odd = _training(root / TRAINING, out, config)
    testing, untold, silent = _testing(root, out)
    if not training and not testing:
        raise InputError(f"{root}: holds neither {TRAINING}/<class>/*.wav nor {TESTING}/**/*.wav")
    remarks = {
        "training files whose name is not of the set's form": odd,
        "test files without a .txt": untold,
        "test .txt without a sound": silent,
    }
    return write_set({out / "manifest.jsonl": [*training, *testing]}, remarks)


def _training(folder: Path, out: Path, config: IrmasConfig) -> tuple[list[Clip], list[str]]:
    clips, odd = [], []
    for short, name in CLASSES.items():
        pieces: dict[str, list[Path]] = {}
        for file in sorted((folder / short).glob("*.wav")):
            found = _FORM.match(file.stem)
            if found is None or found["class"] != short:
                odd.append(f"{short}/{file.name}")
            else:
                pieces.setdefault(f"{short} {found['piece']}", []).append(file)
        ordered = sorted(pieces)
        held_out = drawn(ordered, config.val_share, config.seed, "val", short)
        clips += [
            Clip(id=f"train-{file.stem}", media={"audio": media_path(file, out)},
                 split="val" if piece in held_out else "train", group=f"piece {piece}", labels=(name,),
                 genre=_genre(file.stem))
            for piece in ordered
            for file in pieces[piece]
        ]  # fmt: skip
    return clips, odd


def _genre(stem: str) -> str | None:
    """The genre among the tags after the first, which is the instrument ("cla" is clarinet there, classical here)."""
    tags = re.findall(r"\[([^\]]*)\]", stem)[1:]
    return next((tag for tag in tags if tag in GENRES), None)


def _testing(root: Path, out: Path) -> tuple[list[Clip], list[str], list[str]]:
    """The clips, the sounds that no .txt tells of, and the .txt whose sound is not there."""
    clips, untold = [], []
    files = sorted(path for folder in root.glob(TESTING) for path in folder.rglob("*"))
    notes = {file.with_suffix(""): file for file in files if file.suffix.lower() == ".txt"}
    for file in files:
        if file.suffix.lower() != ".wav":
            continue
        note = notes.pop(file.with_suffix(""), None)
        if note is None:
            untold.append(file.name)
            continue
        told = read_text(note).split()
        for short in told:
            if short not in CLASSES:
                raise InputError(f"{note}: {short!r} is none of {', '.join(CLASSES)}")
        piece = file.stem.rpartition("-")[0] or file.stem
        labels = tuple(name for short, name in CLASSES.items() if short in told)
        clips.append(Clip(id=f"test-{file.parent.name}-{file.stem}", media={"audio": media_path(file, out)},
                          split="test", group=f"test piece {piece}", labels=labels))  # fmt: skip
    return clips, untold, [note.name for note in notes.values() if note.name.lower() != "readme.txt"]
