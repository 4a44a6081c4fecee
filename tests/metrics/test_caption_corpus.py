"""The MSVD test set as it is scored in the field: 670 clips, 40 references each, every metric in one pass."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor as TheirMeteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from mmfusion.data.catalog.references import read_references
from mmfusion.metrics.captions import CAPTION_METRICS, caption_metrics
from mmfusion.metrics.meteor import Meteor
from mmfusion.metrics.scoring import format_scores


@pytest.fixture(scope="module")
def msvd(shared_data: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    """References of the 670 test clips as the file has them, and as candidates a caption of the clip before each."""
    path = shared_data / "msvd" / "sents_test_lc_nopunc.txt"
    if not path.exists():
        pytest.skip(f"needs the MSVD captions ({path})")
    references = read_references(path)
    clips = list(references)
    return references, {clip: references[clips[place - 1]][0] for place, clip in enumerate(clips)}


def of_pycocoevalcap(references: dict[str, list[str]], candidates: dict[str, str]) -> dict[str, float]:
    """The seven scores by pycocoevalcap alone, one scorer after the other."""
    words = PTBTokenizer()
    gold = words.tokenize({clip: [{"caption": text} for text in texts] for clip, texts in references.items()})
    said = words.tokenize({clip: [{"caption": text}] for clip, text in candidates.items()})
    bleu = Bleu(4).compute_score(gold, said, verbose=0)[0]
    scores = [scorer.compute_score(gold, said)[0] for scorer in (TheirMeteor(), Rouge(), Cider())]
    return dict(zip(CAPTION_METRICS, map(float, [*bleu, *scores]), strict=True))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_670_clips_equal_pycocoevalcap_though_meteor_is_killed_in_the_middle(msvd) -> None:
    references, candidates = msvd
    assert len(references) == 670 and sum(map(len, references.values())) == 27763
    with Meteor(deadline_s=300) as meteor:
        first, exchange, asked = meteor.pid, meteor._exchange, []

        def watched(question: str, num_answers: int) -> list[str]:
            asked.append(num_answers)
            if len(asked) == 11:  # some 320 of the 670 clips are answered
                os.kill(first, signal.SIGKILL)
            return exchange(question, num_answers)

        meteor._exchange = watched  # type: ignore[method-assign]
        result = caption_metrics(references, candidates, meteor)
        assert meteor.pid != first and len(asked) > 20
    theirs = of_pycocoevalcap(references, candidates)
    assert {name: result[name] for name in CAPTION_METRICS} == pytest.approx(theirs, rel=1e-12)
    shown = format_scores(result).splitlines()
    assert [line.split()[0] for line in shown[:7]] == list(CAPTION_METRICS)
    assert [float(line.split()[1]) for line in shown[:7]] == pytest.approx(list(theirs.values()), abs=5e-5)
