"""The search for mixing weights finds the optimum of convex figures, and nothing else moves it."""

from __future__ import annotations

import pytest
import torch

from mmfusion.config import validate
from mmfusion.fusion.weights import TunedWeights, equal_weights, search_weights
from mmfusion.types import InputError


def bowl(*lowest: float):
    return lambda candidates: (candidates.double() - torch.tensor(lowest, dtype=torch.float64)).square().sum(-1)


@pytest.mark.parametrize("lowest", [(0.3, 0.7), (0.0, 1.0), (1.0, 0.0), (0.95, 0.05)])
def test_two_members_in_one_round(lowest):
    rounds = []

    def losses(candidates):
        rounds.append(candidates)
        return bowl(*lowest)(candidates)

    torch.testing.assert_close(search_weights(losses, 2, 0.05, True), torch.tensor(lowest))
    assert [len(candidates) for candidates in rounds] == [1, 21]
    assert all(torch.allclose(c.sum(-1), torch.ones(len(c))) and (c >= 0).all() for c in rounds)


def test_more_members():
    found = search_weights(bowl(0.2, 0.5, 0.3), 3, 0.05, True)
    assert (found - torch.tensor([0.2, 0.5, 0.3])).abs().max() < 0.05
    assert found.sum().item() == pytest.approx(1)


def test_scale_where_weights_are_not_normalised():
    found = search_weights(bowl(1.5, 0.5), 2, 0.05, False)
    assert (found - torch.tensor([1.5, 0.5])).abs().max() < 0.2


def test_ties_and_broken_figures_keep_equal_weights():
    for normalize in (True, False):
        assert torch.equal(
            search_weights(lambda c: torch.zeros(len(c)), 2, 0.1, normalize), equal_weights(2, normalize)
        )
        broken = search_weights(lambda c: torch.full((len(c),), torch.nan), 3, 0.1, normalize)
        assert torch.equal(broken, equal_weights(3, normalize))
    assert torch.equal(search_weights(lambda c: 1 / 0, 1, 0.1, True), torch.ones(1))


def test_step_is_checked():
    assert validate(TunedWeights, {"step": 0.1}, "x.yaml").step == 0.1
    with pytest.raises(InputError, match="step"):
        validate(TunedWeights, {"step": 0.0}, "x.yaml")
