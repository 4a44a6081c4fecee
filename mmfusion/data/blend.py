"""Several clips become one in training: mixup, and class-aware mixing that unites sounds and their labels.

Both work on sound; what is drawn depends on (seed, epoch, clip id, turn) only, as in `augment`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from pydantic import Field

from mmfusion.config import configclass
from mmfusion.data.collate import Example
from mmfusion.data.raw import Raw
from mmfusion.data.sampler import class_pools, classes_of
from mmfusion.types import THRESHOLD, Clip

SILENCE = 1e-9
"""mean power (1 = a full-scale square) below which nothing is heard, and a clip's level says nothing"""


@configclass
class UniteConfig:
    """Class-aware mixing: clips of other classes are added to a clip, which then has the labels of all.

    A clip is never united with one of exactly the same classes, and stays as it is where there are no others.
    """

    probability: float = Field(default=0.5, gt=0, le=1)
    """of a clip being mixed at all"""
    num_clips: int = Field(default=1, ge=1)
    """most clips that are added; how many is drawn"""
    level_db: tuple[float, float] = (-6.0, 6.0)
    """lowest and highest level of an added clip against the clip itself, in dB"""
    same_genre: bool = True
    """add clips of the clip's own genre only, where the set knows genres"""


@configclass
class BlendConfig:
    """Clips that are mixed with others; off by default."""

    mixup: float | None = Field(default=None, gt=0)
    """alpha of mixup (Zhang et al. 2018): clips and labels are averaged with weights from Beta(alpha, alpha)"""
    equal_power: bool = True
    """mixup first brings the other clip to the clip's own power, so that weights say what is heard: levels of
    recordings can differ by 40 dB (Tokozume et al. 2018 weigh by sound pressure for that reason)"""
    unite: UniteConfig | None = None
    """class-aware mixing; null leaves it out"""

    @property
    def is_on(self) -> bool:
        """Whether anything is mixed at all."""
        return self.mixup is not None or self.unite is not None


@dataclass(frozen=True)
class Plan:
    """What is to be mixed into one clip: places of other clips, and how."""

    united: tuple[tuple[int, float], ...] = ()
    """(place, level in dB against the clip itself), no place twice"""
    mixed: tuple[int, float] | None = None
    """(place, weight of the clip itself)"""


class _Pool(NamedTuple):
    """Places of clips, sorted by a number that those have alike which may not be mixed with one another."""

    places: np.ndarray
    alike: np.ndarray

    @classmethod
    def of(cls, places: np.ndarray, alike: np.ndarray) -> _Pool:
        """`places` (P,) of clips, of which `alike` (N,) knows the numbers."""
        order = np.argsort(alike[places], kind="stable")
        return cls(places[order], alike[places][order])

    def draw(self, alike: int, rng: np.random.Generator) -> int | None:
        """One of the clips whose number is another; None without any."""
        first, last = np.searchsorted(self.alike, [alike, alike + 1])
        if len(self.places) == last - first:
            return None
        drawn = int(rng.integers(len(self.places) - (last - first)))
        return int(self.places[drawn if drawn < first else drawn + last - first])


class Pools:
    """Which clips may be mixed into which.

    With `balanced`, a class is drawn first and then one of its clips, so that rare classes come as often as others;
    else every clip is as likely.
    """

    def __init__(self, clips: Sequence[Clip], balanced: bool = False) -> None:
        everything = np.arange(len(clips))
        pools = class_pools(clips) if balanced else [everything]
        numbers: dict[frozenset[str], int] = {}
        self.kinds = np.array([numbers.setdefault(frozenset(classes_of(clip)), len(numbers)) for clip in clips])
        """(N,): clips of exactly the same classes have the same number"""
        self.genres = [clip.genre for clip in clips]
        self._others = [_Pool.of(pool, everything) for pool in pools]
        self._of_other_kinds = [_Pool.of(pool, self.kinds) for pool in pools]
        self._by_genre: dict[str | None, list[_Pool]] = {}
        for genre in set(self.genres):
            own = np.array([one == genre for one in self.genres])
            self._by_genre[genre] = [_Pool.of(pool[own[pool]], self.kinds) for pool in pools]

    def draw(self, config: BlendConfig, place: int, rng: np.random.Generator) -> Plan:
        """The plan for the clip at `place`."""
        united: tuple[tuple[int, float], ...] = ()
        if config.unite is not None and rng.uniform() < config.unite.probability:
            pools = self._by_genre[self.genres[place]] if config.unite.same_genre else self._of_other_kinds
            for _ in range(int(rng.integers(1, config.unite.num_clips + 1))):
                other = _partner(pools, int(self.kinds[place]), rng)
                if other is not None and all(other != place for place, _ in united):
                    united += ((other, rng.uniform(*config.unite.level_db)),)
        if config.mixup is None:
            return Plan(united)
        weight = float(rng.beta(config.mixup, config.mixup))
        other = _partner(self._others, place, rng)
        return Plan(united, (place if other is None else other, weight))


def _partner(pools: Sequence[_Pool], alike: int, rng: np.random.Generator) -> int | None:
    """A clip of one of the pools, all of them as likely, where they have any that may be drawn."""
    for number in rng.permutation(len(pools)) if len(pools) > 1 else range(len(pools)):
        other = pools[number].draw(alike, rng)
        if other is not None:
            return other
    return None


def mixup(own: Example, other: Example, weight: float, *, equal_power: bool) -> Example:
    """weight * own + (1 - weight) * other, sound and labels; known is what both know. Zhang et al. 2018, eq. 1.

    With `equal_power` the other sound is first brought to the power of the clip's own; silence stays as it is.
    """
    inputs = {}
    for name, raw in own.inputs.items():
        added = other.inputs.get(name)
        gain = _levelling(raw, added) if equal_power else 1.0
        inputs[name] = _add(raw, added, weight, (1 - weight) * gain)
    labels = activity = known = None
    if own.labels is not None and other.labels is not None:
        labels = weight * own.labels + (1 - weight) * other.labels
    if own.label_mask is not None and other.label_mask is not None:
        known = own.label_mask & other.label_mask
    if own.activity is not None and other.activity is not None:
        first, second = _same_length(own.activity, other.activity, np.nan)
        activity = (weight * first + (1 - weight) * second).astype(np.float32)
    labels = None if labels is None else labels.astype(np.float32)
    return replace(own, inputs=inputs, labels=labels, label_mask=known, activity=activity)


def unite(own: Example, other: Example, level_db: float, alone: Example | None = None) -> Example:
    """The clip with another added at `level_db` against its own power; it has whatever one of them has.

    `alone` is the clip as it was before others were added, whose power counts. A class is known when both know it, or
    when one knows that it is there. Silence is added as it is.
    """
    inputs = {}
    for name, raw in own.inputs.items():
        added = other.inputs.get(name)
        power_of = raw if alone is None else alone.inputs[name]
        inputs[name] = _add(raw, added, 1.0, _levelling(power_of, added, level_db))
    labels = activity = known = None
    if own.labels is not None and other.labels is not None:
        assert own.label_mask is not None and other.label_mask is not None
        labels = np.maximum(own.labels * own.label_mask, other.labels * other.label_mask)
        known = (own.label_mask & other.label_mask) | (labels >= THRESHOLD)
    if own.activity is not None and other.activity is not None:
        first, second = _same_length(own.activity, other.activity, 0.0)
        # What one knows to sound, sounds; otherwise both must know.
        activity = np.where(np.fmax(first, second) >= 1, np.float32(1), np.maximum(first, second))
    return replace(own, inputs=inputs, labels=labels, label_mask=known, activity=activity)


def _add(own: Raw, other: Raw | None, own_gain: float, other_gain: float) -> Raw:
    """The sum of two sounds, as long as the longer one."""
    if other is None:
        return own.with_data(own.data * np.float32(own_gain))
    data = np.zeros(max(len(own.data), len(other.data)), dtype=np.float32)
    mask = np.zeros(len(data), dtype=bool)
    for raw, gain in ((own, own_gain), (other, other_gain)):
        data[: len(raw.data)] += np.float32(gain) * np.where(raw.mask, raw.data, np.float32(0))
        mask[: len(raw.mask)] |= raw.mask
    return replace(own, data=data, mask=mask)


def _levelling(own: Raw, other: Raw | None, level_db: float = 0.0) -> float:
    """The gain that brings the other sound to `level_db` against the own one's power; 1 where one of them is silent."""
    powers = [_power(one) for one in (own, other) if one is not None]
    if len(powers) < 2 or min(powers) < SILENCE:
        return 1.0
    return float(np.sqrt(powers[0] / powers[1]) * 10 ** (level_db / 20))


def _power(raw: Raw) -> float:
    return float(np.mean(np.square(raw.data[raw.mask], dtype=np.float64))) if raw.mask.any() else 0.0


def _same_length(first: np.ndarray, second: np.ndarray, fill: float) -> tuple[np.ndarray, np.ndarray]:
    """Both (S, C), the shorter one filled up."""
    length = max(len(first), len(second))
    pad = [((0, length - len(one)), (0, 0)) for one in (first, second)]
    return (np.pad(first, pad[0], constant_values=fill), np.pad(second, pad[1], constant_values=fill))
