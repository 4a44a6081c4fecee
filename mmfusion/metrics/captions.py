"""Caption metrics over a set of clips, through pycocoevalcap with its own PTB tokenizer and METEOR 1.5 jar.

Conventions: BLEU-1..4, METEOR and ROUGE_L lie in [0, 1], CIDEr in [0, 10]; nothing is multiplied by 100. Candidates and
references are tokenized alike (captions_tokenizer). Corpus scores: BLEU from summed counts with the closest reference
length (Papineni 2002), METEOR from summed statistics (Denkowski and Lavie 2014), ROUGE_L (Lin 2004, beta 1.2) and CIDEr
(Vedantam 2015, CIDEr without -D) as means over clips.

What to know before reading a number:
* CIDEr weighs n-grams by how rare they are among the references that are scored: a clip's CIDEr depends on the other
  clips, values from two clip lists are not comparable, and for a single clip it is 0 by construction.
* BLEU-n is near 0 wherever no n-gram matches; pycocoevalcap adds 1e-15 to each count and does no smoothing.
* SPICE is left out: its models have to be downloaded.
* distinct-n (Li et al. 2016, "A diversity-promoting objective function", section 5.4) falls with the number of words
  said: compare it on one clip list only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from mmfusion.metrics.captions_tokenizer import tokenize_captions, tokenizer_name
from mmfusion.metrics.java import scorer_version
from mmfusion.metrics.meteor import Meteor, MeteorScores
from mmfusion.types import InputError

CAPTION_METRICS = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor", "rouge_l", "cider")


def caption_metrics(
    references: Mapping[str, Sequence[str]],
    candidates: Mapping[str, str],
    meteor: Meteor | None = None,
    seen: Collection[str] | None = None,
) -> dict[str, Any]:
    """Scores of one raw caption a clip against the clip's raw references, ready for JSON.

    Returns the corpus scores under the names of `CAPTION_METRICS`, then
        num_clips, num_distinct       clips, and different captions among the candidates (after tokenization)
        mean_length, vocabulary_size  words a candidate on average, and different words in all candidates
        distinct_1, distinct_2      different n-grams / all n-grams of all candidates, 0 where there are none
        share_unseen                share of candidates that are, word for word, none of the captions `seen` in
                                    training; only when `seen` is given
        num_empty_candidates, num_empty_references  captions in which the tokenizer found no word (scored as they are)
        scorer, meteor_version, tokenizer           what made the numbers; never compare across different ones
        per_clip  {id: {the seven scores of the clip alone, bleu_counts (10), meteor_statistics (23)}}

    `bleu_counts` (matches 1..4, n-grams 1..4, length, closest reference length) and `meteor_statistics` add up over
    clips to the corpus score, which is what `resampled.caption_statistic` reads. A running `meteor` saves some
    seconds of starting one. Raises InputError when ids differ between the two sides, when a clip has no reference
    with a word in it, and when Java cannot be had or does not answer.
    """
    _check_ids(references, candidates)
    if meteor is None:
        with Meteor() as own:  # starts while the other scores are computed
            return caption_metrics(references, candidates, own, seen)
    ids = list(candidates)
    gold, said, known = _tokenized(references, candidates, seen, meteor.java)
    bleu, bleu_clips, counts = corpus_bleu(gold, said)
    rouge = [Rouge().calc_score([said[clip]], gold[clip]) for clip in ids]
    cider, cider_clips = Cider().compute_score(gold, {clip: [said[clip]] for clip in ids})
    scores = meteor.score(gold, said)
    corpus = [*bleu, scores.corpus, float(np.mean(rouge)), float(cider)]
    clips = [*bleu_clips, scores.segments, rouge, cider_clips]
    return {
        **dict(zip(CAPTION_METRICS, corpus, strict=True)),
        **_diversity(said),
        **({} if known is None else {"share_unseen": float(np.mean([said[clip] not in known for clip in ids]))}),
        "num_empty_references": sum(not reference for texts in gold.values() for reference in texts),
        "scorer": scorer_version(),
        "meteor_version": "1.5 jar, en, -norm",
        "tokenizer": tokenizer_name(),
        "per_clip": _per_clip(ids, clips, counts, scores),
    }


def corpus_bleu(
    references: Mapping[str, Sequence[str]], candidates: Mapping[str, str]
) -> tuple[list[float], list[list[float]], list[list[int]]]:
    """BLEU-1..4 of tokenized captions by pycocoevalcap: corpus [4], per clip [4][N], and counts [N][10]."""
    scorer = BleuScorer(n=4)
    for clip, caption in candidates.items():
        scorer += (caption, references[clip])
    corpus, clips = scorer.compute_score(option="closest", verbose=0)
    counts = []
    for clip in scorer.ctest:
        length = clip["testlen"]
        closest = min((abs(reference - length), reference) for reference in clip["reflen"])[1]
        counts.append([*clip["correct"], *clip["guess"], length, closest])
    return corpus, clips, counts


def _check_ids(references: Mapping[str, Sequence[str]], candidates: Mapping[str, str]) -> None:
    if not candidates:
        raise InputError("captions: there are no clips to score")
    for missing, side in (
        ([clip for clip in candidates if clip not in references], "references"),
        ([clip for clip in references if clip not in candidates], "candidates"),
    ):
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise InputError(f"captions: the {side} lack clip {missing[0]}{more}")


def _tokenized(
    references: Mapping[str, Sequence[str]], candidates: Mapping[str, str], seen: Collection[str] | None, java: str
) -> tuple[dict[str, list[str]], dict[str, str], set[str] | None]:
    """Both sides, in the order of the candidates, and the captions seen, tokenized in one go."""
    raw = [text for clip in candidates for text in (candidates[clip], *references[clip])]
    words = iter(tokenize_captions([*raw, *dict.fromkeys(seen or ())], java))
    gold: dict[str, list[str]] = {}
    said: dict[str, str] = {}
    for clip in candidates:
        said[clip] = next(words)
        gold[clip] = [next(words) for _ in references[clip]]
        if not any(gold[clip]):
            raise InputError(f"captions: clip {clip} has no reference with a word in it")
    return gold, said, None if seen is None else set(words) - {""}


def _diversity(candidates: Mapping[str, str]) -> dict[str, Any]:
    words = [caption.split() for caption in candidates.values()]
    return {
        "num_clips": len(candidates),
        "num_distinct": len(set(candidates.values())),
        "mean_length": sum(map(len, words)) / len(words),
        "vocabulary_size": len({word for caption in words for word in caption}),
        "distinct_1": _distinct(words, 1),
        "distinct_2": _distinct(words, 2),
        "num_empty_candidates": sum(not caption for caption in words),
    }


def _distinct(captions: list[list[str]], order: int) -> float:
    """Different n-grams / all n-grams; none spans two captions."""
    grams = [tuple(words[at : at + order]) for words in captions for at in range(len(words) - order + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def _per_clip(ids: list[str], scores: list[Any], counts: list[list[int]], meteor: MeteorScores) -> dict[str, Any]:
    rows = {}
    for position, clip in enumerate(ids):
        row: dict[str, Any] = {
            name: float(values[position]) for name, values in zip(CAPTION_METRICS, scores, strict=True)
        }
        row["bleu_counts"] = counts[position]
        row["meteor_statistics"] = meteor.statistics[position].tolist()
        rows[clip] = row
    return rows
