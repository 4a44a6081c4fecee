"""What lies in which second: stretches of time as whole segments, and steps as shares of seconds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_SHARED_S = 1e-6  # less is rounding of two clocks, not shared time


def touched(start_s: float, end_s: float, segment_s: float = 1.0, slack: float = 0.0) -> slice:
    """The segments k, each [k, k + 1) * `segment_s`, that any of [start_s, end_s) lies in; none before 0.

    By `slack`, a part of a segment, the stretch may reach into another one without touching it.
    """
    first, end = math.floor(start_s / segment_s + slack), math.ceil(end_s / segment_s - slack)
    return slice(max(0, first), max(0, end))


def second_shares(begin_s: Tensor, rate: float, first: int, num_seconds: int) -> Tensor:
    """(S, T) float64: how much of second `first` + s is covered by each step, which begins at `begin_s` (T,) float64.

    A step lasts 1 / `rate` seconds; one that reaches into two seconds has a share in both.
    """
    import torch

    second = torch.arange(first, first + num_seconds, dtype=torch.float64, device=begin_s.device)[:, None]
    shared = torch.minimum(begin_s + 1 / rate, second + 1) - torch.maximum(begin_s, second)
    return torch.where(shared > _SHARED_S, shared, 0.0)
