"""Losses of separated signals against their definitions and against brute force."""

from __future__ import annotations

from itertools import permutations, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.config import validate
from mmfusion.heads.separation_losses import (
    SeparationLossConfig,
    added_up,
    collapse,
    consistent,
    inner_products,
    match,
    mixit_loss,
    pairwise,
    separation_loss,
    signal_to_noise,
    silence,
)
from mmfusion.types import InputError


def signals(num_clips: int, num: int, length: int = 200, seed: int = 0) -> torch.Tensor:
    return torch.randn(num_clips, num, length, generator=torch.Generator().manual_seed(seed))


def all_known(sources: torch.Tensor) -> torch.Tensor:
    return torch.ones(sources.shape[:2], dtype=torch.bool)


def si_sdr_by_definition(estimate: torch.Tensor, source: torch.Tensor) -> float:
    estimate, source = estimate.double(), source.double()
    target = (estimate @ source) / (source @ source) * source
    return float(10 * torch.log10(target.square().sum() / (target - estimate).square().sum()))


def test_si_sdr_and_snr_by_their_definitions() -> None:
    estimates, sources = signals(2, 3), signals(2, 3, seed=1)
    found = signal_to_noise(estimates, sources)
    for clip in range(2):
        for place in range(3):
            expected = si_sdr_by_definition(estimates[clip, place], sources[clip, place])
            assert float(found[clip, place]) == pytest.approx(expected, abs=1e-3)
    snr = 10 * torch.log10(sources.square().sum(-1) / (sources - estimates).square().sum(-1))
    torch.testing.assert_close(signal_to_noise(estimates, sources, "snr"), snr)
    torch.testing.assert_close(signal_to_noise(3 * estimates, sources), found, atol=1e-3, rtol=0)


@pytest.mark.parametrize("measure", ["si_sdr", "snr"])
def test_pairs_from_inner_products_are_the_pairs_one_by_one(measure: str) -> None:
    estimates, sources = signals(2, 4), signals(2, 3, seed=1)
    found = pairwise(inner_products(estimates, sources), measure, 20.0)  # type: ignore[arg-type]
    assert found.shape == (2, 4, 3)
    for i, j in product(range(4), range(3)):
        direct = signal_to_noise(estimates[:, i], sources[:, j], measure, 20.0)  # type: ignore[arg-type]
        torch.testing.assert_close(found[:, i, j], direct, atol=1e-3, rtol=0)


def test_very_good_estimates_are_told_apart_by_the_loss_and_not_by_inner_products() -> None:
    sources = signals(1, 2, 8000)
    noise = signals(1, 2, 8000, seed=1)
    good = sources + 10 ** (-70 / 20) * noise
    config = SeparationLossConfig(max_db=None)
    loss, _ = separation_loss(config, good, sources, all_known(sources))
    assert float(loss) == pytest.approx(-70, abs=0.5)


def test_the_threshold_bounds_the_loss_and_a_silent_estimate_is_worse_than_a_bad_one() -> None:
    source = signals(1, 1, 500)
    assert float(signal_to_noise(source, source, "si_sdr", 30.0)) == pytest.approx(30, abs=0.01)
    assert float(signal_to_noise(source, source, "snr", 30.0)) == pytest.approx(30, abs=0.01)
    noise = signals(1, 1, 500, seed=1)
    assert float(signal_to_noise(0 * source, source)) == pytest.approx(-40, abs=0.1)
    assert float(signal_to_noise(noise + 0.1 * source, source)) > -40


@pytest.mark.parametrize("num", [2, 3, 4, 5, 6])
def test_the_best_permutation_is_that_of_brute_force(num: int) -> None:
    config = SeparationLossConfig()
    sources, noise = signals(3, num, 60), signals(3, num, 60, seed=1)
    estimates = (sources.flip(1) + noise)[:, torch.randperm(num, generator=torch.Generator().manual_seed(2))]
    known = torch.rand(3, num, generator=torch.Generator().manual_seed(3)) < 0.7
    sources = sources * known[..., None]
    loss, _ = separation_loss(config, estimates, sources, known)
    power = sources.sum(1).square().sum(-1, keepdim=True)
    best = torch.full((3,), torch.inf)
    for order in permutations(range(num)):
        own = estimates[:, list(order)]
        heard = -signal_to_noise(own, sources, "si_sdr", 30.0)
        costs = torch.where(known, heard, silence(own.square().sum(-1), power, 30.0))
        best = torch.minimum(best, costs.mean(1))
    assert float(loss) == pytest.approx(float(best.mean()), abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), num=st.integers(2, 8), measure=st.sampled_from(["si_sdr", "snr"]))
def test_the_order_of_sources_and_of_outputs_does_not_matter(seed: int, num: int, measure: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    config = validate(SeparationLossConfig, {"measure": measure}, "test")
    sources, noise = signals(2, num, seed=seed), signals(2, num, seed=seed + 1)
    known = torch.rand(2, num, generator=generator) < 0.8
    sources = sources * known[..., None]
    estimates = sources + noise
    loss, figures = separation_loss(config, estimates, sources, known)
    order = torch.randperm(num, generator=generator)
    for changed in (
        separation_loss(config, estimates, sources[:, order], known[:, order]),
        separation_loss(config, estimates[:, order], sources, known),
    ):
        torch.testing.assert_close(changed[0], loss, atol=1e-4, rtol=0)
        assert changed[1].keys() == figures.keys()
        for name, value in figures.items():
            torch.testing.assert_close(changed[1][name], value, atol=1e-4, rtol=0)


def test_a_hundred_sources_find_their_estimates() -> None:
    sources = signals(1, 100, 400)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(1))
    estimates = sources[:, order] + 0.3 * signals(1, 100, 400, seed=2)
    products = inner_products(estimates, sources)
    found = match(SeparationLossConfig(), products, all_known(sources), sources.sum(1).square().sum(-1))
    assert torch.equal(order[found[0]], torch.arange(100))


@pytest.mark.parametrize("objective", ["permutation", "mixit"])
@pytest.mark.parametrize("which", ["one silent", "all silent", "silent estimates", "estimates alike"])
def test_gradients_are_finite_at_the_edges(objective: str, which: str) -> None:
    config = validate(SeparationLossConfig, {"objective": objective}, "test")
    sources, estimates, known = signals(2, 2), signals(2, 3, seed=1), torch.ones(2, 2, dtype=torch.bool)
    if which == "one silent":
        known[0, 1] = False
    elif which == "all silent":
        known[:] = False
    elif which == "silent estimates":
        estimates = 0 * estimates
    else:
        estimates = estimates[:, :1].repeat(1, 3, 1)
    estimates.requires_grad_()
    loss, figures = separation_loss(config, estimates, sources * known[..., None], known)
    loss.backward()
    assert loss.isfinite() and estimates.grad is not None and estimates.grad.isfinite().all()
    assert all(value.isfinite() for value in figures.values())


def test_silent_sources_ask_for_silence_and_are_counted_apart() -> None:
    sources = signals(1, 2)
    sources[:, 1] = 0
    known = torch.tensor([[True, False]])
    perfect, told = separation_loss(SeparationLossConfig(), sources.flip(1), sources, known)
    assert float(perfect) == pytest.approx(-30, abs=0.01)
    assert float(told["silence"]) == pytest.approx(-30, abs=0.01)
    assert float(told["heard"]) == pytest.approx(30, abs=0.01)
    loud = sources.flip(1) + torch.tensor([1.0, 0.0])[None, :, None] * signals(1, 2, seed=1)
    loss, told = separation_loss(SeparationLossConfig(), loud, sources, known)
    assert float(loss) > float(perfect) + 10 and float(told["silence"]) > -5
    only, _ = separation_loss(SeparationLossConfig(silent_weight=0.0), loud, sources, known)
    assert float(only) == pytest.approx(-30, abs=0.01)


def test_more_outputs_than_sources_are_to_be_silent_and_fewer_are_refused() -> None:
    sources = signals(2, 2)
    estimates = torch.cat([torch.zeros(2, 1, 200), sources.flip(1)], dim=1)
    loss, _ = separation_loss(SeparationLossConfig(), estimates, sources, all_known(sources))
    assert float(loss) == pytest.approx(-30, abs=0.01)
    with pytest.raises(InputError, match="1 outputs cannot be 2 sources"):
        separation_loss(SeparationLossConfig(), estimates[:, :1], sources, all_known(sources))


@pytest.mark.parametrize("num", [2, 3, 4])
def test_mixit_is_the_best_of_all_ways_to_add_up(num: int) -> None:
    estimates, mixtures = signals(3, num, 50), signals(3, 2, 50, seed=1)
    found = mixit_loss(estimates, mixtures, all_known(mixtures), 30.0)
    best = torch.full((3,), torch.inf)
    for way in product(range(2), repeat=num):
        sums = torch.stack([sum((estimates[:, i] for i in range(num) if way[i] == j), torch.zeros(3, 50))
                            for j in range(2)], dim=1)  # fmt: skip
        best = torch.minimum(best, -signal_to_noise(sums, mixtures, "snr", 30.0).mean(1))
    torch.testing.assert_close(found, best, atol=1e-4, rtol=0)


def test_mixit_is_content_with_sources_that_add_up_to_the_mixtures() -> None:
    sources = signals(2, 4)
    mixtures = torch.stack([sources[:, 0] + sources[:, 3], sources[:, 1] + sources[:, 2]], dim=1)
    loss, _ = separation_loss(SeparationLossConfig(objective="mixit"), sources, mixtures, all_known(mixtures))
    assert float(loss) == pytest.approx(-30, abs=0.01)
    with pytest.raises(InputError, match="at most 10 outputs and 3 mixtures"):
        mixit_loss(signals(1, 11), mixtures[:1], all_known(mixtures[:1]))


@pytest.mark.parametrize("measure", ["si_sdr", "snr"])
def test_outputs_are_added_up_by_the_best_of_all_ways(measure: str) -> None:
    estimates, mixtures = signals(2, 4, 50), signals(2, 2, 50, seed=1)
    found = added_up(estimates, mixtures, all_known(mixtures), measure)  # type: ignore[arg-type]
    figures = []
    for way in product(range(2), repeat=4):
        sums = torch.stack([sum((estimates[:, i] for i in range(4) if way[i] == j), torch.zeros(2, 50))
                            for j in range(2)], dim=1)  # fmt: skip
        figures.append(signal_to_noise(sums, mixtures, measure).mean(1))  # type: ignore[arg-type]
    best = torch.stack(figures).amax(0)
    torch.testing.assert_close(found.sum(1), estimates.sum(1), atol=1e-5, rtol=0)
    told = signal_to_noise(found, mixtures, measure).mean(1)  # type: ignore[arg-type]
    torch.testing.assert_close(told, best, atol=1e-3, rtol=0)


@pytest.mark.parametrize("how", ["equal", "energy"])
def test_consistent_estimates_sum_to_the_mixture_and_consistent_ones_stay(how: str) -> None:
    estimates, mixture = signals(2, 3), signals(2, 1, seed=1)[:, 0]
    found = consistent(estimates, mixture, how)  # type: ignore[arg-type]
    torch.testing.assert_close(found.sum(1), mixture, atol=1e-5, rtol=0)
    torch.testing.assert_close(consistent(found, mixture, how), found, atol=1e-5, rtol=0)  # type: ignore[arg-type]
    silent = consistent(torch.zeros_like(estimates), mixture, how)  # type: ignore[arg-type]
    torch.testing.assert_close(silent, (mixture / 3)[:, None].expand_as(silent))


def test_collapse_counts_the_sources_that_nobody_follows() -> None:
    sources = signals(1, 3, 1000)
    noise = 0.1 * signals(1, 3, 1000, seed=1)
    known = all_known(sources)

    def told(order: list[int]) -> dict[str, torch.Tensor]:
        return separation_loss(SeparationLossConfig(), sources[:, order] + noise, sources, known)[1]

    assert float(told([2, 0, 1])["collapse"]) == 0
    assert float(told([0, 0, 1])["collapse"]) == 0.5
    assert float(told([1, 1, 1])["collapse"]) == 1
    assert float(told([1, 1, 1])["likeness"]) > 0.9
    assert float(told([2, 0, 1])["likeness"]) < 0.1
    figures = torch.tensor([[[9.0, 0.0, 50.0], [1.0, 2.0, 50.0]]])
    assert collapse(figures, torch.tensor([[True, True, False]])).tolist() == [0.0]
