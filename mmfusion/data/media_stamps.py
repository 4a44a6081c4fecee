"""Time stamps as files have them, made usable: damaged ones are recognised, second recordings go on after the first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmfusion.data.media_open import LONGEST_S, Media, Tally

JUMP_S = 1.0  # more than this, back or forth, is no jitter
_PAUSE_S = 10.0  # where a format may be several recordings in a row, a longer pause is the seam between two


def without_strays(stamped: Iterator[tuple[Any, float | None]], tally: Tally) -> Iterator[tuple[Any, float | None]]:
    """(frame, time) pairs; a time far from both of its neighbours, which are close together, becomes None."""
    before_s: float | None = None
    held: tuple[Any, float | None] | None = None
    for item in stamped:
        if held is not None:
            if _is_stray(before_s, held[1], item[1]):
                tally.add("a time stamp is damaged")
                held = held[0], None
            yield held
            before_s = before_s if held[1] is None else held[1]
        held = item
    if held is not None:
        yield held


def _is_stray(before_s: float | None, time_s: float | None, after_s: float | None) -> bool:
    if before_s is None or time_s is None or after_s is None:
        return False
    return before_s < after_s < before_s + JUMP_S < before_s + abs(time_s - before_s)


class Timeline:
    """Times that never jump: backwards, or far ahead where that cannot be a pause, time goes on as if nothing was."""

    def __init__(self, media: Media) -> None:
        self._shift_s = 0.0
        self._longest_pause_s = LONGEST_S if media.counts_from_zero else _PAUSE_S

    def place(self, stamp_s: float | None, due_s: float) -> float:
        """When a frame is really shown or heard that is stamped `stamp_s` and would be next at `due_s`."""
        if stamp_s is None:
            return due_s
        time_s = stamp_s + self._shift_s
        if -JUMP_S <= time_s - due_s <= self._longest_pause_s:
            return time_s
        self._shift_s += due_s - time_s
        return due_s
