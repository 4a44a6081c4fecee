"""Seconds: what a stretch of time touches, and what steps cover of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.seconds import second_shares, touched


@pytest.mark.parametrize(
    ("stretch", "expected"),
    [((0.0, 1.0), (0, 1)), ((0.5, 1.5), (0, 2)), ((2.0, 2.0), (2, 2)), ((-1.5, 0.5), (0, 1)), ((-2.0, -1.0), (0, 0))],
)
def test_touched_seconds(stretch: tuple[float, float], expected: tuple[int, int]) -> None:
    found = touched(*stretch)
    assert (found.start, found.stop) == expected


def test_slack_forgives_rounding() -> None:
    assert touched(0.9999999, 2.0000001) == slice(0, 3)
    assert touched(0.9999999, 2.0000001, slack=1e-6) == slice(1, 2)
    assert touched(0.3, 0.6, 0.1, slack=1e-6) == slice(3, 6)


@given(rate=st.floats(0.2, 50), num=st.integers(1, 60), start_s=st.floats(0, 5))
@settings(max_examples=60, deadline=None)
def test_shares_add_up_to_the_steps(rate: float, num: int, start_s: float) -> None:
    begin_s = start_s + torch.arange(num, dtype=torch.float64) / rate
    shares = second_shares(begin_s, rate, 0, int(np.ceil(start_s + num / rate)) + 1)
    assert (shares >= 0).all() and (shares <= 1 + 1e-9).all()
    np.testing.assert_allclose(shares.sum(dim=0), 1 / rate, atol=1e-5)
    later = second_shares(begin_s, rate, 2, 3)
    np.testing.assert_array_equal(later[: len(shares) - 2], shares[2:5])
