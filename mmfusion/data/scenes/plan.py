"""What happens in each synthetic clip, decided before anything is drawn or sounded.

A plan depends only on the settings, the split and the clip's place in it, so any number of workers makes the same
clips. Classes and manners (seen and heard, silent, off screen) are dealt from shuffled decks: every class is about
equally frequent, and the proportions of manners hold within every class.

Splits share no look: shade, size, pitch and speed are cut into `NUM_INTERVALS` intervals each, a clip takes its values
from one cell of that grid, and each cell belongs to one split for good (`split_of_cell`). A clip's `group` names its
cell.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mmfusion.config import configclass
from mmfusion.types import InputError

# Seconds between two beats at speed 1: a bounce, half a swing, a turn of the lamp, a hop, a tick, a hit, a chuff ...
PERIODS_S = {
    "ball": 0.55,
    "bell": 0.60,
    "bird": 0.50,
    "car": 1.00,
    "clock": 0.42,
    "drum": 0.40,
    "fire": 0.30,
    "helicopter": 0.10,
    "rain": 0.40,
    "siren": 1.00,
    "train": 0.24,
    "waves": 1.30,
}
LABELS = tuple(sorted(PERIODS_S))
# The colours that a class comes in, where it has one that the captions name.
COLOURS = {
    "ball": ("red", "green"),
    "bell": ("yellow", "orange"),
    "bird": ("blue", "pink"),
    "car": ("red", "blue"),
    "drum": ("purple", "red"),
    "helicopter": ("green", "yellow"),
    "train": ("green", "purple"),
}
SPLITS = ("train", "val", "test")

# Which interval of shade, size, pitch and speed a clip takes its values from.
Cell = tuple[int, int, int, int]
NUM_INTERVALS = 5
_RESIDUES = {"train": range(6), "val": range(6, 7), "test": range(7, 9)}
_DECK_SIZE = 20


@configclass
class SyntheticConfig:
    """What the synthetic set is made of; the defaults are those of the demo."""

    seed: int = 0
    """Another seed is another data set; the same seed gives the same bytes."""
    train_clips: int = 600
    """Clips in the split `train`."""
    val_clips: int = 100
    """Clips in the split `val`."""
    test_clips: int = 200
    """Clips in the split `test`."""
    duration_s: float = 4.0
    """Length of every clip."""
    min_event_s: float = 1.2
    """No event is shorter than this; the longest take 85 % of the clip."""
    frame_rate: float = 12.0
    """Pictures a second."""
    size_px: int = 96
    """Width and height of the pictures; even, as H.264 wants it."""
    sample_rate_hz: int = 16000
    """Sample rate of the sound, which is mono."""
    event_counts: tuple[float, float, float] = (0.4, 0.4, 0.2)
    """Shares of clips with one, two and three events; they sum to 1."""
    seen_and_heard: float = 0.4
    """Share of events that are seen and heard."""
    silent: float = 0.3
    """Share of events that are seen only."""
    off_screen: float = 0.3
    """Share of events that are heard only."""
    captions_per_clip: int = 5
    """Captions a clip."""


@dataclass(frozen=True)
class Event:
    """One event of a clip. Times in seconds on the clip's clock; `x`, `y`, `width` are fractions of the picture.

    `shade`, `size`, `pitch` and `speed` lie in [0, 1) and are what the cell of the clip restricts.
    """

    label: str
    start_s: float
    end_s: float
    seen: bool
    heard: bool
    colour: str | None
    shade: float
    size: float
    pitch: float
    speed: float
    level_db: float
    x: float
    y: float
    width: float
    direction: int
    seed: int

    @property
    def period_s(self) -> float:
        """Seconds between two beats, which picture and sound share."""
        return PERIODS_S[self.label] / (0.75 + 0.6 * self.speed)

    @property
    def pitch_ratio(self) -> float:
        """Factor on every frequency of the sound, half an octave down to half an octave up."""
        return 2.0 ** (self.pitch - 0.5)

    def beats(self, t: float) -> float:
        """Beats since the start at clip time `t`; at whole numbers something hits."""
        return (t - self.start_s) / self.period_s

    def progress(self, t: float) -> float:
        """0 at the start of the event, 1 at its end."""
        return (t - self.start_s) / (self.end_s - self.start_s)


@dataclass(frozen=True)
class ScenePlan:
    """Everything that rendering one clip needs besides the settings; `seed` feeds backgrounds and captions."""

    id: str
    split: str
    cell: Cell
    events: tuple[Event, ...]
    seed: tuple[int, int, int]

    @property
    def group(self) -> str:
        """The parameter cell, which no two splits share."""
        return "shade{}-size{}-pitch{}-speed{}".format(*self.cell)


def check_settings(config: SyntheticConfig) -> None:
    """Raises InputError when the settings cannot be met."""
    if abs(sum(config.event_counts) - 1) > 1e-6 or min(config.event_counts) < 0:
        raise InputError(f"synthetic: event_counts must be shares that sum to 1, got {config.event_counts}")
    manners = (config.seen_and_heard, config.silent, config.off_screen)
    if abs(sum(manners) - 1) > 1e-6 or min(manners) < 0:
        raise InputError(f"synthetic: seen_and_heard, silent and off_screen must sum to 1, got {manners}")
    if not 0 < config.min_event_s <= 0.85 * config.duration_s:
        raise InputError(f"synthetic: min_event_s {config.min_event_s} does not fit into {config.duration_s} s")
    if config.size_px < 32 or config.size_px % 2:
        raise InputError(f"synthetic: size_px must be even and at least 32, got {config.size_px}")
    for name, least in (("train_clips", 0), ("val_clips", 0), ("test_clips", 0), ("captions_per_clip", 1), ("seed", 0)):
        if getattr(config, name) < least:
            raise InputError(f"synthetic: {name} must be at least {least}, got {getattr(config, name)}")
    if config.frame_rate <= 0 or config.sample_rate_hz < 8000:
        raise InputError("synthetic: frame_rate must be positive and sample_rate_hz at least 8000")


def split_of_cell(cell: Cell) -> str:
    """The split that owns a cell of (shade, size, pitch, speed) intervals: six of nine cells are train, two test.

    The rule interleaves the splits, so that every interval of every axis occurs in all of them and only the
    combinations differ.
    """
    shade, size, pitch, speed = cell
    residue = (shade + 5 * size + 7 * pitch + 8 * speed) % 9
    return next(split for split, residues in _RESIDUES.items() if residue in residues)


def plan_split(config: SyntheticConfig, split: str) -> list[ScenePlan]:
    """The plans of all clips of a split, in order; more clips only add to the end of the list."""
    count = {"train": config.train_clips, "val": config.val_clips, "test": config.test_clips}[split]
    number = SPLITS.index(split)
    rng = np.random.default_rng((config.seed, number))
    axis = range(NUM_INTERVALS)
    cells = [cell for cell in itertools.product(axis, axis, axis, axis) if split_of_cell(cell) == split]
    deal = _Deal(config, rng)
    plans = []
    for index in range(count):
        cell = cells[rng.integers(len(cells))]
        events = _plan_events(config, deal, cell, np.random.default_rng((config.seed, number, index, 0)))
        plans.append(ScenePlan(f"{split}-{index:05d}", split, cell, events, (config.seed, number, index)))
    return plans


class _Deal:
    """Decks of cards: how many events, which classes, and in which manner each class happens."""

    def __init__(self, config: SyntheticConfig, rng: np.random.Generator):
        manners = (config.seen_and_heard, config.silent, config.off_screen)
        self._counts = _shuffled(rng, _cards((1, 2, 3), config.event_counts))
        self._labels = _shuffled(rng, LABELS)
        kinds = _cards(((True, True), (True, False), (False, True)), manners)
        self._manners = {label: _shuffled(rng, kinds) for label in LABELS}
        self._waiting: list[str] = []

    def clip(self) -> list[tuple[str, bool, bool]]:
        """(label, seen, heard) of each event of the next clip; no class comes twice in one clip."""
        labels: list[str] = []
        for _ in range(next(self._counts)):
            labels.append(self._next_label(labels))
        return [(label, *next(self._manners[label])) for label in labels]

    def _next_label(self, taken: list[str]) -> str:
        for label in self._waiting:
            if label not in taken:
                self._waiting.remove(label)
                return label
        while (label := next(self._labels)) in taken:
            self._waiting.append(label)
        return label


def _cards(kinds: tuple, shares: tuple[float, ...]) -> tuple:
    """`_DECK_SIZE` cards in the given shares, rounded by the largest remainders."""
    wanted = [share * _DECK_SIZE for share in shares]
    counts = [math.floor(w + 1e-9) for w in wanted]
    by_remainder = sorted(range(len(kinds)), key=lambda i: counts[i] - wanted[i])
    for i in itertools.islice(itertools.cycle(by_remainder), _DECK_SIZE - sum(counts)):
        counts[i] += 1
    return tuple(kind for kind, n in zip(kinds, counts, strict=True) for _ in range(n))


def _shuffled(rng: np.random.Generator, cards: tuple) -> Iterator:
    """The cards in random order, for ever, reshuffled each time the deck is used up."""
    while True:
        for i in rng.permutation(len(cards)):
            yield cards[i]


def _plan_events(config: SyntheticConfig, deal: _Deal, cell: Cell, rng: np.random.Generator) -> tuple[Event, ...]:
    dealt = deal.clip()
    times = _times(config, len(dealt), rng)
    places = iter(_places(sum(seen for _, seen, _ in dealt), rng))
    events = []
    for (label, seen, heard), (start_s, end_s) in zip(dealt, times, strict=True):
        shade, size, pitch, speed = ((interval + rng.random()) / NUM_INTERVALS for interval in cell)
        x, y, width = next(places) if seen else (0.5, 0.5, 0.5)
        event = Event(
            label=label,
            start_s=start_s,
            end_s=end_s,
            seen=seen,
            heard=heard,
            colour=_colour(label, rng),
            shade=shade,
            size=size,
            pitch=pitch,
            speed=speed,
            level_db=float(rng.uniform(-24, -14)),
            x=x,
            y=y,
            width=width * (0.88 + 0.24 * size),
            direction=1 if rng.random() < 0.5 else -1,
            seed=int(rng.integers(2**31)),
        )
        events.append(event)
    return tuple(sorted(events, key=lambda e: e.start_s))


def _colour(label: str, rng: np.random.Generator) -> str | None:
    names = COLOURS.get(label)
    return names[rng.integers(len(names))] if names else None


def _times(config: SyntheticConfig, count: int, rng: np.random.Generator) -> list[tuple[float, float]]:
    """(start, end) of each event, in milliseconds; starts are apart where the clip leaves room for it."""
    apart_s = 0.3
    while True:
        times = []
        for _ in range(count):
            length = rng.uniform(config.min_event_s, 0.85 * config.duration_s)
            start = rng.uniform(0, config.duration_s - length)
            times.append((math.ceil(start * 1000) / 1000, math.floor((start + length) * 1000) / 1000))
        starts = sorted(start for start, _ in times)
        apart = all(b - a >= apart_s for a, b in itertools.pairwise(starts))
        if apart and all(end - start >= config.min_event_s for start, end in times):
            return times
        apart_s *= 0.9


def _places(count: int, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """(x, y, width) of each visible event: one takes the middle, several take a quarter of the picture each."""
    if count == 1:
        x, y = rng.uniform(0.36, 0.64, 2)
        return [(float(x), float(y), 0.68)]
    corners = rng.permutation(4)[:count]
    jitter = rng.uniform(-0.03, 0.03, (count, 2))
    return [
        (0.27 + 0.46 * (int(c) % 2) + float(j[0]), 0.27 + 0.46 * (int(c) // 2) + float(j[1]), 0.54)
        for c, j in zip(corners, jitter, strict=True)
    ]
