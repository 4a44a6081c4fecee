"""The weights of a late mixture: where they come from, and the search that chooses them on validation.

Both rules have a mean negative log-likelihood that is convex in the weights (linear: -log of a linear function;
log-linear: a log-partition function minus a linear one), so that no local
optimum misleads a search along lines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from mmfusion.config import configclass

_MAX_ROUNDS = 40


@configclass
class FixedWeights:
    """Weights that are given."""

    kind: Literal["fixed"] = "fixed"
    values: dict[str, Annotated[float, Field(ge=0)]] | None = None
    """A weight for each modality by its name; None: all the same."""


@configclass
class TunedWeights:
    """Weights chosen after training, by the loss on validation."""

    kind: Literal["tuned"] = "tuned"
    step: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Distance of neighbouring candidates on the simplex."""


@configclass
class LearnedWeights:
    """Weights trained by gradient with everything else: softmax of free parameters, exp where not normalised."""

    kind: Literal["learned"] = "learned"


WeightsConfig = Annotated[FixedWeights | TunedWeights | LearnedWeights, Field(discriminator="kind")]


def equal_weights(num_members: int, normalize: bool) -> Tensor:
    """(M,) float32: 1/M each, or 1 each where weights are not normalised (the product of posteriors)."""
    return torch.full((num_members,), 1 / num_members if normalize else 1.0)


def search_weights(losses: Callable[[Tensor], Tensor], num_members: int, step: float, normalize: bool) -> Tensor:
    """(M,) float32: the weights with the lowest loss that the search met, starting from equal weights.

    `losses` takes candidates (G, M) and gives the loss of each (G,); it is asked once a round, so that one pass over
    the validation clips can serve a whole round. A round tries, for every member, its share from 0 to 1 in steps of
    `step` with the others in their present proportion; without `normalize` also the sum of the weights, from a
    quarter to four times the present one. Two normalised members need a single round. Ties keep the earlier weights;
    a loss that is not finite never wins. Deterministic.
    """
    best = equal_weights(num_members, normalize).double()
    if num_members == 1:
        return best.float()
    best_loss = _finite(losses(best[None].float()))[0]
    for _ in range(1 if normalize and num_members == 2 else _MAX_ROUNDS):
        candidates = _candidates(best, step, normalize)
        found = _finite(losses(candidates.float()))
        winner = int(found.argmin())
        if not found[winner] < best_loss:
            break
        best, best_loss = candidates[winner], found[winner]
    return best.float()


def _candidates(weights: Tensor, step: float, normalize: bool) -> Tensor:
    num_members = len(weights)
    lines = range(1 if num_members == 2 else num_members)  # two members: the share of one fixes that of the other
    rows = [_line(weights, member, step) for member in lines]
    if not normalize:
        scale = 2.0 ** (torch.arange(-8, 9, dtype=weights.dtype) / 4)
        rows.append(scale[:, None] * weights)
    return torch.cat(rows)


def _line(weights: Tensor, member: int, step: float) -> Tensor:
    """The candidates in which `member` has every share, the sum and the others' proportions staying as they are."""
    others = weights.clone()
    others[member] = 0
    if others.sum() == 0:
        others = torch.ones_like(weights)
        others[member] = 0
    corner = torch.zeros_like(weights)
    corner[member] = 1
    share = torch.linspace(0, 1, round(1 / step) + 1, dtype=weights.dtype)[:, None]
    return weights.sum() * (share * corner + (1 - share) * others / others.sum())


def _finite(losses: Tensor) -> Tensor:
    return torch.nan_to_num(losses.detach().double().cpu(), nan=torch.inf)
