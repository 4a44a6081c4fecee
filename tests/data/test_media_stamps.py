"""Damaged time stamps are recognised, and a second recording goes on where the first one ended."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mmfusion.data.media_open import Tally
from mmfusion.data.media_stamps import Timeline, without_strays


def cleaned(times):
    tally = Tally()
    pairs = list(without_strays(iter(enumerate(times)), tally))
    assert [index for index, _ in pairs] == list(range(len(times)))
    return [time_s for _, time_s in pairs], tally.num_broken


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0.0, 0.1, 0.2], [0.0, 0.1, 0.2]),
        ([0.0, 0.1, 99.0, 0.3], [0.0, 0.1, None, 0.3]),
        ([5.0, 5.1, 0.1, 5.3], [5.0, 5.1, None, 5.3]),
        ([0.0, 0.1, 30.0, 30.1], [0.0, 0.1, 30.0, 30.1]),
        ([0.0, None, 0.2], [0.0, None, 0.2]),
        ([], []),
    ],
)
def test_a_stray_stamp_is_dropped_and_a_pause_is_not(times, expected):
    found, num_broken = cleaned(times)
    assert found == expected
    assert num_broken == sum(time_s is not None and new is None for time_s, new in zip(times, expected, strict=True))


@pytest.mark.parametrize(("counts_from_zero", "pause_s"), [(True, 100.0), (False, 9.0)])
def test_a_pause_is_kept_and_a_seam_is_closed(counts_from_zero, pause_s):
    timeline = Timeline(SimpleNamespace(counts_from_zero=counts_from_zero))
    assert timeline.place(1.0, 1.0) == 1.0
    assert timeline.place(None, 1.5) == 1.5
    assert timeline.place(1.5 + pause_s, 1.5) == 1.5 + pause_s
    assert timeline.place(0.0, 200.0) == 200.0
    assert timeline.place(0.5, 200.4) == 200.5
    assert timeline.place(1e6, 201.0) == 201.0
    assert timeline.place(1e6 + 0.5, 201.4) == pytest.approx(201.5)
