"""Mixtures on the fly: the clips of a data set that are drawn and mixed when they are asked for, from cached sounds.

A mixture is a `Clip` that lies in no file: its id names its split and number, its labels and sources are those of its
recipe. Frozen ones (validation, test, and a training split that is evaluated) depend on `mixture.seed` and their number
alone; in training, a number stands for another mixture in every epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mmfusion.data.clips import ClipCache
from mmfusion.data.collate import Example
from mmfusion.data.dataset import ClipDataset, DatasetOver
from mmfusion.data.inputs import DataConfig
from mmfusion.data.manifest import Manifest
from mmfusion.data.mixtures.gather import SOUND, gather_pools, samples_of
from mmfusion.data.mixtures.recipes import Part, Recipe, fingerprint, frozen_recipe, training_recipe
from mmfusion.data.mixtures.sound import mix
from mmfusion.data.mixtures.splits import check_sounds
from mmfusion.data.raw import Raw
from mmfusion.types import Clip, Source


@dataclass(frozen=True)
class MixtureManifest(Manifest):
    """The frozen mixtures of all splits; `path` is that of the manifest that their sounds come from."""

    recipe_of: Callable[[Clip], Recipe]

    def fingerprint(self, clips: Iterable[Clip]) -> str:
        """sha256 hex of everything that was drawn for the mixtures: ids alone would be the same for every seed."""
        return fingerprint(self.recipe_of(clip) for clip in clips)


class Mixtures:
    """The mixtures of a data set; `sounds` and `cache` are those of the clips that they are made of.

    `left_out` names the clips that cannot be a source, by reason. InputError when a split has too few of them, and when
    a sound is in two splits (unless `data.legacy_split`).
    """

    def __init__(self, sounds: Manifest, cache: ClipCache, data: DataConfig, progress: bool = True) -> None:
        assert data.mixture is not None
        self.config, self.cache, self.path = data.mixture, cache, sounds.path
        numbers = {
            data.train_split: self.config.num_train,
            data.validation_split: self.config.num_validation,
            data.test_split: self.config.num_test,
        }
        self.numbers = {split: num for split, num in numbers.items() if num and split in sounds.splits}
        self.pools, self.left_out = gather_pools(sounds, cache, self.config, tuple(self.numbers), progress)
        if not data.legacy_split:
            unused = {clip_id for ids in self.left_out.values() for clip_id in ids}
            check_sounds(sounds, data.cache, data.inputs[SOUND].source or SOUND, unused)
        self._pictures = {name: way.source or name for name, way in cache.inputs.items() if name != SOUND}

    def manifest(self) -> MixtureManifest:
        """The frozen mixtures of every split as clips."""
        clips = (
            self.describe(frozen_recipe(self.pools[split], self.config, number))
            for split, num in self.numbers.items()
            for number in range(num)
        )
        return MixtureManifest(self.path, tuple(clips), self.recipe_of)

    def recipe_of(self, clip: Clip, training: tuple[int, int] | None = None) -> Recipe:
        """The frozen recipe of a clip of `manifest()`, or that of its number in training at (seed, epoch)."""
        pool, number = self.pools[clip.split], int(clip.id.rpartition("-")[2])
        if training is None:
            return frozen_recipe(pool, self.config, number)
        return training_recipe(pool, self.config, number, *training)

    def describe(self, recipe: Recipe) -> Clip:
        """A recipe as a clip: labels, and the sources with their times; the first one is seen where it has pictures.

        Of recordings it is not known what is heard when, so there are no sources.
        """
        rate, first = recipe.sample_rate_hz, recipe.parts[0]
        shown = any(key in first.clip.media for key in self._pictures.values())
        sources = tuple(
            Source(part.label, part.onset_sample / rate, part.end_sample / rate, seen=shown and part is first)
            for part in recipe.parts
            if part.label
        )
        return Clip(recipe.id, {}, recipe.split, recipe.parts[0].clip.group, end_s=recipe.duration_s,
                    labels=recipe.labels, sources=sources)  # fmt: skip

    def render(self, recipe: Recipe) -> tuple[np.ndarray, dict[str, Raw]]:
        """The sources (S, N) float32, and the inputs: their sum, and the other inputs of the first source's clip."""
        sources, mixture = mix(recipe, partial(samples_of, self.cache))
        inputs = {SOUND: Raw(mixture, np.ones(len(mixture), bool), float(recipe.sample_rate_hz))}
        for name in self._pictures:
            raw = self.cache.load_input(recipe.parts[0].clip, name)
            if raw is not None:
                inputs[name] = placed(raw, recipe.parts[0], recipe)
        return sources, inputs


class MixtureDataset(DatasetOver):
    """Examples of mixtures, as `plain` makes them of clips, with the sources as targets; it has mixtures as its clips.

    In training the mixtures are those of the run's seed and the epoch, else the frozen ones: any number of loader
    processes gives the same examples.
    """

    def __init__(self, plain: ClipDataset, mixtures: Mixtures) -> None:
        super().__init__(plain)
        self.mixtures = mixtures

    def __getitem__(self, index: int) -> Example:
        plain = self.plain
        recipe = self.mixtures.recipe_of(plain.clips[index], (plain.seed, plain.epoch) if plain.training else None)
        sources, inputs = self.mixtures.render(recipe)
        example = plain.example(self.mixtures.describe(recipe), inputs)
        classes = plain.classes_of(plain.clips[index], [part.label for part in recipe.parts])
        return replace(example, sources=sources, source_mask=np.ones(len(sources), bool), source_classes=classes)


def placed(raw: Raw, part: Part, recipe: Recipe) -> Raw:
    """The steps of a clip's other input where its part lies in the mixture, and masked zeros elsewhere.

    An input of a single step (a still picture, a vector for the whole clip) stays as it is.
    """
    if len(raw.mask) <= 1:
        return raw
    samples = (part.onset_sample, part.from_sample, part.num_samples)
    onset, since, num = (each / recipe.sample_rate_hz * raw.rate for each in samples)
    data = np.zeros((max(1, math.ceil(recipe.duration_s * raw.rate - 1e-6)), *raw.data.shape[1:]), raw.data.dtype)
    mask = np.zeros(len(data), bool)
    first, start = round(onset), round(since)
    length = max(0, min(math.ceil(num - 1e-6), len(data) - first, len(raw.mask) - start))
    data[first : first + length] = raw.data[start : start + length]
    mask[first : first + length] = raw.mask[start : start + length]
    return replace(raw, data=data, mask=mask)
