"""Dense captions of BMT on ActivityNet's true segments: published BLEU-3 4.63, BLEU-4 1.99, METEOR 10.90.

The recipe is that of densevid_eval (Krishna 2017, ActivityNet captions), the part that scores sentences.

Every predicted sentence is paired with every true sentence of its video whose segment overlaps by at least the tIoU;
one that overlaps none would be paired with a random string. Each video's pairs are one corpus (a pair counts as one
"clip" with one reference); the score is the mean over videos, then over the tIoUs. Videos that could no longer be
downloaded have no predictions and are left out, as the authors of BMT (Iashin and Rahtu 2020) did: with zeros for them
the published figures would be a twelfth lower.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mmfusion.metrics.captions import corpus_bleu
from mmfusion.metrics.captions_tokenizer import tokenize_captions
from mmfusion.metrics.meteor import Meteor, meteor_from_sums, summable
from mmfusion.metrics.resampled import bleu_from_counts

TIOUS = (0.3, 0.5, 0.7, 0.9)


def tiou(a: list[float], b: list[float]) -> float:
    """Intersection over union of two segments, by densevid_eval's formula (union as the hull where they overlap)."""
    intersection = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = min(max(a[1], b[1]) - min(a[0], b[0]), a[1] - a[0] + b[1] - b[0])
    return intersection / (union + 1e-8)


def ascii_only(text: str) -> str:
    return "".join(character if ord(character) < 128 else " " for character in text)


def score_set(predictions_path: Path, truth_path: Path, meteor: Meteor) -> dict[str, float]:
    """BLEU-3, BLEU-4 and METEOR in per cent, as published."""
    predictions = json.loads(predictions_path.read_text())["results"]
    truth = {video: true for video, true in json.loads(truth_path.read_text()).items() if video in predictions}
    videos, overlaps, pairs = [], [], []
    for position, (video, true) in enumerate(truth.items()):
        for said in predictions.get(video, ()):
            found = [
                (overlap, sentence)
                for span, sentence in zip(true["timestamps"], true["sentences"], strict=True)
                if (overlap := tiou(said["timestamp"], span)) >= min(TIOUS)
            ]
            assert max(overlap for overlap, _ in found) >= max(TIOUS), "would be paired with a random string"
            for overlap, sentence in found:
                videos.append(position)
                overlaps.append(overlap)
                pairs.append((ascii_only(said["sentence"]), ascii_only(sentence)))
    bleu, statistics = _counts(pairs, meteor)
    where, overlap = np.array(videos), np.array(overlaps)
    scores = [_mean_over_videos(overlap >= least, where, len(truth), bleu, statistics) for least in TIOUS]
    return dict(zip(("bleu_3", "bleu_4", "meteor"), (100 * np.mean(scores, axis=0)).tolist(), strict=True))


def _counts(pairs: list[tuple[str, str]], meteor: Meteor) -> tuple[np.ndarray, np.ndarray]:
    """BLEU counts (P, 10) and METEOR statistics (P, 23) of every pair."""
    words = tokenize_captions([text for pair in pairs for text in pair])
    said = {str(number): text for number, text in enumerate(words[0::2])}
    true = {str(number): [text] for number, text in enumerate(words[1::2])}
    return np.array(corpus_bleu(true, said)[2], dtype=float), summable(meteor.score(true, said).statistics)


def _mean_over_videos(
    chosen: np.ndarray, videos: np.ndarray, num_videos: int, bleu: np.ndarray, statistics: np.ndarray
) -> list[float]:
    """Every video's corpus scores from its summed counts, and their mean."""
    sums = np.zeros((num_videos, bleu.shape[1] + statistics.shape[1]))
    np.add.at(sums, videos[chosen], np.hstack([bleu, statistics])[chosen])
    bleus, meteors = bleu_from_counts(sums[:, :10]), meteor_from_sums(sums[:, 10:])
    return [float(column.mean()) for column in (bleus[:, 2], bleus[:, 3], meteors)]


@pytest.mark.slow
def test_published_dense_caption_scores(shared_data: Path) -> None:
    folder = shared_data / "golden" / "captions"

    def score(number: int) -> dict[str, float]:
        with Meteor() as meteor:
            said, true = folder / f"captioning_results_val_{number}_e26.json", folder / f"val_{number}.json"
            return score_set(said, true, meteor)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(score, (1, 2))
    mean = {name: round((first[name] + second[name]) / 2, 2) for name in first}
    assert mean == {"bleu_3": 4.63, "bleu_4": 1.99, "meteor": 10.90}


def test_tiou() -> None:
    assert tiou([0, 10], [0, 10]) == pytest.approx(1)
    assert tiou([0, 10], [5, 15]) == pytest.approx(1 / 3)
    assert tiou([0, 1], [2, 3]) == 0
