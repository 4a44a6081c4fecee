"""Word vectors from a file of text, one word a line: `word v1 v2 ... vD`, as GloVe publishes them.

Pennington, Socher, Manning, "GloVe: Global vectors for word representation" (EMNLP 2014). A first line with two whole
numbers (number of words, D), as word2vec and fastText write it, is passed over. Words are compared as they stand: the
words of a vocabulary are lower case. Of a word that stands twice the first line counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from mmfusion.config import configclass
from mmfusion.language.vocab import SPECIALS, UNK, Vocabulary
from mmfusion.types import InputError


@configclass
class VectorsConfig:
    """Where the embedding of words comes from."""

    path: str
    use: Literal["initial", "frozen"] = "initial"
    """initial: training goes on from the vectors; frozen: they stay, and only words without a vector are learned"""


@dataclass(frozen=True)
class Vectors:
    """`matrix` (V, D) float32, zeros for words without a vector, and `known` (V,) bool, True for words with one."""

    matrix: Tensor
    known: Tensor

    def coverage(self, counts: Sequence[int] | Tensor | None = None) -> str:
        """One sentence: how many words have a vector and, with the `counts` (V,) of a text, how many running words.

        Of the specials only <unk> is a word, and only a running one: each <unk> is a word that has no vector.
        """
        known = self.known[len(SPECIALS) :]
        said = f"{_share(int(known.sum()), len(known))} words of the vocabulary have a vector"
        if counts is not None:
            running = torch.as_tensor(counts)
            total, covered = int(running[UNK:].sum()), int(running[len(SPECIALS) :][known].sum())
            said += f", and {_share(covered, total)} running words"
        return said

    def fill(self, embedding: nn.Embedding) -> None:
        """Puts the vectors into the embedding; the other rows but <pad> are scaled to the same standard deviation.

        InputError when the widths differ.
        """
        if embedding.embedding_dim != self.matrix.shape[1]:
            raise InputError(
                f"model.embedding: is {embedding.embedding_dim}, and the vectors have {self.matrix.shape[1]} values"
            )
        weight, known = embedding.weight.data, self.known.to(embedding.weight.device)
        vectors, drawn = self.matrix[self.known].to(weight), weight[1:][~known[1:]]
        if len(vectors) and len(drawn):
            weight[~known] *= vectors.std() / drawn.std()
        weight[known] = vectors

    def hold(self, embedding: nn.Embedding) -> Callable[[], object]:
        """Keeps the rows of words with a vector as they are: call what comes back after every update.

        No gradient reaches these rows, but an optimiser's weight decay moves them all the same.
        """
        rows = self.known.nonzero()[:, 0].to(embedding.weight.device)
        # Buffers go with the embedding when it is moved to another device.
        embedding.register_buffer("held_rows", rows, persistent=False)
        embedding.register_buffer("held", embedding.weight.detach()[rows].clone(), persistent=False)
        embedding.weight.register_hook(
            lambda gradient: gradient.index_fill(0, embedding.get_buffer("held_rows").to(gradient.device), 0.0)
        )
        return lambda: embedding.weight.data.index_copy_(
            0, embedding.get_buffer("held_rows"), embedding.get_buffer("held")
        )


def read_vectors(path: str | Path, vocabulary: Vocabulary) -> Vectors:
    """The vectors of the vocabulary's words; of the specials only <unk> can have one.

    Raises InputError that names file:line for a line of another width, or a value that is not a finite number.
    """
    path, width = Path(path), 0
    numbers = {word.encode(): number for word, number in vocabulary.numbers.items() if word not in SPECIALS[:UNK]}
    rows: dict[int, np.ndarray] = {}
    for number, line in _lines(path):
        if number == 1 and len(line.split()) == 2 and line.replace(b" ", b"").isdigit():
            continue
        spaces = line.count(b" ")
        width = width or spaces
        if not 0 < width <= spaces:
            raise InputError(f"{path}:{number}: must read a word and {width or 'its'} values, parted by spaces")
        # Files of web text have tokens with spaces in them: the last D parts are the vector.
        word = line.partition(b" ")[0] if spaces == width else line.rsplit(b" ", width)[0]
        place = numbers.get(word)
        if place is not None and place not in rows:
            rows[place] = _vector(line.rsplit(b" ", width)[1:], f"{path}:{number}")
    if width == 0:
        raise InputError(f"{path}: holds no vectors")
    matrix, known = torch.zeros(len(vocabulary), width), torch.zeros(len(vocabulary), dtype=torch.bool)
    for place, row in rows.items():
        matrix[place], known[place] = torch.from_numpy(row), True
    return Vectors(matrix, known)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The number of every line that is not blank, and the line."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if stripped := line.strip():
                    yield number, stripped
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: is a folder, not a file of vectors") from error


def _vector(values: list[bytes], where: str) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):
            row = np.array([float(value) for value in values], dtype=np.float32)
    except ValueError as error:
        raise InputError(f"{where}: a value is not a number: {error}") from error
    if not np.isfinite(row).all():
        raise InputError(f"{where}: a value is not finite")
    return row


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({100 * part / max(1, whole):.1f} %)"
