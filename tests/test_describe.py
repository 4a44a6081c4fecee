"""What is said of windows, joined second by second."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.describe import Said, describe, join_windows, mean_chances
from mmfusion.heads.labels import _by_second
from mmfusion.types import Batch, Output, Stream, Targets


class Heads:
    """All of a model that a description without sentences asks for."""

    steppers = MappingProxyType({})


def told(logits: torch.Tensor, mask: torch.Tensor, rate: float, starts_s: list[float]) -> list[Said]:
    output = Output(logits.mean(1), "bernoulli", Stream(logits, mask, rate))
    batch = Batch(tuple(map(str, range(len(logits)))), {})
    return describe(Heads(), {}, {"labels": output}, batch, None, None, starts_s)  # type: ignore[arg-type]


def test_a_second_is_the_mean_of_its_real_steps() -> None:
    chances = torch.tensor([[0.1, 0.3, 0.5, 0.7, 0.9]]).T[None]
    mask = torch.tensor([[True, True, False, True, True]])
    (said,) = told(chances.logit(), mask, 2.0, [0.0])
    row = said.row(["dog"])
    assert row["activity"] == {"dog": [0.2, 0.7, 0.9]}
    np.testing.assert_allclose(mean_chances(["dog"], row["activity"]), [[0.2], [0.7], [0.9]])
    (late,) = told(chances.logit(), mask, 2.0, [1.5])
    assert late.row(["dog"])["activity"] == {"dog": [0.0, 0.1, 0.3, 0.8]}
    (nothing,) = told(chances.logit(), ~mask & mask, 2.0, [0.0])
    assert nothing.row(["dog"])["activity"] == {"dog": []}


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 12), st.sampled_from([1.0, 2.0, 5.0, 1 / 0.96, 3.125, 0.5]), st.randoms())
def test_windows_that_share_the_clip_say_what_the_whole_says(num: int, size: int, rate: float, random) -> None:
    """Cut anywhere, also in the middle of a second: every step counts once, at its own time."""
    logits = torch.tensor([[random.gauss(0, 2) for _ in range(2)] for _ in range(num)])[None]
    mask = torch.tensor([[random.random() < 0.9 for _ in range(num)]])
    mask[0, -1] = True
    (whole,) = told(logits, mask, rate, [0.0])
    parts = [
        told(logits[:, first : first + size], mask[:, first : first + size], rate, [first / rate])[0]
        for first in range(0, num, size)
    ]
    joined = join_windows(parts, "mean")
    assert whole.activity is not None and joined.activity is not None
    np.testing.assert_allclose(joined.activity.means(), whole.activity.means(), atol=1e-12)


@pytest.mark.parametrize("rate", [1 / 0.96, 3.125, 0.5, 4.0])
def test_a_second_counts_its_steps_as_the_loss_does(rate: float) -> None:
    """What is said of a second weighs its steps as the mean of logits does that the head learns."""
    steps = Stream(torch.randn(1, 9, 2), torch.ones(1, 9, dtype=torch.bool), rate)
    (said,) = told(steps.data, steps.mask, rate, [0.0])
    assert said.activity is not None
    means = said.activity.means()
    probabilities = steps.with_data(steps.data.sigmoid())
    learnt, _, known = _by_second(probabilities, Targets(activity=torch.zeros(1, len(means), 2)))
    assert known.all()
    np.testing.assert_allclose(means, learnt[0], atol=1e-6)


def test_overlapping_windows_are_averaged_over_their_steps() -> None:
    low, high = (torch.full((1, 4, 1), value).logit() for value in (0.2, 0.8))
    every = torch.ones(1, 4, dtype=torch.bool)
    windows = told(torch.cat([low, high]), torch.cat([every, every]), 2.0, [0.0, 1.0])
    joined = join_windows(windows, "han2016")
    assert joined.row(["dog"])["activity"] == {"dog": [0.2, 0.5, 0.8]}
    assert joined.chances["labels"] == pytest.approx([1.0])
