"""Re-ranking: among a search's n best captions, the one whose words the sound supports.

    score' = score + weight * agreement

`score` is the search's own (log p over a length penalty), `agreement` counts what a caption mentions: +1 for each thing
that the sound supports, -1 for each that it contradicts, a thing counted once however many of its words are checked.
The weight is tuned on validation; 0 leaves the search's order as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmfusion.language.grounding import Grounded

WEIGHTS = (0.0, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Candidate:
    """One of the n best captions of a clip, with its score by the search and its agreement with the sound."""

    caption: str
    score: float
    agreement: float = 0.0


def agreement(words: Sequence[Grounded]) -> float:
    """Things supported less things contradicted; a thing with both verdicts is contradicted. 0 without any."""
    verdicts: dict[str, float] = {}
    for word in words:
        if word.label is not None and word.verdict in ("supported", "contradicted"):
            vote = 1.0 if word.verdict == "supported" else -1.0
            verdicts[word.label] = min(verdicts.get(word.label, 1.0), vote)
    return sum(verdicts.values())


def pick(candidates: Sequence[Candidate], weight: float) -> int:
    """The place of the best candidate; among equals the first, so that weight 0 takes the search's own choice."""
    if not candidates:
        raise ValueError("there is no candidate to pick from")
    totals = [candidate.score + weight * candidate.agreement for candidate in candidates]
    return totals.index(max(totals))


def tune_weight(clips: Sequence[Sequence[Candidate]], values: Sequence[Sequence[float]],
                weights: Sequence[float] = WEIGHTS) -> tuple[float, dict[float, float]]:  # fmt: skip
    """The weight under which the picked candidates' mean value is highest, the smallest of equals; and all means.

    `values` [clip][candidate] is any figure of a validation clip that is the higher the better (CIDEr, METEOR). Raises
    ValueError when a clip has not one value a candidate.
    """
    if not clips or any(len(own) != len(figures) for own, figures in zip(clips, values, strict=True)):
        raise ValueError("every clip needs one value a candidate")
    means = {
        weight: sum(figures[pick(own, weight)] for own, figures in zip(clips, values, strict=True)) / len(clips)
        for weight in sorted(weights)
    }
    best = max(means.values())
    return next(weight for weight, mean in means.items() if mean == best), means
