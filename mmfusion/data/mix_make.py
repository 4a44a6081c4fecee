"""Sets of mixtures as files: drawn from a manifest, taken up again where they were cut off, made again from a table."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from pydantic import Field
from tqdm import tqdm

from mmfusion.config import configclass, to_tree, validate
from mmfusion.data.cache import build_cache
from mmfusion.data.catalog.prepared import Prepared, count_splits
from mmfusion.data.catalog.registry import prepare_set, settings
from mmfusion.data.claim import claim
from mmfusion.data.clips import ClipCache
from mmfusion.data.inputs import DataConfig
from mmfusion.data.manifest import Manifest, check_groups, read_manifest, write_manifest
from mmfusion.data.mix_film import part_to_show, write_film
from mmfusion.data.mix_gather import SOUND, gather_pools, samples_of
from mmfusion.data.mix_pool import sound_manifest
from mmfusion.data.mix_sound import Stored, mix, store
from mmfusion.data.mix_table import Mixture, read_table
from mmfusion.data.mix_write import as_float, describe_mixture, is_written, name_of, samples_hash, write_mixture
from mmfusion.data.mixtures import MixtureConfig, Recipe, frozen_recipe
from mmfusion.data.reading import window
from mmfusion.types import InputError

OWN_SET = Path("data/synthetic")
LONGEST_SOURCE_S = 300.0
"""Of a longer clip, this much from its start is used."""
# Counts up when the same settings no longer give the same files.
RECIPE = 1


@configclass
class Order:
    """Which mixtures are wanted, made of what, and where they go."""

    manifest: str
    """of the clips that they are made of"""
    out: str
    """folder to write to"""
    mixture: MixtureConfig = MixtureConfig()
    """how they are drawn; the numbers of mixtures in it are those of training on the fly"""
    count: int = Field(default=10, ge=1)
    """mixtures a split"""
    splits: tuple[str, ...] = ()
    """the splits to make mixtures of; none named takes all"""
    sample_rate_hz: int = Field(default=16000, ge=1000)
    cache: str = "data/cache"
    """folder of decoded media"""
    with_video: int | None = Field(default=None, ge=0)
    """the source, counted from 0, whose picture becomes a film with the mixture's sound; null makes no films"""


def order_of(given: Namespace) -> Order:
    """What the command line of `tools/mix.py` asks for. InputError for a value that cannot be.

    Without a manifest, the project's own set is taken, and made where it is not there yet.
    """
    mixture = {
        "num_sources": given.num_sources, "duration_s": given.duration, "snr_db": given.snr_db,
        "onset_s": given.onset_s, "selected_classes": given.selected_classes, "seed": given.seed,
        "impulse_responses": [str(Path(path).resolve()) for path in given.impulse_response],
    }  # fmt: skip
    tree = {
        "manifest": str(given.manifest or OWN_SET / "manifest.jsonl"), "out": str(given.out_path), "mixture": mixture,
        "count": given.count, "splits": given.split, "sample_rate_hz": given.sample_rate_hz,
        "cache": str(given.cache), "with_video": given.with_video,
    }  # fmt: skip
    order = validate(Order, tree, "mix")
    if given.manifest is None and not Path(order.manifest).exists():
        print(prepare_set("synthetic", None, OWN_SET, settings("synthetic", ()), os.cpu_count() or 1).summary())
    return order


def make_mixtures(order: Order, progress: bool = True) -> Prepared:
    """Writes the mixtures that are not there yet, and a `manifest.jsonl` of all that are, in the folder `order.out`.

    Mixtures of a split are made of its own clips. `prepared.json` names every clip that could not be used, and why.
    InputError when the manifest or the settings cannot be used, and when the folder holds mixtures of other settings.
    """
    original, out = read_manifest(order.manifest), Path(order.out)
    check_groups(original.clips, where=order.manifest)
    found, left_out = sound_manifest(original, order.mixture.selected_classes)
    clips = tuple(replace(clip, end_s=window(clip, LONGEST_SOURCE_S)[1]) for clip in found.clips)
    sounds = Manifest(original.path.resolve(), clips)
    splits = _splits(order, sounds)
    wanted = Manifest(sounds.path, tuple(clip for clip in clips if clip.split in splits))
    cache, reasons = _open(wanted, order.sample_rate_hz, order.cache, progress)
    pools, unused = gather_pools(sounds, cache, order.mixture, splits, progress)
    remarks = {why: tuple(reasons.get(clip, clip) for clip in ids) for why, ids in {**left_out, **unused}.items()}
    out.mkdir(parents=True, exist_ok=True)
    claim(out, _settings(order, original), "a set of mixtures")
    mixtures = [
        Mixture(recipe, sounds.path, _shown(recipe, order, sounds))
        for pool in pools.values()
        for recipe in (frozen_recipe(pool, order.mixture, number) for number in range(order.count))
    ]
    missing = [mixture for mixture in mixtures if not is_written(out, mixture.recipe)]
    with tqdm(total=len(mixtures), initial=len(mixtures) - len(missing), desc="mixtures", unit="mixture",
              disable=not progress) as bar:  # fmt: skip
        for mixture in missing:
            _write(out, mixture, _stored(mixture.recipe, cache), sounds)
            bar.update()
    return _finish(order, mixtures, remarks)


def remix(table: Path, out: Path, cache: str, manifest: Path | None = None, progress: bool = True) -> Path:
    """Makes the mixture of a table again under `out`, byte for byte, and returns the path of its sound.

    `manifest` is where the sources are found now, when it is not what the table says. InputError when a source cannot
    be read, and when it is not what it was.
    """
    mixture, hashes = read_table(table)
    recipe = mixture.recipe
    clips = {part.clip.id: part.clip for part in recipe.parts}
    sounds = Manifest(manifest or mixture.manifest, tuple(clips.values()))
    # For so few files, processes of their own would take longer to begin than to read.
    opened, reasons = _open(sounds, recipe.sample_rate_hz, cache, progress, workers=0)
    for part in recipe.parts:
        raw = opened.load_input(part.clip, SOUND)
        if raw is None or part.from_sample + part.num_samples > len(raw.data):
            why = reasons.get(part.clip.id, part.clip.id) if raw is None else "is shorter than it was"
            raise InputError(f"{table}: source_file: {sounds.resolve(part.clip, SOUND)}: cannot be read: {why}")
    stored = _stored(recipe, opened)
    for part, source, expected in zip(recipe.parts, stored.sources, hashes, strict=True):
        if samples_hash(source) != expected:
            path = sounds.resolve(part.clip, SOUND)
            raise InputError(f"{table}: source_file: {path}: the file, its room or their decoder is not what it was")
    _write(out, mixture, stored, sounds)
    return out / name_of(recipe, ".wav")


def _open(sounds: Manifest, sample_rate_hz: int, folder: str, progress: bool, workers: int = 2
          ) -> tuple[ClipCache, dict[str, str]]:  # fmt: skip
    """The decoded sounds, and why some could not be read: id -> id and reason."""
    tree = {
        "manifest": str(sounds.path),
        "cache": folder,
        "cache_workers": workers,
        "inputs": {SOUND: {"kind": "waveform", "sample_rate_hz": sample_rate_hz}},
        "max_duration_s": LONGEST_SOURCE_S,
    }
    config = validate(DataConfig, tree, str(sounds.path))
    report = build_cache(sounds, config, progress)
    reasons = {failure.clip_id: f"{failure.clip_id} ({failure.reason})" for failure in report.failures}
    return ClipCache(sounds, config, report.wanted), reasons


def _splits(order: Order, sounds: Manifest) -> tuple[str, ...]:
    """The splits to make mixtures of; InputError for one that is not there, or can be no folder."""
    for split in order.splits:
        sounds.split(split)
    for split in order.splits or sounds.splits:
        if split != Path(split).name:
            raise InputError(f"{order.manifest}: split: {split!r} cannot be the name of a folder")
    return order.splits or sounds.splits


def _settings(order: Order, original: Manifest) -> dict[str, object]:
    """What decides the files of a mixture, besides its split and number."""
    of_training = ("num_train", "num_validation", "num_test")
    drawn = {name: value for name, value in to_tree(order.mixture).items() if name not in of_training}
    return {"recipe": RECIPE, "manifest": original.path.resolve().as_posix(), "manifest_hash": original.file_hash(),
            "sample_rate_hz": order.sample_rate_hz, "with_video": order.with_video, **drawn}  # fmt: skip


def _shown(recipe: Recipe, order: Order, sounds: Manifest) -> int | None:
    return None if order.with_video is None else part_to_show(recipe, order.with_video, sounds.locate)


def _stored(recipe: Recipe, cache: ClipCache) -> Stored:
    return store(mix(recipe, partial(samples_of, cache))[0])


def _write(out: Path, mixture: Mixture, stored: Stored, sounds: Manifest) -> None:
    if mixture.shown is not None:
        film = out / name_of(mixture.recipe, ".mp4")
        write_film(film, mixture.recipe, mixture.shown, sounds.locate, as_float(stored.mixture))
    write_mixture(out, mixture, stored)


def _finish(order: Order, mixtures: Sequence[Mixture], remarks: Mapping[str, tuple[str, ...]]) -> Prepared:
    """Writes the manifest of all mixtures that are in the folder, and the report."""
    out = Path(order.out)
    path = out / "manifest.jsonl"
    before = read_manifest(path).clips if path.exists() else ()
    clips = {clip.id: clip for clip in (*before, *(describe_mixture(mixture, out) for mixture in mixtures))}
    write_manifest(path, clips.values())
    blind = tuple(mixture.recipe.id for mixture in mixtures if mixture.shown is None)
    if order.with_video is not None and blind:
        remarks = {**remarks, "mixtures have no source with a picture": blind}
    prepared = Prepared((path,), (count_splits(tuple(clips.values())),), remarks)
    prepared.save(out / "prepared.json", "mixtures", order)
    return prepared
