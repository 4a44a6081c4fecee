"""The only door to PyAV and decord: seconds in, arrays out, exact time stamps.

`probe` says what a file holds, `reach_s` how far it really goes; `read_frames`, `read_frames_at` and `read_sound` read
it, `stream_sound` block by block; `write_clip`, `write_sound`, `open_wav` and `write_picture` write the files that the
project makes itself.

All times are seconds on one clock for sound and pictures, with edit lists and start offsets honoured; where its zero
lies is said in `media_open`. A file without sound, or without pictures, is normal: the reader of what is not there
returns None. What cannot be read is a `MediaError`, one sentence with the path and the reason.
"""

from __future__ import annotations

from mmfusion.data.media_frames import Backend, Fit, Frames, read_frames, read_frames_at
from mmfusion.data.media_open import LONGEST_S, MediaError, Tally
from mmfusion.data.media_probe import MediaInfo, probe, reach_s
from mmfusion.data.media_sound import Sound, read_sound, stream_sound
from mmfusion.data.media_write import open_wav, write_clip, write_picture, write_sound

__all__ = [
    "LONGEST_S",
    "Backend",
    "Fit",
    "Frames",
    "MediaError",
    "MediaInfo",
    "Sound",
    "Tally",
    "open_wav",
    "probe",
    "reach_s",
    "read_frames",
    "read_frames_at",
    "read_sound",
    "stream_sound",
    "write_clip",
    "write_picture",
    "write_sound",
]
