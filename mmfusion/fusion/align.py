"""One time grid for several streams: the only place where a fusion changes a rate.

Step k of the grid covers [k/R, (k+1)/R) seconds and step i of a stream covers [i/r, (i+1)/r). With o[k, i] the length
of their overlap and m[i] the stream's mask, the aligned stream is the area-weighted mean of what is real:

    y[k] = sum_i o[k, i] m[i] x[i] / sum_i o[k, i] m[i]         mask[k] = (sum_i o[k, i] m[i] > 0)

So whatever happens at t seconds reaches step floor(t R), a constant stays that constant both ways, and a stream that
already lies on the grid comes back as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from mmfusion.types import Stream

# Overlaps below this part of a step are rounding of the two clocks, not shared time.
_TOLERANCE = 1e-6


def align(streams: Mapping[str, Stream], rate: float | None = None) -> dict[str, Stream]:
    """The same streams on one grid of `rate` steps a second (None: the lowest rate among them).

    Streams are (B, T_m, ...) and come back as (B, T, ...), T being what the longest of them needs; steps past a
    stream's end have mask False. Data under a False mask has no influence. Raises ValueError for no streams at all
    or for streams that hold different numbers of clips.
    """
    if not streams:
        raise ValueError("there are no streams to align")
    if len({stream.mask.shape[0] for stream in streams.values()}) > 1:
        sizes = {name: stream.mask.shape[0] for name, stream in streams.items()}
        raise ValueError(f"streams of one batch must hold the same number of clips, got {sizes}")
    grid_rate = min(stream.rate for stream in streams.values()) if rate is None else rate
    num_steps = max(_steps_needed(stream, grid_rate) for stream in streams.values())
    return {name: _on_grid(stream, grid_rate, num_steps) for name, stream in streams.items()}


def _steps_needed(stream: Stream, rate: float) -> int:
    num_steps = stream.mask.shape[1]
    if _same_clock(stream.rate, rate):
        return num_steps
    return max(1, math.ceil(num_steps * rate / stream.rate - _TOLERANCE))


def _same_clock(rate: float, other: float) -> bool:
    return math.isclose(rate, other, rel_tol=1e-9)


def _on_grid(stream: Stream, rate: float, num_steps: int) -> Stream:
    if not _same_clock(stream.rate, rate):
        return _resampled(stream, rate, num_steps)
    missing = num_steps - stream.mask.shape[1]
    if missing == 0:
        return stream if stream.rate == rate else Stream(stream.data, stream.mask, rate)
    past_end = (0, 0) * (stream.data.ndim - 2) + (0, missing)
    return Stream(pad(stream.data, past_end), pad(stream.mask, (0, missing)), rate)


def _resampled(stream: Stream, rate: float, num_steps: int) -> Stream:
    data, device = stream.zeroed(), stream.data.device
    precision = torch.float64 if data.dtype == torch.float64 else torch.float32
    overlap = _overlaps(stream.mask.shape[1], stream.rate, num_steps, rate, device).to(precision)
    with torch.autocast(device.type, enabled=False):
        total = (
            overlap @ data.flatten(2).to(precision) if data.ndim > 2 else (data.to(precision) @ overlap.T)[..., None]
        )
        area = stream.mask.to(precision) @ overlap.T
        mean = total / area.masked_fill(area == 0, 1)[..., None]
    kept = data.dtype if data.is_floating_point() else precision
    return Stream(mean.to(kept).reshape(len(data), num_steps, *data.shape[2:]), area > 0, rate)


@lru_cache(maxsize=64)
def _overlaps(steps_in: int, rate_in: float, steps_out: int, rate_out: float, device: torch.device) -> Tensor:
    """(steps_out, steps_in) float32: shared time of each pair of steps, each row scaled to a largest value of 1.

    The scale cancels in the mean; with it a step that lies inside one input step is copied exactly.
    """
    # A cached tensor born in inference mode could never be used in training afterwards.
    with torch.inference_mode(False), torch.no_grad():
        edges_in = torch.arange(steps_in + 1, dtype=torch.float64) / rate_in
        edges_out = torch.arange(steps_out + 1, dtype=torch.float64) / rate_out
        shared = torch.minimum(edges_out[1:, None], edges_in[None, 1:]) - torch.maximum(
            edges_out[:-1, None], edges_in[None, :-1]
        )
        shared = shared.masked_fill(shared < _TOLERANCE / max(rate_in, rate_out), 0)
        if steps_in:
            largest = shared.amax(dim=1, keepdim=True)
            shared = shared / largest.masked_fill(largest == 0, 1)
        return shared.float().to(device)
