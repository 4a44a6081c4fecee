"""NSynth (Engel et al. 2017): 305,979 notes of 4 s, each of one instrument, of one of eleven families.

No instrument of the training part plays in the other two, but these two share instruments. So `valid` is not read
unless it is asked for, and validation takes whole instruments of the training part; the instrument is the group.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from mmfusion.config import configclass
from mmfusion.data.catalog.prepared import Prepared, drawn, media_path, write_set
from mmfusion.data.catalog.tables import read_object
from mmfusion.types import Clip, InputError

PARTS = {"train": "nsynth-train", "valid": "nsynth-valid", "test": "nsynth-test"}
FIELDS = {"family": "instrument_family_str", "source": "instrument_source_str", "instrument": "instrument_str"}


@configclass
class NsynthConfig:
    label: Literal["family", "source", "qualities"] = "family"
    """What is to be told: the instrument's family, its source (acoustic, electronic, synthetic), or the note's
    qualities (any number of ten)."""
    validation: Literal["train", "valid"] = "train"
    """Where validation comes from: instruments of the training part, or the part `valid` without the instruments that
    the test part has too."""
    val_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Part of the training instruments that validates."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Draws the instruments that validate."""


def prepare(root: Path, out: Path, config: NsynthConfig) -> Prepared:
    """Writes `out/manifest.jsonl`. InputError naming what is missing."""
    wanted = [part for part in PARTS if (root / PARTS[part] / "examples.json").is_file()]
    if not wanted:
        raise InputError(f"{root}: holds no {', '.join(f'{folder}/examples.json' for folder in PARTS.values())}")
    notes = {part: read_object(root / PARTS[part] / "examples.json") for part in wanted}
    tested = {_told(note, "instrument", root) for note in notes.get("test", {}).values()}
    instruments = sorted({_told(note, "instrument", root) for note in notes.get("train", {}).values()})
    held_out = drawn(instruments, config.val_share, config.seed, "val")
    clips, missing, shared = [], [], []
    for part in wanted if config.validation == "valid" else [part for part in wanted if part != "valid"]:
        for name, note in notes[part].items():
            file, instrument = root / PARTS[part] / "audio" / f"{name}.wav", _told(note, "instrument", root)
            if part == "valid" and instrument in tested:
                shared.append(name)
            elif not file.is_file():
                missing.append(name)
            else:
                held = part == "valid" or (part == "train" and config.validation == "train" and instrument in held_out)
                clips.append(Clip(id=name, media={"audio": media_path(file, out)}, split="val" if held else part,
                                  group=instrument, labels=_labels(note, config.label, root)))  # fmt: skip
    if not clips:
        raise InputError(
            f"{root}: holds no file of its notes (the first would be {missing[0] if missing else '?'}.wav)"
        )
    remarks = {"notes without a file": missing, "validation notes whose instrument is tested": shared}
    return write_set({out / "manifest.jsonl": clips}, remarks)


def _told(note: Any, field: str, root: Path) -> str:
    value = note.get(FIELDS[field]) if isinstance(note, dict) else None
    if not isinstance(value, str):
        raise InputError(f"{root}: examples.json: {FIELDS[field]}: every note must have it, as a text")
    return value


def _labels(note: dict[str, Any], label: str, root: Path) -> tuple[str, ...]:
    if label != "qualities":
        return (_told(note, label, root),)
    qualities = note.get("qualities_str")
    if not isinstance(qualities, list):
        raise InputError(f"{root}: examples.json: qualities_str: every note must have it, as a list")
    return tuple(qualities)
