"""The decord backend for frames, where that package is installed. PyAV still says what time it is."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from av.video.frame import VideoFrame

from mmfusion.data.media_display import Shown
from mmfusion.data.media_open import Media, MediaError, short_reason
from mmfusion.types import InputError


def decord_frames(media: Media, lead_s: float, start_s: float) -> Iterator[Shown]:
    """The frames from about `start_s` on, each with its span on the file's clock.

    Raises InputError when decord is not installed, MediaError when it cannot read the file.
    """
    try:
        import decord
    except ImportError as error:
        raise InputError(
            f"{media.path}: backend decord is chosen, but the package decord is not installed (choose pyav)"
        ) from error
    assert media.video is not None
    try:
        reader = decord.VideoReader(str(media.path), num_threads=1)
        # Sorted: for avi these are the times of decoding, in shuffled order.
        begins_s, ends_s = np.sort(reader.get_frame_timestamp(np.arange(len(reader))).astype(np.float64), axis=0).T
    except (RuntimeError, ValueError, decord.DECORDError) as error:
        raise MediaError(f"{media.path}: decord cannot read it: {short_reason(error)}") from error
    # decord counts from the first frame, and does not always know when the last one ends.
    offset_s = media.seconds(media.video.start_time, media.video) or 0.0
    usual_s = float(np.median(np.diff(begins_s))) if len(begins_s) > 1 else 1 / 25
    untils_s = np.append(begins_s[1:], max(ends_s[-1], begins_s[-1] + usual_s)) + offset_s
    begins_s = begins_s + offset_s
    for index in range(int(np.searchsorted(untils_s, start_s, side="right")), len(reader)):
        lead = lead_s if index == 0 else 0.0
        yield Shown(partial(_frame, media, reader, index), float(begins_s[index] - lead), float(untils_s[index]))


def _frame(media: Media, reader: Any, index: int) -> VideoFrame:
    from decord import DECORDError

    try:
        picture = reader[index].asnumpy()
    except (RuntimeError, ValueError, DECORDError) as error:
        raise MediaError(f"{media.path}: decord cannot read frame {index}: {short_reason(error)}") from error
    return VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
