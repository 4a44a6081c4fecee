"""Sentences for a language model: text files and the csv and JSON forms of caption sets, and their held-out part.

Conventions:

* A reader gives the sentences as they stand in the file, in its order, repeats included; white space around them is cut
  and what is then empty is left out.
* Whether a sentence is held out depends on its words alone. So no held-out sentence stands in the training part, of
  this source or another, and adding a source moves no sentence of the others.
* The training part keeps repeats, which say how usual a sentence is; the held-out part has every sentence once.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from mmfusion.config import configclass
from mmfusion.language.vocab import UNK, Vocabulary, tokenize
from mmfusion.types import InputError

# What stands for all sources together, and so cannot be the name of one.
ALL = "all"


@configclass
class TextSource:
    """A text file in UTF-8, one sentence a line."""

    kind: Literal["text"] = "text"
    path: str
    column: int | None = Field(default=None, ge=0)
    """which part of a line, counted from 0, where tabs part it; null takes the whole line"""


@configclass
class CsvSource:
    """Columns of a csv file whose first row names them, such as AudioCaps and Clotho."""

    kind: Literal["csv"] = "csv"
    path: str
    columns: tuple[str, ...] = Field(min_length=1)
    encoding: str = "utf-8"


@configclass
class ActivityNetSource:
    """ActivityNet Captions: {video: {"sentences": [sentence, ...], ...}}."""

    kind: Literal["activitynet"] = "activitynet"
    path: str


@configclass
class MsrvttSource:
    """MSR-VTT captions: {video: {number: sentence}}."""

    kind: Literal["msrvtt"] = "msrvtt"
    path: str


FileSource = TextSource | CsvSource | ActivityNetSource | MsrvttSource


def read_sentences(source: FileSource) -> list[str]:
    """The sentences of one file. Raises InputError that names the file and the place; also when there are none."""
    path = Path(source.path)
    try:
        if isinstance(source, TextSource):
            found = _of_text(path, source.column)
        elif isinstance(source, CsvSource):
            found = _of_csv(path, source)
        else:
            found = _of_json(path, "sentences" if isinstance(source, ActivityNetSource) else None)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: is a folder, not a file of sentences") from error
    except (UnicodeDecodeError, LookupError) as error:
        raise InputError(f"{path}: cannot be read in its encoding: {error}") from error
    found = [sentence.strip() for sentence in found if sentence.strip()]
    if not found:
        raise InputError(f"{path}: holds no sentences")
    return found


@dataclass(frozen=True)
class Parts:
    """A source's sentences to train on and those held out, and how many are in neither: too long, or without a word."""

    train: tuple[str, ...]
    heldout: tuple[str, ...]
    num_left_out: int


def divide(sentences: Iterable[str], share: float, max_words: int, name: str = "text") -> Parts:
    """About `share` of the distinct sentences held out; those of more than `max_words` words are left out.

    Nothing is cut: a model that reads cut sentences learns that they end there. Raises InputError that names the source
    when there is nothing to train on, or nothing held out.
    """
    train: list[str] = []
    heldout: dict[str, None] = {}
    num_left_out = 0
    for sentence in sentences:
        words = tokenize(sentence)
        plain = " ".join(words)
        if not 0 < len(words) <= max_words:
            num_left_out += 1
        elif is_heldout(plain, share):
            heldout[plain] = None
        else:
            train.append(plain)
    if not train or not heldout:
        raise InputError(
            f"sources.{name}: {len(train)} sentences are to train on, {len(heldout)} are held out and {num_left_out} "
            "left out, and there must be some of the first two"
        )
    return Parts(tuple(train), tuple(heldout), num_left_out)


def is_heldout(plain: str, share: float) -> bool:
    """True for about `share` of all sentences, given as their words with single spaces."""
    digest = hashlib.blake2b(plain.encode(), digest_size=8, person=b"heldout").digest()
    return int.from_bytes(digest, "little") < share * 2**64


@dataclass(frozen=True)
class Corpus:
    """The sentences of all sources, and the words that they are read in."""

    vocabulary: Vocabulary
    parts: Mapping[str, Parts]

    @cached_property
    def train(self) -> list[list[int]]:
        """The sentences to train on, of all sources in turn, as <bos> w1 ... wn <eos>."""
        return [self.vocabulary.encode(sentence) for part in self.parts.values() for sentence in part.train]

    @cached_property
    def heldout(self) -> dict[str, list[list[int]]]:
        """The held-out sentences by source, in the same form, and under "all" those of all sources.

        A sentence that two sources hold out stands twice in "all".
        """
        found = {name: [self.vocabulary.encode(s) for s in part.heldout] for name, part in self.parts.items()}
        return {**found, ALL: [sentence for part in found.values() for sentence in part]}

    def sizes(self) -> dict[str, dict[str, int]]:
        """Number of sentences to train on, held out and left out, by source and under "all"."""
        found = {
            name: {"train": len(part.train), "heldout": len(part.heldout), "left_out": part.num_left_out}
            for name, part in self.parts.items()
        }
        return {
            **found,
            ALL: {key: sum(size[key] for size in found.values()) for key in ("train", "heldout", "left_out")},
        }

    def unk_share(self) -> dict[str, float]:
        """Share of <unk> among the held-out words, <eos> not counted, by source and under "all"."""
        return {
            name: sum(sentence.count(UNK) for sentence in part) / sum(len(sentence) - 2 for sentence in part)
            for name, part in self.heldout.items()
        }

    def counts(self) -> list[int]:
        """How often each word (V,) stands in the training part."""
        return np.bincount(np.concatenate(self.train), minlength=len(self.vocabulary)).tolist()

    def hashes(self) -> dict[str, str]:
        """sha256 hex of each source's sentences."""
        every = {name: "\n".join((*part.train, "", *part.heldout)) for name, part in self.parts.items()}
        return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in every.items()}


def _of_text(path: Path, column: int | None) -> list[str]:
    lines = path.read_text(encoding="utf-8-sig").split("\n")
    if column is None:
        return lines
    found = []
    for number, line in enumerate(lines, start=1):
        parts = line.split("\t")
        if line.strip() and column >= len(parts):
            raise InputError(f"{path}:{number}: has no column {column}, only {len(parts)} parted by tabs")
        found.append(parts[column] if line.strip() else "")
    return found


def _of_csv(path: Path, source: CsvSource) -> list[str]:
    with path.open(encoding=source.encoding, newline="") as file:
        reader = csv.DictReader(file)
        try:
            header = reader.fieldnames or ()
            missing = [column for column in source.columns if column not in header]
            if missing:
                raise InputError(f"{path}: has no column {missing[0]!r} (columns: {', '.join(header)})")
            return [row[column] or "" for row in reader for column in source.columns]
        except csv.Error as error:
            raise InputError(f"{path}:{reader.line_num}: not a csv file: {error}") from error


def _of_json(path: Path, key: str | None) -> list[str]:
    """The sentences of {video: [sentence, ...] or {number: sentence}}, below `key` of each video when one is given."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path}: must be a JSON object with one entry a video")
    found: list[str] = []
    for video, entry in tree.items():
        found += _of_video(entry if key is None else entry.get(key) if isinstance(entry, dict) else None, path, video)
    return found


def _of_video(entry: Any, path: Path, video: str) -> list[str]:
    sentences = list(entry.values()) if isinstance(entry, dict) else entry
    if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
        raise InputError(f"{path}: {video}: holds no list of sentences in the form of its kind")
    return sentences
