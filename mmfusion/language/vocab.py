"""Words and their numbers.

Conventions: lower case; punctuation is dropped, apostrophes and hyphens inside a word stay ("it's", "t-shirt"), and so
do combining marks, in Unicode's composed form. The first four entries are <pad> <bos> <eos> <unk>, always with the
numbers 0 1 2 3.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from unicodedata import normalize

import regex

from mmfusion.types import InputError

PAD, BOS, EOS, UNK = range(4)
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
WORD = regex.compile(r"[\p{L}\p{N}][\p{L}\p{N}\p{M}]*(?:['-][\p{L}\p{N}][\p{L}\p{N}\p{M}]*)*")


def tokenize(caption: str) -> list[str]:
    """The words of a sentence."""
    return WORD.findall(normalize("NFC", caption.lower()).replace("\u2019", "'"))


@dataclass(frozen=True)
class Vocabulary:
    """All words that a decoder can say, the specials first; the number of a word is its place in `words`.

    Raises ValueError when the specials are not first, or an entry is empty or stands twice.
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.words[: len(SPECIALS)] != SPECIALS:
            raise ValueError(f"must begin with {' '.join(SPECIALS)}")
        if not all(isinstance(word, str) and word for word in self.words):
            raise ValueError("every word must be a text that is not empty")
        if len(set(self.words)) < len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise ValueError(f"the word {twice!r} stands twice")

    @classmethod
    def build(cls, captions: Iterable[str], min_count: int = 1) -> Vocabulary:
        """The words that occur at least `min_count` times, the most frequent first, equals by the alphabet.

        Give it captions of the training split only.
        """
        counts = Counter(word for caption in captions for word in tokenize(caption))
        kept = [word for word, count in counts.items() if count >= min_count]
        return cls(SPECIALS + tuple(sorted(kept, key=lambda word: (-counts[word], word))))

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """Word -> number."""
        return {word: number for number, word in enumerate(self.words)}

    def encode(self, caption: str | Sequence[str], max_words: int | None = None) -> list[int]:
        """<bos> w1 ... wn <eos> as numbers, at most `max_words` words between the two; unknown words are <unk>."""
        words = tokenize(caption) if isinstance(caption, str) else list(caption)
        return [BOS, *(self.numbers.get(word, UNK) for word in words[:max_words]), EOS]

    def decode(self, numbers: Iterable[int]) -> str:
        """The sentence up to the first <eos>, without <pad> and <bos>."""
        return " ".join(self.words_of(numbers))

    def words_of(self, numbers: Iterable[int]) -> list[str]:
        """Its words, one by one."""
        said = takewhile(lambda number: number != EOS, numbers)
        return [self.words[number] for number in said if number not in (PAD, BOS)]

    @cached_property
    def hash(self) -> str:
        """sha256 (hex) of the words in their order."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Writes JSON {"words": [...], "hash": "..."}."""
        text = json.dumps({"words": self.words, "hash": self.hash}, ensure_ascii=False, indent=0)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """What `save` wrote. Raises InputError that names the file and the field."""
        try:
            tree = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file") from error
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: not a readable JSON file: {error}") from error
        words = tree.get("words") if isinstance(tree, dict) else None
        if not isinstance(words, list):
            raise InputError(f"{path}: words: must be a list of words")
        try:
            vocabulary = cls(tuple(words))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}: words: {error}") from error
        if tree.get("hash", vocabulary.hash) != vocabulary.hash:
            raise InputError(f"{path}: hash: does not fit the words, so the file was changed after it was written")
        return vocabulary
