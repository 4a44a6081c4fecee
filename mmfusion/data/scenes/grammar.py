"""Captions of a synthetic clip: what is seen and what is heard.

    caption   = clause | clause LINK clause | clause "and" clause LINK clause
    LINK      = "while" | "as" | "and"
    clause    = seen and heard:  "a [colour] NOUN SEEN-VERB ["and" SOUND-VERB]"
                seen only:       "a silent [colour] NOUN SEEN-VERB"  |  "a [colour] NOUN SEEN-VERB silently" | ...
                heard only:      "a NOUN SOUND-VERB off screen"      |  "an unseen NOUN SOUND-VERB" | ...

Clauses stand in the order seen, then off screen, each by start time. The first choice of every alternative is the most
frequent one, so the most probable caption of a scene is well defined (`plain_caption`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

Item = TypeVar("Item")


class Happening(Protocol):
    """What the grammar needs to know of an event; plans and manifests both have it."""

    @property
    def label(self) -> str: ...
    @property
    def start_s(self) -> float: ...
    @property
    def seen(self) -> bool: ...
    @property
    def heard(self) -> bool: ...


@dataclass(frozen=True)
class Words:
    """Synonyms of one class, the most frequent first; `article` is empty for what cannot be counted."""

    nouns: tuple[str, ...]
    seen: tuple[str, ...]
    heard: tuple[str, ...]
    article: str = "a"


WORDS = {
    "ball": Words(("ball",), ("bounces", "jumps"), ("thuds", "thumps")),
    "bell": Words(("bell",), ("swings", "sways"), ("rings", "chimes")),
    "bird": Words(("bird",), ("hops", "skips"), ("chirps", "sings")),
    "car": Words(("car", "vehicle"), ("passes", "drives by"), ("hums", "roars")),
    "clock": Words(("clock",), ("runs", "turns its hand"), ("ticks", "clicks")),
    "drum": Words(("drum",), ("is hit", "is struck"), ("beats", "booms")),
    "fire": Words(("fire", "campfire"), ("burns", "flickers"), ("crackles", "pops")),
    "helicopter": Words(("helicopter", "chopper"), ("hovers", "flies"), ("whirs", "clatters")),
    "rain": Words(("rain",), ("falls", "pours"), ("patters", "hisses"), article=""),
    "siren": Words(("siren",), ("flashes", "spins"), ("wails", "howls")),
    "train": Words(("train",), ("rolls by", "goes by"), ("puffs", "chugs")),
    "waves": Words(("waves",), ("roll", "rise"), ("crash", "splash"), article=""),
}

Choose = Callable[[Sequence[Item], float], Item]


def make_captions(
    events: Sequence[Happening], colours: Sequence[str | None], count: int, rng: np.random.Generator
) -> tuple[str, ...]:
    """`count` captions of the events, all different as long as the grammar has that many."""

    def choose(items: Sequence[Item], first: float) -> Item:
        """The first item with probability `first`, the others share the rest."""
        if len(items) == 1 or rng.random() < first:
            return items[0]
        return items[1 + int(rng.integers(len(items) - 1))]

    captions: list[str] = []
    for attempt in range(20 * count):
        caption = _caption(events, colours, choose)
        if caption not in captions or attempt >= 19 * count:
            captions.append(caption)
        if len(captions) == count:
            break
    return tuple(captions)


def plain_caption(events: Sequence[Happening]) -> str:
    """The caption with the most frequent choice everywhere and no colours."""
    return _caption(events, [None] * len(events), lambda items, _: items[0])


def _caption(events: Sequence[Happening], colours: Sequence[str | None], choose: Callable) -> str:
    told = sorted(zip(events, colours, strict=True), key=lambda pair: (not pair[0].seen, pair[0].start_s))
    clauses = [_clause(event, colour, len(told) == 1, choose) for event, colour in told]
    link = choose(("while", "as", "and"), 0.7)
    if len(clauses) < 3:
        return f" {link} ".join(clauses)
    return f"{' and '.join(clauses[:-1])} {link if link != 'and' else 'while'} {clauses[-1]}"


def _clause(event: Happening, colour: str | None, alone: bool, choose: Callable) -> str:
    words = WORDS[event.label]
    noun = choose(words.nouns, 0.85)
    seen, heard = choose(words.seen, 0.75), choose(words.heard, 0.75)
    thing = choose((noun, f"{colour} {noun}"), 0.55) if colour else noun
    article = words.article
    if event.seen and event.heard:
        both, short = f"{article} {thing} {seen} and {heard}", f"{article} {thing} {seen}"
        # One event is told in full; with several, the sound goes without saying.
        text = choose((both, short), 0.75) if alone else choose((short, both), 0.9)
    elif event.seen:
        frames = ("{0} silent {1} {2}", "{0} {1} {2} silently", "{0} {1} {2} without sound")
        text = choose(frames, 0.75).format(article, thing, seen)
    else:
        frames = ("{0} {1} {2} off screen", "{0}n unseen {1} {2}", "{0} {1} {2} out of sight")
        text = choose(frames if article else (frames[0], "unseen {1} {2}", frames[2]), 0.75)
        text = text.format(article, noun, heard)
    return text.strip()
