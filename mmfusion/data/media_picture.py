"""One decoded frame -> an upright RGB picture of the wanted size."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

Fit = Literal["crop", "stretch", "pad"]


@dataclass(frozen=True)
class Turn:
    """How a stored picture becomes upright: exchange rows and columns first, then reverse either."""

    swap: bool = False
    reverse_rows: bool = False
    reverse_columns: bool = False

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """(H, W, 3) as stored -> (H', W', 3) upright."""
        upright = picture.transpose(1, 0, 2) if self.swap else picture
        return upright[:: -1 if self.reverse_rows else 1, :: -1 if self.reverse_columns else 1]


def turn_of(frame: av.VideoFrame) -> Turn:
    """What the frame's display matrix asks for, to the nearest quarter turn; mirrored pictures included.

    The matrix (a, b, u, c, d, v, x, y, w) in row order sends a stored point (x, y) to (a x + c y, b x + d y).
    """
    try:
        sides: Any = frame.side_data
    except ValueError:  # PyAV knows not every kind of side data (EXIF); the angle it knows still, a mirror it does not
        return _QUARTERS[round(-frame.rotation / 90) % 4]
    for side in sides:
        if side.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = struct.unpack("=5i", bytes(side)[:20])
            if abs(a) + abs(d) >= abs(b) + abs(c):
                return Turn(False, reverse_rows=d < 0, reverse_columns=a < 0)
            return Turn(True, reverse_rows=b < 0, reverse_columns=c < 0)
    return Turn()


_QUARTERS = (Turn(), Turn(True, False, True), Turn(False, True, True), Turn(True, True, False))  # clockwise


class Painter:
    """Makes pictures of one size; scales in one pass of libswscale, straight from the decoder's pixels."""

    def __init__(self, size_px: int | tuple[int, int], fit: Fit) -> None:
        self.height, self.width = (size_px, size_px) if isinstance(size_px, int) else size_px
        self._fit = fit
        self._reformatter = VideoReformatter()

    def paint(self, frame: Any, pixel_aspect: Fraction | None = None) -> np.ndarray:
        """uint8 (H, W, 3) upright RGB. `pixel_aspect`: width over height of one stored pixel."""
        turn = turn_of(frame)
        height, width = self._scaled(frame.height, frame.width * float(pixel_aspect or 1), turn)
        scaled = self._reformatter.reformat(
            frame,
            width=width if not turn.swap else height,
            height=height if not turn.swap else width,
            format="rgb24",
            interpolation=Interpolation.BILINEAR,
            threads=1,
        )
        return self._fitted(turn.apply(scaled.to_ndarray()))

    def _scaled(self, stored_height: float, stored_width: float, turn: Turn) -> tuple[int, int]:
        """Height and width of the upright picture before it is cropped or padded."""
        if self._fit == "stretch":
            return self.height, self.width
        height, width = (stored_width, stored_height) if turn.swap else (stored_height, stored_width)
        scales = (self.height / height, self.width / width)
        scale = max(scales) if self._fit == "crop" else min(scales)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def _fitted(self, picture: np.ndarray) -> np.ndarray:
        if picture.shape[:2] == (self.height, self.width):
            return np.ascontiguousarray(picture)
        out = np.zeros((self.height, self.width, 3), np.uint8)
        (to_y, from_y), (to_x, from_x) = (
            _centred(picture.shape[0], self.height),
            _centred(picture.shape[1], self.width),
        )
        out[to_y, to_x] = picture[from_y, from_x]
        return out


def _centred(have: int, want: int) -> tuple[slice, slice]:
    """Where to put, and from where to take, the middle of an axis of length `have` in one of length `want`."""
    size = min(have, want)
    to, start = (want - size) // 2, (have - size) // 2
    return slice(to, to + size), slice(start, start + size)
