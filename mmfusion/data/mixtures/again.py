"""A mixture made again from its table, byte for byte."""

from __future__ import annotations

import filecmp
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from mmfusion.data.manifest import Manifest
from mmfusion.data.mixtures.film import write_film
from mmfusion.data.mixtures.gather import SOUND, Opened, open_sounds, samples_of
from mmfusion.data.mixtures.recipes import Recipe
from mmfusion.data.mixtures.sound import Stored, mix, store
from mmfusion.data.mixtures.table import read_table
from mmfusion.data.mixtures.write import as_float, name_of, samples_hash, write_mixture
from mmfusion.types import InputError


def remix(table: Path, out: Path, cache: str, manifest: Path | None = None, rooms: Sequence[Path] = (),
          progress: bool = True) -> tuple[Path, list[str]]:  # fmt: skip
    """Makes the mixture of a table again under `out`.

    Returns the path of its sound, and what of its sources could not be read then as now. `manifest` is where the
    sources are found now, when it is not what the table says; `rooms` are impulse responses that lie elsewhere now, and
    are known by the names of their files. InputError when a source cannot be read, when it is not what it was, and when
    files of another mixture are in the way; nothing is written then.
    """
    mixture, hashes = read_table(table)
    recipe = mixture.recipe
    clips = {part.clip.id: part.clip for part in recipe.parts}
    sounds = Manifest(manifest or mixture.manifest, tuple(clips.values()))
    # For so few files, processes of their own would take longer to begin than to read.
    opened = open_sounds(sounds, recipe.sample_rate_hz, cache, progress, workers=0)
    stored = _stored(table, _located(table, recipe, rooms), sounds, opened)
    for part, source, expected in zip(recipe.parts, stored.sources, hashes, strict=True):
        if samples_hash(source) != expected:
            path = sounds.resolve(part.clip, SOUND)
            raise InputError(f"{table}: source_file: {path}: the file, its room or their decoder is not what it was")
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".again-", dir=out) as folder:
        if mixture.shown is not None:
            film = Path(folder) / name_of(recipe, ".mp4")
            write_film(film, recipe, mixture.shown, sounds.locate, as_float(stored.mixture))
        write_mixture(Path(folder), mixture, stored)
        _move(Path(folder), out, recipe)
    return out / name_of(recipe, ".wav"), [f"{sounds.resolve(clips[name], SOUND)}: read in part: {flaw}"
                                           for name, flaw in opened.flaws.items()]  # fmt: skip


def _located(table: Path, recipe: Recipe, rooms: Sequence[Path]) -> Recipe:
    """The recipe with its rooms where they are now; InputError names one that is not to be found."""
    now = {room.name: str(room) for room in rooms}
    parts = []
    for number, part in enumerate(recipe.parts, start=1):
        room = part.impulse_response
        if room is not None:
            room = now.get(Path(room).name, room)
            if not Path(room).is_file():
                raise InputError(f"{table}: row {number}: impulse_response: {room}: no such file; "
                                 "--impulse_response says where it is now")  # fmt: skip
        parts.append(replace(part, impulse_response=room))
    return replace(recipe, parts=tuple(parts))


def _stored(table: Path, recipe: Recipe, sounds: Manifest, opened: Opened) -> Stored:
    for part in recipe.parts:
        raw = opened.cache.load_input(part.clip, SOUND)
        if raw is None or part.from_sample + part.num_samples > len(raw.data):
            path = sounds.resolve(part.clip, SOUND)
            why = opened.unread.get(part.clip.id, "has no sound") if raw is None else "is shorter than it was"
            raise InputError(f"{table}: source_file: {path}: cannot be read: {why.removeprefix(f'{path}: ')}")
    return store(mix(recipe, partial(samples_of, opened.cache))[0])


def _move(folder: Path, out: Path, recipe: Recipe) -> None:
    """Puts the files of a mixture in their places, its table last; InputError when another mixture's are there."""
    # Sorted, the table comes before the sources, and must come after them: what has one is complete.
    files = sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.suffix == ".csv")
    places = {file: out / file.relative_to(folder) for file in files}
    sources = out / name_of(recipe, "")
    strange = set(sources.iterdir() if sources.is_dir() else ()) - set(places.values())
    strange |= {place for file, place in places.items() if place.exists() and not filecmp.cmp(file, place, False)}
    if strange:
        raise InputError(f"{min(strange)}: belongs to another mixture of that name; choose another folder")
    for file, place in places.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        file.replace(place)
