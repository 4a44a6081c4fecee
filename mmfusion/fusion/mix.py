"""Mixing decisions: the equations of late fusion, as pure functions that stay in the log domain.

With member logits z_m and weights w_m (sigma the sigmoid, p_m the member's distribution):

    linear, Bernoulli        p = sum_m w_m sigma(z_m)          z = log sum_m w_m sigma(z_m) - log sum_m w_m sigma(-z_m)
    linear, categorical      p = sum_m w_m p_m                 log p = logsumexp_m(log w_m + log_softmax(z_m))
    log-linear, Bernoulli    p / (1-p) = prod_m (p_m / (1-p_m))^w_m        z = sum_m w_m z_m
    log-linear, categorical  p ~ prod_m p_m^w_m                log p = log_softmax(sum_m w_m log_softmax(z_m))

These are the linear opinion pool, whose weights must sum to one, and the logarithmic opinion pool (Genest & Zidek
1986), the product of experts when all w = 1 (Hinton 2002). What comes back are logits again, so that losses and metrics
need not know that anything was mixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid

from mmfusion.fusion.align import align
from mmfusion.types import Family, Stream

Rule = Literal["linear", "loglinear"]


def mix(logits: Sequence[Tensor], weights: Tensor, family: Family, rule: Rule) -> Tensor:
    """Logits of the mixture, float32 (float64 where the members are), same shape as each member's.

    `logits`: M tensors (B, ..., C); the last axis is the distribution of the categorical family. `weights`:
    (B, ..., M), M >= 0, where the leading axes are the first axes of the logits; as `clip_weights` gives them. A
    member of weight 0 has no influence, whatever its logits are. Gradients reach logits and weights. Categorical
    results are normalised log-probabilities (with the linear rule: when the weights sum to one).
    """
    members = torch.stack([member if member.dtype == torch.float64 else member.float() for member in logits])
    weight = weights.to(members.dtype).movedim(-1, 0)
    weight = weight.reshape(weight.shape + (1,) * (members.ndim - weight.ndim))
    members = members.masked_fill(weight == 0, 0)
    if rule == "loglinear":
        return _log_linear(members, weight, family)
    log_weight = _log(weight)
    if family == "categorical":
        return torch.logsumexp(log_weight + log_softmax(members, -1), dim=0)
    true = torch.logsumexp(log_weight + logsigmoid(members), dim=0)
    false = torch.logsumexp(log_weight + logsigmoid(-members), dim=0)
    return true - false


def clip_weights(weights: Tensor, present: Tensor, normalize: bool) -> Tensor:
    """(..., M) float weights for every clip: those of its absent members are 0.

    `weights` (M,) >= 0, `present` (..., M) bool. With `normalize` the weights of what is present sum to one; without,
    they stay as given. Where the present members weigh nothing they share equally, and where no member is present all
    of them do; such weights always sum to one, so the mixture stays finite.
    """
    kept = weights * present
    total = kept.sum(-1, keepdim=True)
    sharing = torch.where(present.any(-1, keepdim=True), present, torch.ones_like(present)).to(kept.dtype)
    equal = sharing / sharing.sum(-1, keepdim=True)
    usable = total > 0
    scaled = kept / torch.where(usable, total, torch.ones_like(total)) if normalize else kept
    return torch.where(usable, scaled, equal)


def mix_steps(
    streams: Mapping[str, Stream], weights: Tensor, family: Family, rule: Rule, normalize: bool = True
) -> Stream:
    """Step logits (B, T_m, C) of M members, in the order of `weights` (M,), as one stream on the lowest of their rates.

    A step is real where it is for any member; those of which it is not have no say in it.
    """
    aligned = align(streams)
    present = torch.stack([stream.mask for stream in aligned.values()], dim=-1)
    shares = clip_weights(weights, present, normalize)
    logits = mix([stream.zeroed() for stream in aligned.values()], shares, family, rule)
    union = present.any(dim=-1)
    return Stream(logits.masked_fill(~union[..., None], 0), union, next(iter(aligned.values())).rate)


def _log_linear(members: Tensor, weight: Tensor, family: Family) -> Tensor:
    if family == "bernoulli":
        return (weight * members).sum(dim=0)
    return log_softmax((weight * log_softmax(members, -1)).sum(dim=0), -1)


def _log(weight: Tensor) -> Tensor:
    """log w, -inf at 0, with a gradient that is finite everywhere."""
    return weight.clamp_min(torch.finfo(weight.dtype).tiny).log().masked_fill(weight == 0, -torch.inf)
