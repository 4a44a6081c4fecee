"""Changes of a clip's clock in training: played faster or slower, turned round, cut, shifted; all inputs alike.

`Retiming` says where a moment of the clip as it was read has gone, so that what is known about seconds moves along.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import gcd

import numpy as np

from mmfusion.data.raw import Raw

_FINEST = 100  # speeds are multiples of one hundredth, which keeps the resampling filters small


@dataclass(frozen=True)
class Retiming:
    """What was done to a clip's clock, in this order.

    `speed` times as fast; turned round by `roll_s` within `duration_s` (of the clip as it then was); moved by
    `shift_s` (positive: later; a cut moves what it leaves to an earlier time).
    """

    speed: float = 1.0
    roll_s: float = 0.0
    duration_s: float = 0.0
    shift_s: float = 0.0

    def spans(self, start_s: float, end_s: float) -> list[tuple[float, float]]:
        """Where [start_s, end_s) lies now: one span, or two when it was cut in two by being turned round."""
        start_s, end_s = start_s / self.speed, end_s / self.speed
        if not self.roll_s:
            return [(start_s + self.shift_s, end_s + self.shift_s)]
        end_s = min(end_s, self.duration_s)
        turned = [(start_s + self.roll_s - lap, end_s + self.roll_s - lap) for lap in (0.0, self.duration_s)]
        inside = [(max(0.0, start), min(self.duration_s, end)) for start, end in turned]
        return [(start + self.shift_s, end + self.shift_s) for start, end in inside if end > start]


def change_speed(raw: Raw, speed: float) -> Raw:
    """Sound played `speed` times as fast (pitch moves along), by windowed-sinc resampling; masks follow."""
    import torch
    from torchaudio.functional import resample

    up = round(speed * _FINEST)
    common = gcd(up, _FINEST)
    sound = np.where(raw.mask, raw.data, np.float32(0))
    data = resample(torch.from_numpy(sound), up // common, _FINEST // common).numpy()
    at = np.minimum((np.arange(len(data)) * up) // _FINEST, len(raw.mask) - 1)
    return replace(raw, data=data, mask=raw.mask[at])


def roll(raw: Raw, roll_s: float, duration_s: float) -> Raw:
    """The input turned round within `duration_s`: what moves out at the end comes in at the start.

    An input that ends before has steps that are not real there, so that all inputs of a clip turn alike.
    """
    if len(raw.mask) <= 1:
        return raw
    missing = max(0, round(duration_s * raw.rate) - len(raw.mask))
    steps = round(roll_s * raw.rate)
    data = np.pad(raw.data, ((0, missing), *((0, 0),) * (raw.data.ndim - 1)))
    return replace(raw, data=np.roll(data, steps, axis=0), mask=np.roll(np.pad(raw.mask, (0, missing)), steps))


def cut(raw: Raw, start_s: float, length_s: float) -> Raw:
    """`length_s` of the input from `start_s` on. An input of a single step is left as it is."""
    if len(raw.mask) <= 1:
        return raw
    first = round(start_s * raw.rate)
    last = max(first + 1, round((start_s + length_s) * raw.rate))
    return replace(raw, data=raw.data[first:last], mask=raw.mask[first:last])


def shift(raw: Raw, shift_s: float) -> Raw:
    """The input moved by `shift_s` (positive: later), as long as before; steps that come in are masked zeros.

    An input of a single step (a still picture, a vector for the whole clip) is not moved: it has no place in time.
    """
    steps, length = round(shift_s * raw.rate), len(raw.mask)
    if length <= 1 or steps == 0:
        return raw
    data, mask = np.zeros_like(raw.data), np.zeros_like(raw.mask)
    if abs(steps) < length:
        to, since = (
            (slice(steps, None), slice(None, -steps)) if steps > 0 else (slice(None, steps), slice(-steps, None))
        )
        data[to], mask[to] = raw.data[since], raw.mask[since]
    return replace(raw, data=data, mask=mask)


def slowest_rate(inputs: Mapping[str, Raw]) -> float | None:
    """Steps a second of the slowest input that has more than one step: times that fit it fit all inputs."""
    return min((raw.rate for raw in inputs.values() if len(raw.mask) > 1), default=None)


def duration(inputs: Mapping[str, Raw]) -> float:
    """Seconds from the start to the end of the longest input."""
    return max((len(raw.mask) / raw.rate for raw in inputs.values()), default=0.0)
