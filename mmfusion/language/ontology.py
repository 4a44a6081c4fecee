"""Which labels a word may mean: the tagger's own labels, and AudioSet's ontology with its hierarchy when it is given.

A word names a label when the stems (Porter) of both agree; "Bark, bow-wow" has two names, "dog_bark" is two words. A
word of the ontology means all labels of the tagger at or below its class ("vehicle" means car and train), and where
there is none below, those of the nearest classes above ("snare drum" means drum).

The ontology (github.com/audioset/ontology, CC BY-SA 4.0) is read from a file and is no part of this project.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmfusion.language import lexicon
from mmfusion.language.vocab import WORD
from mmfusion.types import InputError

Stems = tuple[str, ...]


@dataclass(frozen=True)
class Meaning:
    """What a word names, and by which of the tagger's labels it can be heard (none, when the tagger knows none)."""

    name: str
    labels: tuple[str, ...] = ()


@lru_cache(maxsize=4096)
def stem(word: str) -> str:
    """The Porter stem of one word, in lower case."""
    return _stemmer().stem(word.lower())


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    from nltk.stem import PorterStemmer  # nltk takes a second to import, and most predictions need none of it

    return PorterStemmer()


class Ontology:
    """The names of things that sound; `classes` is AudioSet's list of classes, as `read_ontology` gives it."""

    def __init__(self, labels: Sequence[str], classes: Sequence[Mapping[str, Any]] = ()) -> None:
        self._names: dict[Stems, Meaning] = {}
        self._parts: dict[Stems, Meaning] = {}  # single words of longer labels: "dog" of "dog_bark"
        self._others = {stem(word): names for word, names in lexicon.OTHER_NAMES.items()}
        for label in labels:
            self._add(self._names, Meaning(label, (label,)), _names(label))
            if not classes:  # a hierarchy knows better what belongs to a dog
                self._add(self._parts, Meaning(label, (label,)), _parts(label))
        for meaning in _climb(labels, classes):
            self._add(self._names, meaning, _names(meaning.name))
        self.longest = max((len(name) for name in self._names), default=1)

    def find(self, words: Sequence[str]) -> Meaning | None:
        """What the words together name: a label or class by its name, by another name of the lexicon's, or in part."""
        key = tuple(stem(word) for word in words)
        found = self._names.get(key)
        if found is None and len(key) == 1:
            others = [self._names.get(_stems(name)) for name in self._others.get(key[0], ())]
            found = _joined([other for other in others if other]) or self._parts.get(key)
        return found

    def names_phrase(self, words: Sequence[str]) -> bool:
        """Whether the words are exactly one name."""
        return tuple(stem(word) for word in words) in self._names

    def labels_of(self, name: str) -> tuple[str, ...]:
        """The tagger's labels by which a name can be heard."""
        found = self.find(name.split())
        return found.labels if found else ()

    @staticmethod
    def _add(where: dict[Stems, Meaning], meaning: Meaning, names: Sequence[Stems]) -> None:
        for name in names:
            where[name] = _joined([where[name], meaning]) if name in where else meaning  # type: ignore[assignment]


def read_ontology(path: str | Path) -> list[dict[str, Any]]:
    """AudioSet's classes (`id`, `name`, `child_ids`) from its ontology.json. InputError names file and class."""
    try:
        classes = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such ontology file") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable JSON file: {error}") from error
    if not isinstance(classes, list) or not classes:
        raise InputError(f"{path}: must be a list of classes")
    for number, one in enumerate(classes):
        fits = isinstance(one, dict) and isinstance(one.get("id"), str) and isinstance(one.get("name"), str)
        if not fits or not isinstance(one.get("child_ids"), list):
            raise InputError(f"{path}: class {number}: must have id, name and child_ids")
    return classes


def _climb(labels: Sequence[str], classes: Sequence[Mapping[str, Any]]) -> Iterator[Meaning]:
    """Each class with the labels at or below it, or else those of the nearest classes above."""
    by_id = {one["id"]: one for one in classes}
    parents: dict[str, list[str]] = {}
    for one in classes:
        for child in one["child_ids"]:
            parents.setdefault(child, []).append(one["id"])
    names = {label: set(_names(label)) for label in labels}
    own = {
        key: tuple(label for label, known in names.items() if known & set(_names(one["name"])))
        for key, one in by_id.items()
    }
    for key, one in by_id.items():
        below = _reach([key], lambda at: [c for c in by_id[at]["child_ids"] if c in by_id])
        found = dict.fromkeys(label for level in below for at in level for label in own[at])
        if not found:
            levels = _reach([key], lambda at: parents.get(at, []))
            nearest = next((level for level in levels if any(own[at] for at in level)), [])
            found = dict.fromkeys(label for at in nearest for label in own[at])
        yield Meaning(one["name"], tuple(found))


def _reach(start: list[str], step: Any) -> Iterator[list[str]]:
    """The classes reached from `start`, level by level; a class is met once however many ways lead there."""
    seen, level = set(start), start
    while level:
        yield level
        following = dict.fromkeys(other for at in level for other in step(at) if other not in seen)
        seen.update(following)
        level = list(following)


def _joined(meanings: Sequence[Meaning]) -> Meaning | None:
    if not meanings:
        return None
    return Meaning(meanings[0].name, tuple(dict.fromkeys(label for one in meanings for label in one.labels)))


def _names(label: str) -> list[Stems]:
    """The names of a label: "Chirp, tweet" has two; what stands in parentheses is no part of it."""
    parts = re.split(r"[,;/]", re.sub(r"\([^)]*\)", " ", label))
    return [name for part in parts if (name := _stems(part))]


def _parts(label: str) -> list[Stems]:
    """The words of a short label, without what is done ("playing" of "playing violin")."""
    words = WORD.findall(label)
    return [(stem(word),) for word in words if len(word) > 2 and not word.endswith("ing")] if len(words) < 4 else []


def _stems(text: str) -> Stems:
    return tuple(stem(word) for word in WORD.findall(text))
