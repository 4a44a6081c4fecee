"""Captions that no model made: what a table of captions has to beat, and what people reach.

Two captions are as alike as CIDEr says (Vedantam et al. 2015, equations 1 and 2: cosine of tf-idf n-grams, mean over
n = 1..4, here in [0, 1], without the clipping and the length penalty of CIDEr-D). Document frequencies are those of the
training clips; words are the metrics' own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, diags, hstack

from mmfusion.data.catalog.prepared import seeded
from mmfusion.metrics.captions_tokenizer import tokenize_captions
from mmfusion.types import InputError

ORDERS = (1, 2, 3, 4)


def constant_caption(clips: Iterable[str], training: Mapping[str, Sequence[str]], text: str | None = None
                     ) -> dict[str, str]:  # fmt: skip
    """The same caption for all `clips`: `text`, else the consensus of the training clips {clip: captions}.

    That is the training caption whose CIDEr against a training clip's captions is highest in the mean over clips; the
    first one of equals.
    """
    if text is None:
        texts, owners = _flat(training)
        vectors = caption_vectors(texts, owners)
        # Every clip weighs the same, however many captions it has.
        share = 1 / np.bincount(owners)[owners]
        text = texts[int(np.argmax(vectors @ (vectors.T @ share)))]
    return dict.fromkeys(clips, text)


def nearest_neighbour_consensus(
    test: Mapping[str, np.ndarray],
    training: Mapping[str, np.ndarray],
    captions: Mapping[str, Sequence[str]],
    num_neighbours: int,
) -> dict[str, str]:
    """{test clip: the consensus caption of its nearest training clips} (Devlin et al. 2015, arXiv 1505.04467).

    `test` and `training` are {clip: (F,)}; nearness is the cosine after standardizing each feature over the training
    clips. Among the `captions` {training clip: captions} of the nearest clips, the one that is most alike the others
    in the mean; so equation 1 of the paper with all captions in place of the best m. Features that are not a number
    stand for an input that the clip does not have, and count as the mean.
    """
    names = [clip for clip in training if captions.get(clip)]
    texts, owners = _flat({clip: captions[clip] for clip in names})
    near = _nearness(np.stack([training[clip] for clip in names]), np.stack(list(test.values())))
    vectors = caption_vectors(texts, owners)
    chosen = {}
    for clip, closeness in zip(test, near, strict=True):
        nearest = np.argsort(-closeness, kind="stable")[:num_neighbours]
        rows = np.flatnonzero(np.isin(owners, nearest))
        own = vectors[rows]
        to_all = own @ np.asarray(own.sum(axis=0)).ravel()
        to_itself = np.asarray(own.multiply(own).sum(axis=1)).ravel()
        chosen[clip] = texts[int(rows[np.argmax(to_all - to_itself)])]
    return chosen


def human(references: Mapping[str, Sequence[str]], seed: int) -> tuple[dict[str, str], dict[str, list[str]]]:
    """One reference caption of each clip, drawn by `seed`, and the references that are left without it.

    A clip's draw does not depend on the other clips. InputError for a clip with a single reference.
    """
    said, left = {}, {}
    for clip, texts in references.items():
        if len(texts) < 2:
            raise InputError(f"captions: clip {clip} has {len(texts)} reference, and a human row needs two or more")
        drawn = int(seeded(seed, "human", clip).integers(len(texts)))
        said[clip] = texts[drawn]
        left[clip] = [text for place, text in enumerate(texts) if place != drawn]
    return said, left


def caption_vectors(captions: Sequence[str], owners: np.ndarray) -> Any:
    """(N, G) sparse rows whose products are the captions' CIDEr with each other; `owners` (N,) number their clips."""
    words = [caption.split() for caption in tokenize_captions(captions)]
    holds: Any = csr_matrix((np.ones(len(words)), (owners, np.arange(len(words)))))
    blocks = []
    for order in ORDERS:
        counts = _gram_counts(words, order)
        num_holders = np.asarray((holds @ counts > 0).sum(axis=0)).ravel()
        weighted: Any = counts @ diags(np.log(holds.shape[0] / np.maximum(num_holders, 1)))
        norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
        blocks.append(diags(1 / np.where(norms > 0, norms * np.sqrt(len(ORDERS)), 1)) @ weighted)
    return csr_matrix(hstack(blocks))


def _gram_counts(captions: Sequence[Sequence[str]], order: int) -> Any:
    """(N, different n-grams) how often each caption has each."""
    column: dict[tuple[str, ...], int] = {}
    rows, columns = [], []
    for row, words in enumerate(captions):
        for start in range(len(words) - order + 1):
            rows.append(row)
            columns.append(column.setdefault(tuple(words[start : start + order]), len(column)))
    return csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(captions), max(len(column), 1)))


def _flat(training: Mapping[str, Sequence[str]]) -> tuple[list[str], np.ndarray]:
    """Every training caption, and the number of its clip among those that have one."""
    told = [texts for texts in training.values() if texts]
    if not told:
        raise InputError("captions: the training clips have none, and a baseline needs some to choose from")
    return [text for texts in told for text in texts], np.repeat(np.arange(len(told)), [len(texts) for texts in told])


def _nearness(training: np.ndarray, test: np.ndarray) -> np.ndarray:
    """(M, N) cosine of standardized features (N, F) and (M, F)."""
    known = ~np.isnan(training)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, training, 0).sum(axis=0) / count
    spread = np.sqrt((np.where(known, training - mean, 0) ** 2).sum(axis=0) / count)
    unit = []
    for features in (test, training):
        scaled = np.nan_to_num((features - mean) / np.where(spread > 0, spread, 1))
        unit.append(scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-12))
    return unit[0] @ unit[1].T
