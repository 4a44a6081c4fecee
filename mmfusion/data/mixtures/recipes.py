"""Which sounds make a mixture, from where to where and how loud: drawn before any sample is touched.

A `Recipe` depends on the settings, the sounds of its split, a seed and the mixture's number, and on nothing else: any
process draws the same one, in any order. A class is in a mixture once at most; classes are drawn uniformly, and then a
sound of the class, whatever the numbers of sounds. Of recordings, in which anything may be heard, the clips themselves
are drawn uniformly, each once at most.

Levels. The energy of a source is the sum of its squared samples in the mixture. `snr_db` is the energy of a source
relative to that of the mixture's first one, which has 0 dB, as in WSJ0-2mix (Hershey et al. 2016) for two speakers. So
of two sources the input SI-SDR is `-snr_db` and `snr_db`, but for what they have in common. `level_db` is the power of
the mixture relative to full scale, sources being uncorrelated; `gain_db` is what brings a sound to its level.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from mmfusion.config import configclass
from mmfusion.data.augment import generator
from mmfusion.data.mixtures.pool import Sound, label_of
from mmfusion.types import Clip, InputError

_MOST_DRAWS = 200


@configclass
class MixtureConfig:
    """How mixtures are drawn; on the fly, how many there are of them."""

    num_sources: int = Field(default=2, ge=2, le=100)
    """sources a mixture, each of another class"""
    sources: Literal["isolated", "recordings"] = "isolated"
    """isolated: clips, or parts of them, in which one class sounds; recordings: whole clips, each another one, with any
    labels or none, for heads that learn without single sounds (loss objective mixit)"""
    duration_s: float = Field(default=10.0, ge=0.1, le=3600)
    """length of a mixture; longer clips are cropped"""
    snr_db: tuple[float, float] = (-5.0, 5.0)
    """lowest and highest energy of a source relative to the first one's, in dB"""
    level_db: tuple[float, float] = (-25.0, -25.0)
    """lowest and highest power of a mixture relative to full scale, in dB"""
    onset_s: tuple[float, float] | None = None
    """earliest and latest begin of a source; null: shorter clips begin wherever they fit, longer ones at 0"""
    min_active: float = Field(default=0.05, ge=0, le=1)
    """least share of a crop's frames in which there is something to hear (at least one frame)"""
    activity_floor_db: float = Field(default=40.0, gt=0)
    """a frame of 20 ms is active when its power is within this of the clip's loudest frame, in dB"""
    impulse_responses: tuple[str, ...] = ()
    """sound files of rooms, of which each source draws one to be heard in; none leaves the sounds dry"""
    selected_classes: tuple[str, ...] = ()
    """classes that sources may have; none given takes all"""
    seed: int = Field(default=0, ge=0)
    """of the frozen mixtures, which every run sees alike; in training the run's own seed counts too"""
    num_train: int = Field(default=2000, ge=1)
    """mixtures in a training epoch, new ones in every epoch"""
    num_validation: int = Field(default=200, ge=0)
    """mixtures to validate on; always the same"""
    num_test: int = Field(default=200, ge=0)
    """mixtures to test on; always the same"""

    @model_validator(mode="after")
    def _ranges_rise(self) -> Any:
        for name in ("snr_db", "level_db", "onset_s"):
            given = getattr(self, name)
            if given is not None and given[0] > given[1]:
                raise ValueError(f"{name} must be the lowest and the highest value, got {given[0]:g} and {given[1]:g}")
        if self.onset_s is not None and not 0 <= self.onset_s[0] <= self.onset_s[1] < self.duration_s:
            raise ValueError(f"onset_s must lie within the {self.duration_s:g} s of the mixture, got {self.onset_s}")
        if self.selected_classes and self.sources == "recordings":
            raise ValueError("selected_classes picks isolated sources, and sources: recordings takes clips as they are")
        if self.selected_classes and len(set(self.selected_classes)) < self.num_sources:
            few = len(set(self.selected_classes))
            raise ValueError(f"num_sources is {self.num_sources}, each of another class, and {few} are selected")
        return self


@dataclass(frozen=True)
class Part:
    """One source of a mixture: `num_samples` of a clip's sound from `from_sample` on, heard from `onset_sample` on."""

    clip: Clip
    class_id: int | None
    from_sample: int
    onset_sample: int
    num_samples: int
    snr_db: float
    gain_db: float
    impulse_response: str | None = None

    @property
    def label(self) -> str:
        """The class of the source; "" of a recording, in which anything may be heard."""
        return "" if self.class_id is None else label_of(self.clip)

    @property
    def end_sample(self) -> int:
        """One past the last sample of the mixture in which the source itself sounds (its room may ring on)."""
        return self.onset_sample + self.num_samples


@dataclass(frozen=True)
class Recipe:
    """Everything that a mixture of `num_samples` at `sample_rate_hz` is made from, besides the sounds themselves."""

    id: str
    split: str
    number: int
    seed: int
    sample_rate_hz: int
    num_samples: int
    level_db: float
    parts: tuple[Part, ...]

    @property
    def duration_s(self) -> float:
        return self.num_samples / self.sample_rate_hz

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The classes of all sources, sorted; None where those of a recording are not known."""
        labels = [part.clip.labels for part in self.parts]
        if any(own is None for own in labels):
            return None
        return tuple(sorted({label for own in labels for label in own or ()}))


@dataclass(frozen=True, eq=False)
class Pool:
    """The sounds of one split by class, with `class_ids` of the whole data set; recordings by clip, without any."""

    split: str
    sample_rate_hz: int
    class_ids: Mapping[str, int]
    sounds: Mapping[str, Sequence[Sound]]


def make_pool(split: str, sounds: Iterable[Sound], config: MixtureConfig, classes: Sequence[str], rate: int,
              where: str) -> tuple[Pool, list[str]]:  # fmt: skip
    """The sounds of a split that can be drawn from, and the ids of those in which too little is active.

    InputError, which begins with `where`, when they have fewer classes (or recordings) than a mixture has sources.
    """
    whole = config.sources == "recordings"
    found: dict[str, list[Sound]] = {}
    quiet: list[str] = []
    first = 0 if config.onset_s is None else round(config.onset_s[0] * rate)
    room = round(config.duration_s * rate) - first
    for sound in sounds:
        if len(sound.starts(sound.length_in(room), config.min_active)):
            found.setdefault(sound.clip.id if whole else sound.label, []).append(sound)
        else:
            quiet.append(sound.clip.id)
    if len(found) < config.num_sources:
        other, things = ("another", "recordings") if whole else ("of another class", "classes have a sound that")
        raise InputError(f"{where}: split {split!r}: num_sources is {config.num_sources}, each {other}, "
                         f"and {len(found)} {things} can be used")  # fmt: skip
    ids = {} if whole else {label: number for number, label in enumerate(classes)}
    return Pool(split, rate, ids, {label: tuple(found[label]) for label in sorted(found)}), quiet


def mixture_id(split: str, number: int) -> str:
    """The id of a mixture, in files and on the fly."""
    return f"mix-{split}-{number:05d}"


def frozen_recipe(pool: Pool, config: MixtureConfig, number: int) -> Recipe:
    """The mixture of this number that everybody sees with these settings."""
    return _draw(pool, config, number, generator(config.seed, 0, mixture_id(pool.split, number), "mixture"))


def training_recipe(pool: Pool, config: MixtureConfig, number: int, seed: int, epoch: int) -> Recipe:
    """The mixture of this number in an epoch of a run with this seed."""
    rng = generator(seed, epoch, mixture_id(pool.split, number), f"mixture {config.seed}")
    return _draw(pool, config, number, rng)


def fingerprint(recipes: Iterable[Recipe]) -> str:
    """sha256 hex of everything that was drawn for the mixtures, in their order: equal only for the same mixtures.

    Gains follow from the rest, and are left out because their last digits may differ between machines.
    """
    found = hashlib.sha256()
    for recipe in recipes:
        drawn = [[part.clip.id, part.label, part.from_sample, part.onset_sample, part.num_samples, part.snr_db,
                  part.impulse_response] for part in recipe.parts]  # fmt: skip
        facts = [recipe.id, recipe.sample_rate_hz, recipe.num_samples, recipe.level_db, drawn]
        found.update(json.dumps(facts).encode())
    return found.hexdigest()


def _draw(pool: Pool, config: MixtureConfig, number: int, rng: np.random.Generator) -> Recipe:
    num_samples, num = round(config.duration_s * pool.sample_rate_hz), config.num_sources
    level_db = round(rng.uniform(*config.level_db), 6)
    snrs_db = [0.0, *(round(snr_db, 6) for snr_db in rng.uniform(*config.snr_db, num - 1).tolist())]
    # Energies of the sources that add up to the mixture's.
    energies = np.power(10, np.array(snrs_db) / 10)
    energies *= num_samples * 10 ** (level_db / 10) / energies.sum()
    names = tuple(pool.sounds)
    parts = []
    for place, snr_db, energy in zip(rng.permutation(len(names))[:num], snrs_db, energies.tolist(), strict=True):
        name = names[place]
        sound, start, onset, length = _place(pool.sounds[name], config, pool.sample_rate_hz, num_samples, rng)
        rooms = config.impulse_responses
        parts.append(Part(
            sound.clip, pool.class_ids.get(name), start, onset, length, snr_db,
            gain_db=round(10 * math.log10(energy / sound.energy_of(start, length)), 6),
            impulse_response=rooms[rng.integers(len(rooms))] if rooms else None,
        ))  # fmt: skip
    return Recipe(mixture_id(pool.split, number), pool.split, number, config.seed, pool.sample_rate_hz, num_samples,
                  level_db, tuple(parts))  # fmt: skip


def _place(sounds: Sequence[Sound], config: MixtureConfig, rate: int, num_samples: int, rng: np.random.Generator
           ) -> tuple[Sound, int, int, int]:  # fmt: skip
    """A sound of a class, and an active crop of it: its first sample, its onset in the mixture, its length.

    Crops are drawn among the active ones; where a late onset leaves none, sound and onset are drawn again.
    """
    for _ in range(_MOST_DRAWS):
        sound = sounds[int(rng.integers(len(sounds)))]
        if config.onset_s is None:
            onset = int(rng.integers(max(0, num_samples - sound.num_samples) + 1))
        else:
            low_s, high_s = config.onset_s
            onset = min(num_samples - 1, round(rng.uniform(low_s, high_s) * rate))
        length = sound.length_in(num_samples - onset)
        starts = sound.starts(length, config.min_active)
        if len(starts):
            return sound, int(starts[rng.integers(len(starts))]) * sound.frame, onset, length
    raise InputError(f"onset_s: {_MOST_DRAWS} draws in {config.onset_s} left no active crop of {sounds[0].clip.id!r}")
