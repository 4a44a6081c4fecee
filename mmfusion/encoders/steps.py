"""What every step encoder shares: it may be frozen, and it spends nothing on steps that are not real."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mmfusion.types import Stream


class StepEncoder(nn.Module):
    """Raw input stream -> stream of `width` float32 features a step, zero where the mask is False."""

    width: int
    frozen: bool = False

    def freeze(self) -> StepEncoder:
        """Fixes every weight and batch-norm statistic: the encoder stays in evaluation mode even under `train()`."""
        self.frozen = True
        self.requires_grad_(False)
        return self.train(False)

    def train(self, mode: bool = True) -> StepEncoder:
        super().train(mode and not self.frozen)
        return self


def encode_real(network: Callable[[Tensor], Tensor], make: Callable[[Tensor], Tensor], mask: Tensor) -> Tensor:
    """One feature vector for each real step: (B, T, F) float32 from mask (B, T), zeros elsewhere.

    `make(index)` gives the network's inputs for the flat positions `index` (M,) of the real steps, and `network` turns
    them into (M, F). So a step that is not real costs nothing and cannot reach the statistics of a batch norm.
    A graph that is traced for export has no such choice: there every step is computed, and those not real are blanked.
    """
    if torch.compiler.is_exporting():
        every = network(make(torch.arange(mask.numel(), device=mask.device))).float()
        return every.unflatten(0, tuple(mask.shape)).masked_fill(~mask.unsqueeze(-1), 0.0)
    index = mask.flatten().nonzero().squeeze(1)
    if len(index) == 0:
        # One blank input keeps every weight in the graph (data-parallel training waits for all of them).
        blank = torch.zeros(1, dtype=torch.long, device=mask.device)
        features = _apply(network, torch.zeros_like(make(blank))).float() * 0.0
        return features.sum(0).expand(*mask.shape, -1).clone()
    features = _apply(network, make(index)).float()
    if len(index) == mask.numel():
        return features.unflatten(0, tuple(mask.shape))
    placed = features.new_zeros(mask.numel(), features.shape[-1]).index_copy(0, index, features)
    return placed.unflatten(0, tuple(mask.shape))


def _apply(network: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """One input alone has no batch statistics: it is read with the running ones, also in training."""
    if len(inputs) > 1 or not isinstance(network, nn.Module) or not network.training:
        return network(inputs)
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    norms = [norm for norm in norms if norm.training]
    for norm in norms:
        norm.train(False)
    try:
        return network(inputs)
    finally:
        for norm in norms:
            norm.train(True)


def group_steps(stream: Stream, num: int) -> tuple[Tensor, Tensor]:
    """Consecutive groups of `num` steps: data (B, S, num, ...) zeroed where not real, and mask (B, S, num).

    The last group is filled up with steps that are not real; S = ceil(T / num).
    """
    missing = -stream.mask.shape[1] % num
    mask = nn.functional.pad(stream.mask, (0, missing))
    data = nn.functional.pad(stream.zeroed(), (0, 0) * (stream.data.ndim - 2) + (0, missing))
    return data.unflatten(1, (-1, num)), mask.unflatten(1, (-1, num))
