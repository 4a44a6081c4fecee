"""Re-ranking: what agrees with the sound wins by as much as the weight says, and 0 leaves the search alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.language.grounding import Grounded
from mmfusion.language.rerank import Candidate, agreement, pick, tune_weight

SCORES = st.lists(st.tuples(st.floats(-50, 0), st.integers(-3, 3)), min_size=1, max_size=6)


def candidates(pairs):
    return [Candidate(str(number), score, vote) for number, (score, vote) in enumerate(pairs)]


@settings(deadline=None)
@given(SCORES)
def test_weight_zero_is_the_search(pairs):
    ranked = candidates(sorted(pairs, key=lambda pair: -pair[0]))
    assert pick(ranked, 0.0) == 0


@settings(deadline=None)
@given(SCORES, st.floats(0, 10), st.floats(0, 10))
def test_more_weight_never_picks_less_agreement(pairs, one, other):
    found = candidates(pairs)
    less, more = sorted((one, other))
    assert found[pick(found, more)].agreement >= found[pick(found, less)].agreement


def test_each_thing_counts_once_and_doubt_counts_against_it():
    words = [
        Grounded("siren", "siren", "supported", 0.9), Grounded("wails", "siren", "supported", 0.9),
        Grounded("bell", "bell", "supported", 0.8), Grounded("rings", "bell", "contradicted", 0.1),
        Grounded("table", None, "silent", None), Grounded("ball", "ball", "silent", 0.1),
        Grounded("gizmo", "gizmo", "unchecked", None),
    ]  # fmt: skip
    assert agreement(words) == 0.0 and agreement(words[:2]) == 1.0 and agreement([]) == 0.0


def test_the_weight_is_the_smallest_of_the_best():
    clips = [[Candidate("false", -1.0, -1), Candidate("true", -1.3, 1)], [Candidate("true", -1.0, 1)]]
    weight, means = tune_weight(clips, [[0.2, 0.8], [0.5]], (0.0, 0.1, 0.2, 1.0))
    assert weight == 0.2 and means == pytest.approx({0.0: 0.35, 0.1: 0.35, 0.2: 0.65, 1.0: 0.65})
    assert tune_weight(clips, [[0.8, 0.2], [0.5]])[0] == 0.0


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="no candidate"):
        pick([], 1.0)
    with pytest.raises(ValueError, match="one value"):
        tune_weight([[Candidate("a", 0.0)]], [[0.1, 0.2]])
