"""The training loss beside what is reported: one SI-SDR and one permutation, over a hundred sources, with silence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from mmfusion.heads.separation_losses import SeparationLossConfig, inner_products, match, separation_loss
from mmfusion.metrics.separation import separation_metrics, si_sdr
from mmfusion.report.bench_separation import row_by_row


def signals(num: int, length: int, seed: int) -> torch.Tensor:
    return torch.randn(1, num, length, generator=torch.Generator().manual_seed(seed))


def all_known(sources: torch.Tensor) -> torch.Tensor:
    return torch.ones(sources.shape[:2], dtype=torch.bool)


@settings(max_examples=40, deadline=None)
@given(num=st.integers(2, 6), noise_db=st.floats(-40, 10), level_db=st.floats(-40, 0), seed=st.integers(0, 10_000))
def test_the_loss_is_the_metric(num: int, noise_db: float, level_db: float, seed: int) -> None:
    config = SeparationLossConfig(max_db=None)
    levels = 10 ** (level_db / 20 * torch.rand(1, num, 1, generator=torch.Generator().manual_seed(seed)))
    sources = levels * signals(num, 400, seed)
    order = torch.randperm(num, generator=torch.Generator().manual_seed(seed))
    estimates = sources[:, order] + 10 ** (noise_db / 20) * signals(num, 400, seed + 1)
    loss, _ = separation_loss(config, estimates, sources, all_known(sources))
    found = separation_metrics(sources[0].numpy(), estimates[0].numpy(), taps=None)
    assert -float(loss) == pytest.approx(found["si_sdr"], abs=5e-3)
    power = sources.sum(1).square().sum(-1)
    chosen = match(config, inner_products(estimates, sources), all_known(sources), power)[0]
    own = si_sdr(sources[0].numpy(), estimates[0, chosen].numpy()).mean()
    assert own == pytest.approx(found["si_sdr"], abs=5e-3)  # the same pairs, or pairs that are as good


def test_a_hundred_sources_cost_what_they_cost_one_by_one_in_float64() -> None:
    config = SeparationLossConfig()
    sources = signals(100, 500, 0)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(1))
    estimates = sources[:, order] + signals(100, 500, 2)
    loss, _ = separation_loss(config, estimates, sources, all_known(sources))
    truth, said = sources[0].double().numpy(), estimates[0].double().numpy()
    figures = np.empty((100, 100))
    for place, source in enumerate(truth):
        targets = (said @ source / (source @ source))[:, None] * source
        power = (targets**2).sum(axis=1)
        figures[place] = 10 * np.log10(power / (((said - targets) ** 2).sum(axis=1) + 10 ** (-30 / 10) * power))
    best = figures[linear_sum_assignment(figures, maximize=True)].mean()
    assert -float(loss) == pytest.approx(best, abs=1e-3)
    assert float(row_by_row(estimates[0], sources[0])) == pytest.approx(float(loss), abs=1e-3)


@pytest.mark.parametrize("weight", [0.0, 1.0, 3.0])
def test_silent_sources_are_scored_apart_by_their_level_beside_the_mixture(weight: float) -> None:
    """Wisdom et al. 2021, equations 2 and 3, written out; the loudest estimates belong to what is heard."""
    sources = signals(4, 300, 0)
    sources[:, 2:] = 0
    known = torch.tensor([[True, True, False, False]])
    estimates = torch.cat([0.01 * signals(1, 300, 1), sources[:, :2].flip(1), 0.1 * signals(1, 300, 2)], dim=1)
    config = SeparationLossConfig(measure="snr", silent_weight=weight)
    loss, figures = separation_loss(config, estimates + 0.05 * signals(4, 300, 3), sources, known)
    tau, mixture = 10 ** (-30 / 10), sources[0].sum(0).double()
    said = (estimates + 0.05 * signals(4, 300, 3))[0].double()
    power = mixture.square().sum()
    silent = [10 * torch.log10((said[k].square().sum() + tau * power) / power) for k in (0, 3)]
    heard = []
    for source, k in ((sources[0, 0].double(), 2), (sources[0, 1].double(), 1)):
        energy = source.square().sum()
        heard.append(10 * torch.log10(energy / ((source - said[k]).square().sum() + tau * energy)))
    assert float(figures["silence"]) == pytest.approx(float(torch.stack(silent).mean()), abs=1e-3)
    assert float(figures["heard"]) == pytest.approx(float(torch.stack(heard).mean()), abs=1e-3)
    expected = (weight * torch.stack(silent).sum() - torch.stack(heard).sum()) / (2 + 2 * weight)
    assert float(loss) == pytest.approx(float(expected), abs=1e-3)
