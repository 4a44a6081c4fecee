"""Sets of mixtures as files: drawn from a manifest, and taken up again where they were cut off."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator
from tqdm import tqdm

from mmfusion.config import configclass, to_tree, validate
from mmfusion.data.catalog.prepared import Prepared, count_splits
from mmfusion.data.catalog.registry import prepare_set, settings
from mmfusion.data.catalog.tables import read_object
from mmfusion.data.claim import claim
from mmfusion.data.clips import ClipCache
from mmfusion.data.manifest import Manifest, check_groups, read_manifest, write_manifest
from mmfusion.data.mixtures.film import write_first_film
from mmfusion.data.mixtures.gather import LONGEST_SOURCE_S, Opened, gather_pools, open_sounds, samples_of
from mmfusion.data.mixtures.pool import sound_manifest
from mmfusion.data.mixtures.recipes import MixtureConfig, frozen_recipe
from mmfusion.data.mixtures.sound import mix, store
from mmfusion.data.mixtures.splits import check_sounds
from mmfusion.data.mixtures.table import Mixture, is_name
from mmfusion.data.mixtures.write import as_float, describe_mixture, name_of, write_mixture, written
from mmfusion.data.reading import window
from mmfusion.types import InputError

OWN_SET = Path("data/synthetic")
# Counts up when the same settings no longer give the same files.
RECIPE = 2


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

    @model_validator(mode="after")
    def _shown_is_there(self) -> Any:
        num = self.mixture.num_sources
        if self.with_video is not None and self.with_video >= num:
            raise ValueError(f"with_video: there is no source {self.with_video} (sources are 0 to {num - 1})")
        return self


def order_of(given: Namespace) -> Order:
    """What the command line of `tools/mix.py` asks for. InputError for a value that cannot be.

    Without a manifest, the project's own set is taken, and made where it is not there yet.
    """
    mixture = {
        "num_sources": given.num_sources, "duration_s": given.duration, "snr_db": given.snr_db,
        "onset_s": given.onset_s, "selected_classes": given.selected_classes, "seed": given.seed,
        "level_db": given.level_db, "min_active": given.min_active, "activity_floor_db": given.activity_floor_db,
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

    Mixtures of a split are made of its own clips. `prepared.json` names every clip that could not be used or only in
    part, and why. InputError when the manifest or the settings cannot be used, when a sound is in two splits, and when
    the folder holds mixtures of other settings.
    """
    original, out = read_manifest(order.manifest), Path(order.out)
    check_groups(original.clips, where=order.manifest)
    found, left_out = sound_manifest(original, order.mixture.selected_classes)
    clips = tuple(replace(clip, end_s=window(clip, LONGEST_SOURCE_S)[1]) for clip in found.clips)
    sounds = Manifest(original.path.resolve(), clips)
    splits = _splits(order, sounds)
    wanted = Manifest(sounds.path, tuple(clip for clip in clips if clip.split in splits))
    opened = open_sounds(wanted, order.sample_rate_hz, order.cache, progress)
    pools, unused = gather_pools(sounds, opened.cache, order.mixture, splits, progress)
    check_sounds(sounds, order.cache, unused={clip_id for ids in unused.values() for clip_id in ids})
    out.mkdir(parents=True, exist_ok=True)
    claim(out, _settings(order, original), "a set of mixtures")
    drawn = [
        Mixture(frozen_recipe(pool, order.mixture, number), sounds.path)
        for pool in pools.values()
        for number in range(order.count)
    ]
    before = [written(out, mixture) for mixture in drawn]
    mixtures: list[Mixture] = []
    with tqdm(total=len(drawn), initial=len(drawn) - before.count(None), desc="mixtures", unit="mixture",
              disable=not progress) as bar:  # fmt: skip
        for mixture, found in zip(drawn, before, strict=True):
            mixtures.append(found or _make(out, mixture, opened.cache, order.with_video))
            bar.update(found is None)
    remarks = {why: tuple(_named(ids, opened.unread)) for why, ids in {**left_out, **unused}.items()}
    return _finish(order, mixtures, {**remarks, **_warnings(order, opened, mixtures)})


def _make(out: Path, mixture: Mixture, cache: ClipCache, with_video: int | None) -> Mixture:
    """Writes a mixture, and returns it with what its film shows."""
    recipe, locate = mixture.recipe, cache.manifest.locate
    stored = store(mix(recipe, partial(samples_of, cache))[0])
    if with_video is not None:
        film, sound = out / name_of(recipe, ".mp4"), as_float(stored.mixture)
        shown, flaws = write_first_film(film, recipe, with_video, locate, sound)
        mixture = replace(mixture, shown=shown, flaws=flaws)
    write_mixture(out, mixture, stored)
    return mixture


def _splits(order: Order, sounds: Manifest) -> tuple[str, ...]:
    """The splits to make mixtures of; InputError for one that is not there, or can be no folder."""
    for split in order.splits:
        sounds.split(split)
    for split in order.splits or sounds.splits:
        if not is_name(split):
            raise InputError(f"{order.manifest}: split: {split!r} cannot be the name of a folder")
    return order.splits or sounds.splits


def _settings(order: Order, original: Manifest) -> dict[str, object]:
    """What decides the files of a mixture, besides its split and number."""
    of_training = ("num_train", "num_validation", "num_test")
    drawn = {name: value for name, value in to_tree(order.mixture).items() if name not in of_training}
    return {"recipe": RECIPE, "manifest": original.path.resolve().as_posix(), "manifest_hash": original.file_hash(),
            "sample_rate_hz": order.sample_rate_hz, "with_video": order.with_video, **drawn}  # fmt: skip


def _named(ids: Iterable[str], reasons: Mapping[str, str]) -> Iterator[str]:
    return (f"{clip_id} ({reasons[clip_id]})" if clip_id in reasons else clip_id for clip_id in ids)


def _warnings(order: Order, opened: Opened, mixtures: Sequence[Mixture]) -> dict[str, tuple[str, ...]]:
    """What was used and is not whole, or not to be had, by reason."""
    unshown: dict[str, None] = {}
    partly: dict[str, None] = {}
    for mixture in mixtures:
        for place, flaw in mixture.flaws.items():
            clip_id = mixture.recipe.parts[place].clip.id
            (partly if place == mixture.shown else unshown)[f"{clip_id} ({flaw})"] = None
    blind = tuple(mixture.recipe.id for mixture in mixtures if mixture.shown is None)
    found = {
        "clips have sound of which only a part could be read": tuple(_named(opened.flaws, opened.flaws)),
        "clips have pictures that could not be shown": tuple(unshown),
        "clips have pictures of which only a part could be read": tuple(partly),
        "mixtures have no source with a picture": blind if order.with_video is not None else (),
    }
    return {why: names for why, names in found.items() if names}


def _finish(order: Order, mixtures: Sequence[Mixture], remarks: Mapping[str, tuple[str, ...]]) -> Prepared:
    """Writes the manifest of all mixtures that are in the folder, and the report of all calls that made them."""
    out = Path(order.out)
    path, report = out / "manifest.jsonl", out / "prepared.json"
    before = read_manifest(path).clips if path.exists() else ()
    clips = {clip.id: clip for clip in (*before, *map(describe_mixture, mixtures))}
    write_manifest(path, clips.values())
    told = read_object(report)["remarks"] if report.exists() else {}
    if len({clip.split for clip in clips.values()}) > 1:
        remarks = {**remarks, "rooms are heard in all splits alike": order.mixture.impulse_responses}
    merged = {why: tuple(dict.fromkeys([*told.get(why, ()), *remarks.get(why, ())])) for why in {**told, **remarks}}
    told = {why: names for why, names in merged.items() if names}
    prepared = Prepared((path,), (count_splits(tuple(clips.values())),), told)
    prepared.save(report, "mixtures", order)
    return prepared
