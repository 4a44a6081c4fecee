"""What one input of one clip is before it becomes a row of a batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, eq=False)
class Raw:
    """One input of one clip: waveform (N,) float32, frames (T, 3, H, W) uint8, or features (T, F) float32.

    `mask` (T,) bool is True where the data is real; `rate` is in steps a second. The arrays may be read-only. `flaw`
    says what was wrong with a file of which only a part could be decoded.
    """

    data: np.ndarray
    mask: np.ndarray
    rate: float
    flaw: str | None = None

    def with_data(self, data: np.ndarray) -> Raw:
        """The same clock and mask with other data."""
        return replace(self, data=data)

    def trimmed(self) -> Raw:
        """Without the steps after the last real one, of which at least one must be real."""
        length = int(np.flatnonzero(self.mask)[-1]) + 1
        return self if length == len(self.mask) else replace(self, data=self.data[:length], mask=self.mask[:length])


@dataclass(frozen=True)
class Layout:
    """What a step of an input looks like, known also when no clip of a batch has it.

    `shape` is that of one step: () for sound, (3, H, W) for frames, (F,) for features. `rate` in steps a second is
    None when only the files know it.
    """

    shape: tuple[int, ...]
    dtype: str
    rate: float | None
