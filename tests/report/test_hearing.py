"""From which probability on a sound tagger is taken to hear a label."""

from __future__ import annotations

import pytest

from mmfusion.report.grounding import hearing_thresholds


def test_thresholds_part_what_can_be_parted() -> None:
    chances = [{"bell": 0.9, "rain": 0.2}, {"bell": 0.7, "rain": 0.1}, {"bell": 0.3, "rain": 0.05}] * 3
    heard = [{"bell"}, {"bell"}, set()] * 3
    found = hearing_thresholds(chances, heard)
    assert found["bell"] == pytest.approx(0.5)
    assert found["rain"] == pytest.approx(0.5)  # never heard: the threshold of all labels together
    assert hearing_thresholds([], []) == {} and hearing_thresholds([{"bell": 0.4}], [set()]) == {"bell": 0.5}


def test_a_label_that_a_tagger_does_not_know_in_a_clip_counts_for_nothing() -> None:
    rows = [{"bell": 0.9}, {"bell": 0.2}, {}] * 5
    assert hearing_thresholds(rows, [{"bell"}, set(), {"bell"}] * 5) == {"bell": pytest.approx(0.55)}
