"""The mixing equations: equal to what they say in probabilities, stable, and blind to what weighs nothing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.fusion.mix import clip_weights, mix

FAMILIES = ("bernoulli", "categorical")
RULES = ("linear", "loglinear")
EVERY = [(family, rule) for family in FAMILIES for rule in RULES]


def members_of(seed: int, num_members: int, scale: float = 3.0, dtype=torch.float32) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(4, 6, generator=random, dtype=dtype) for _ in range(num_members)]


def shares_of(weights: list[float]) -> torch.Tensor:
    vector = torch.tensor(weights)
    return (vector / vector.sum()).expand(4, -1)


def normalised(logits: torch.Tensor, family: str) -> torch.Tensor:
    return logits if family == "bernoulli" else logits.log_softmax(-1)


weight_lists = st.lists(st.floats(0.05, 1.0), min_size=1, max_size=4)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), weight_lists)
def test_linear_is_the_mean_of_probabilities(seed, weights):
    members, shares = members_of(seed, len(weights)), shares_of(weights)
    for family, chance in (("bernoulli", torch.sigmoid), ("categorical", lambda z: z.softmax(-1))):
        mixed = chance(mix(members, shares, family, "linear"))
        expected = sum(shares[:, m, None] * chance(member) for m, member in enumerate(members))
        torch.testing.assert_close(mixed, expected, rtol=1e-4, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4))
def test_loglinear_with_ones_is_the_product_of_posteriors(seed, num_members):
    members = members_of(seed, num_members, dtype=torch.float64)
    ones = torch.ones(4, num_members)
    product = torch.stack([member.softmax(-1) for member in members]).prod(0)
    mixed = mix(members, ones, "categorical", "loglinear").exp()
    torch.testing.assert_close(mixed, product / product.sum(-1, keepdim=True))
    yes = torch.stack([member.sigmoid() for member in members]).prod(0)
    no = torch.stack([(-member).sigmoid() for member in members]).prod(0)
    torch.testing.assert_close(mix(members, ones, "bernoulli", "loglinear").sigmoid(), yes / (yes + no))


@pytest.mark.parametrize(("family", "rule"), EVERY)
@settings(max_examples=20, deadline=None)
@given(weights=weight_lists, scale=st.floats(0.1, 20))
def test_a_mix_of_equal_parts_is_the_part(family, rule, weights, scale):
    part = members_of(7, 1, scale)[0]
    mixed = mix([part] * len(weights), shares_of(weights), family, rule)
    torch.testing.assert_close(mixed, normalised(part, family), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("family", "rule"), EVERY)
def test_stable_at_eighty(family, rule):
    values = torch.tensor([80.0, -80.0, 40.0, 0.0])
    members = [
        values[:, None] * torch.tensor([1.0, -1.0, 0.5]),
        values.flip(0)[:, None] * torch.tensor([1.0, 1.0, -1.0]),
    ]
    shares = torch.tensor([0.3, 0.7]).expand(4, -1).clone().requires_grad_()
    leaves = [member.clone().requires_grad_() for member in members]
    mixed = mix(leaves, shares, family, rule)
    mixed.sum().backward()
    assert mixed.dtype == torch.float32 and torch.isfinite(mixed).all()
    assert all(torch.isfinite(leaf.grad).all() for leaf in (*leaves, shares))
    torch.testing.assert_close(mixed, mix([m.double() for m in members], shares.double(), family, rule).float())


@pytest.mark.parametrize("sign", [1, -1])
def test_certainty_is_not_rounded_away(sign):
    same = torch.full((4, 6), 80.0 * sign)
    torch.testing.assert_close(mix([same, same], shares_of([1, 1]), "bernoulli", "linear"), same)
    # Half of the weight is certain, half knows nothing: 3/4 of a chance, or 1/4.
    unsure = mix([same, torch.zeros(4, 6)], shares_of([1, 1]), "bernoulli", "linear").sigmoid()
    torch.testing.assert_close(unsure, torch.full((4, 6), 0.75 if sign > 0 else 0.25))


@pytest.mark.parametrize(("family", "rule"), EVERY)
@pytest.mark.parametrize("junk", [1e30, torch.nan, torch.inf, -torch.inf])
def test_a_member_without_weight_has_no_influence(family, rule, junk):
    part, absent = (member.requires_grad_() for member in (*members_of(1, 1), torch.full((4, 6), junk)))
    weights = torch.tensor([1.0, 0.0]).expand(4, -1).clone().requires_grad_()
    mixed = mix([part, absent], weights, family, rule)
    torch.testing.assert_close(mixed, normalised(part, family))
    mixed.square().sum().backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in (part, absent, weights)) and not absent.grad.any()


@pytest.mark.parametrize(("family", "rule"), EVERY)
def test_weights_of_a_clip_stand_for_that_clip_only(family, rule):
    members = members_of(2, 2)
    weights = torch.tensor([[0.2, 0.8], [1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    mixed = mix(members, weights, family, rule)
    for clip in range(4):
        alone = mix([member[clip : clip + 1] for member in members], weights[clip : clip + 1], family, rule)
        torch.testing.assert_close(mixed[clip : clip + 1], alone)


def test_weights_spread_over_every_further_axis():
    words = [torch.randn(2, 3, 4, 9) for _ in range(2)]
    weights = torch.tensor([[0.2, 0.8], [0.6, 0.4]])
    mixed = mix(words, weights, "categorical", "linear")
    torch.testing.assert_close(mixed.exp().sum(-1), torch.ones(2, 3, 4))
    torch.testing.assert_close(
        mixed[1, 2], mix([w[1, 2] for w in words], weights[1].expand(4, -1), "categorical", "linear")
    )


def test_precision_under_autocast():
    members = members_of(3, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = mix([member.bfloat16() for member in members], shares_of([1, 2]), "categorical", "linear")
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed.exp().sum(-1), torch.ones(4))


def test_clip_weights():
    present = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    weights = torch.tensor([1.0, 3.0])
    expected = torch.tensor([[0.25, 0.75], [1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    torch.testing.assert_close(clip_weights(weights, present, normalize=True), expected)
    as_given = torch.tensor([[1.0, 3.0], [1.0, 0.0], [0.0, 3.0], [0.5, 0.5]])
    torch.testing.assert_close(clip_weights(weights, present, normalize=False), as_given)
    only_weightless = clip_weights(torch.tensor([0.0, 1.0]), torch.tensor([[True, False]]), normalize=True)
    torch.testing.assert_close(only_weightless, torch.tensor([[1.0, 0.0]]))


@pytest.mark.parametrize(("family", "rule"), EVERY)
@pytest.mark.parametrize("normalize", [True, False])
def test_learned_weights_get_finite_gradients_whatever_is_missing(family, rule, normalize):
    raw = torch.tensor([0.3, -0.2], requires_grad=True)
    present = torch.tensor([[True, True], [True, False], [False, True], [False, False]])
    mixed = mix(members_of(5, 2), clip_weights(raw.exp(), present, normalize), family, rule)
    mixed.square().sum().backward()
    assert torch.isfinite(raw.grad).all() and raw.grad.any()
