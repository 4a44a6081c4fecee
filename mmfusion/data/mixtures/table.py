"""The table of a mixture, one row a source: everything that it takes to make the mixture again from the same files.

    start_s, end_s         where the source sounds in the mixture (in a room it rings on)
    class_id, class_name   the place of the class among the sorted classes of the set, and its name
    source_file            as it stands in the `manifest`, whose folder it starts from
    gain_db                what the samples of the file are multiplied by before `scale`
    snr_db                 energy in the mixture relative to that of the first source (`mixtures.py`)
    scale                  what all sources are multiplied by so that nothing clips, 1.0 when nothing would
    stored_as              the file of the source itself, from the folder of the set
    clip ... clip_end_s    the clip of the manifest, and what was read of its file
    crop_start_s           where in the clip's files, sound and pictures, the source begins
    impulse_response       the room that it is heard in, empty when dry
    video_file             the clip's pictures, empty when it has none
    shown                  1 where the film has these pictures
    video_flaw             what of these pictures could not be read, of those that were to be shown
    mixture ... manifest   the same in every row
    samples_hash           of the stored samples, so that a file that has changed is noticed

Times are seconds and whole numbers of samples; numbers are written so that they are read back exactly.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmfusion.data.mixtures.recipes import Part, Recipe
from mmfusion.types import Clip, InputError

COLUMNS = (
    "start_s", "end_s", "class_id", "class_name", "source_file", "gain_db", "snr_db", "scale", "stored_as",
    "clip", "clip_start_s", "clip_end_s", "crop_start_s", "impulse_response", "video_file", "shown", "video_flaw",
    "mixture", "split", "number", "seed", "duration_s", "sample_rate_hz", "level_db", "manifest", "samples_hash",
)  # fmt: skip
_SHARED = ("scale", "mixture", "split", "number", "seed", "duration_s", "sample_rate_hz", "level_db", "manifest")


@dataclass(frozen=True)
class Mixture:
    """A recipe, the manifest that its clips come from, and the place of the part that the film shows (None: no film).

    The media of its clips are "audio" and, where there are pictures, "video". `flaws` says by place what of the
    pictures that were to be shown could not be read.
    """

    recipe: Recipe
    manifest: Path
    shown: int | None = None
    flaws: Mapping[int, str] = field(default_factory=dict)


def to_table(mixture: Mixture, scale: float, stored_as: Sequence[str], hashes: Sequence[str]) -> str:
    """The table as text. The clips of the recipe must say where they end."""
    recipe = mixture.recipe
    shared = {
        "scale": scale, "mixture": recipe.id, "split": recipe.split, "number": recipe.number, "seed": recipe.seed,
        "duration_s": recipe.duration_s, "sample_rate_hz": recipe.sample_rate_hz, "level_db": recipe.level_db,
        "manifest": mixture.manifest.as_posix(),
    }  # fmt: skip
    text = io.StringIO()
    table: csv.DictWriter[str] = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    for place, part in enumerate(recipe.parts):
        own = {
            "stored_as": stored_as[place], "samples_hash": hashes[place], "shown": int(place == mixture.shown),
            "video_flaw": mixture.flaws.get(place, ""),
        }  # fmt: skip
        table.writerow({**shared, **own, **_columns_of(part, recipe.sample_rate_hz)})
    return text.getvalue()


def _columns_of(part: Part, rate: int) -> dict[str, Any]:
    clip = part.clip
    return {
        "start_s": part.onset_sample / rate,
        "end_s": part.end_sample / rate,
        "class_id": part.class_id,
        "class_name": part.label,
        "source_file": clip.media["audio"],
        "gain_db": part.gain_db,
        "snr_db": part.snr_db,
        "clip": clip.id,
        "clip_start_s": clip.start_s,
        "clip_end_s": clip.end_s,
        "crop_start_s": crop_start_s(part, rate),
        "impulse_response": part.impulse_response or "",
        "video_file": clip.media.get("video", ""),
    }


def crop_start_s(part: Part, rate: int) -> float:
    """Where in the files of its clip a part begins, in seconds."""
    return part.clip.start_s + part.from_sample / rate


def read_table(path: Path) -> tuple[Mixture, list[str]]:
    """The mixture of a table, and the hashes of its sources. InputError names the file, the row and the column."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a readable table: {error}") from error
    if len(rows) < 2:
        raise InputError(f"{path}: a mixture has two sources at least, and here are {len(rows)} rows")
    cells = [_Row(path, number, row) for number, row in enumerate(rows, start=1)]
    first = cells[0]
    for row in cells:
        for name in _SHARED:
            if row.text(name) != first.text(name):
                raise row.complaint(name, f"{row.text(name)!r} where the first row has {first.text(name)!r}")
    for name in ("mixture", "split"):
        if not is_name(first.text(name)):
            raise first.complaint(name, f"{first.text(name)!r} cannot be the name of a file")
    rate = first.whole("sample_rate_hz")
    recipe = Recipe(
        id=first.text("mixture"), split=first.text("split"), number=first.whole("number"), seed=first.whole("seed"),
        sample_rate_hz=rate, num_samples=round(first.number("duration_s") * rate), level_db=first.number("level_db"),
        parts=tuple(_part_of(row, rate) for row in cells),
    )  # fmt: skip
    for row, part in zip(cells, recipe.parts, strict=True):
        if not (part.from_sample >= 0 and 0 <= part.onset_sample < part.end_sample <= recipe.num_samples):
            raise row.complaint("start_s, end_s", "the source does not lie within its clip and the mixture")
    shown = next((place for place, row in enumerate(cells) if row.text("shown") == "1"), None)
    flaws = {place: row.text("video_flaw") for place, row in enumerate(cells) if row.text("video_flaw")}
    hashes = [row.text("samples_hash") for row in cells]
    return Mixture(recipe, Path(first.text("manifest")), shown, flaws), hashes


def is_name(text: str) -> bool:
    """Whether a file or a folder can be called so, and lies in the folder that it is looked for in."""
    return text not in ("", ".", "..") and not any(sign in text for sign in "/\\\0")


@dataclass(frozen=True)
class _Row:
    path: Path
    place: int
    cells: Mapping[str, str | None]

    def complaint(self, name: str, reason: str) -> InputError:
        return InputError(f"{self.path}: row {self.place}: {name}: {reason}")

    def text(self, name: str) -> str:
        value = self.cells.get(name)
        if value is None:
            raise self.complaint(name, "is missing")
        return value

    def number(self, name: str) -> float:
        return self._as(float, name)

    def whole(self, name: str) -> int:
        return self._as(int, name)

    def _as(self, kind: Callable[[str], Any], name: str) -> Any:
        text = self.text(name)
        try:
            number = kind(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise self.complaint(name, f"must be a number, got {text!r}")
        return number


def _part_of(row: _Row, rate: int) -> Part:
    media = {"audio": row.text("source_file")}
    if row.text("video_file"):
        media["video"] = row.text("video_file")
    start_s, labels = row.number("clip_start_s"), (row.text("class_name"),)
    clip = Clip(row.text("clip"), media, row.text("split"), "", start_s, row.number("clip_end_s"), labels)
    onset = round(row.number("start_s") * rate)
    return Part(
        clip=clip,
        class_id=row.whole("class_id"),
        from_sample=round((row.number("crop_start_s") - start_s) * rate),
        onset_sample=onset,
        num_samples=round(row.number("end_s") * rate) - onset,
        snr_db=row.number("snr_db"),
        gain_db=row.number("gain_db"),
        impulse_response=row.text("impulse_response") or None,
    )
