"""The loss over very many sources, for `bench`: from inner products of all pairs, and pair by pair."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mmfusion.heads.separation_losses import SeparationLossConfig, assign, separation_loss, signal_to_noise

NUM_SOURCES, NUM_SAMPLES = 100, 16000
_CONFIG = SeparationLossConfig()


def loss_pair() -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """The loss of one mixture of a hundred sources, one second at 16 kHz: ours, and `row_by_row`."""
    sources = torch.randn(NUM_SOURCES, NUM_SAMPLES)
    estimates = sources[torch.randperm(NUM_SOURCES)] + torch.randn(NUM_SOURCES, NUM_SAMPLES)
    known = torch.ones(1, NUM_SOURCES, dtype=torch.bool)

    def ours() -> Tensor:
        return separation_loss(_CONFIG, estimates[None], sources[None], known)[0]

    return ours, lambda: row_by_row(estimates, sources)


def row_by_row(estimates: Tensor, sources: Tensor) -> Tensor:
    """The same loss of estimates (S, N) of sources (S, N) that are all heard, from the signals of every pair."""
    rows = [signal_to_noise(estimates, source[None], _CONFIG.measure, _CONFIG.max_db) for source in sources]
    figures = torch.stack(rows)
    order = assign(-figures.T[None])[0]
    return -figures.gather(1, order[:, None]).mean()
