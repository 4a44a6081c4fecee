"""Captions with times as subtitles: SubRip (.srt) and WebVTT (.vtt).

Times are seconds on the file's clock, rounded to milliseconds. A cue without words or without length is left out.
Lines are broken at spaces, about `LINE_LENGTH` characters long. SubRip has neither a standard nor an escape; WebVTT is
https://www.w3.org/TR/webvtt1/, where & and < of a text are escaped, and > too, since "-->" may not stand in a text.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LINE_LENGTH = 42  # what broadcasters take


@dataclass(frozen=True)
class Cue:
    """A text that is shown from `start_s` to `end_s` seconds."""

    start_s: float
    end_s: float
    text: str


def as_srt(cues: Iterable[Cue]) -> str:
    """The cues as a SubRip file, numbered from 1."""
    blocks = [
        f"{number}\n{_clock(cue.start_s, ',')} --> {_clock(cue.end_s, ',')}\n{_lines(cue.text)}\n"
        for number, cue in enumerate(_shown(cues), start=1)
    ]
    return "\n".join(blocks)


def as_vtt(cues: Iterable[Cue]) -> str:
    """The cues as a WebVTT file."""
    blocks = [f"{_clock(cue.start_s, '.')} --> {_clock(cue.end_s, '.')}\n{_lines(_escaped(cue.text))}\n"
              for cue in _shown(cues)]  # fmt: skip
    return "\n".join(["WEBVTT\n", *blocks])


def write_subtitles(path: str | Path, cues: Iterable[Cue], kind: str | None = None) -> None:
    """Writes the cues as `kind` ("srt" or "vtt", by default what the name ends in), whole or not at all."""
    path = Path(path)
    kind = kind or path.suffix.lower().removeprefix(".")
    text = {"srt": as_srt, "vtt": as_vtt}[kind](cues)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial{os.getpid()}")
    try:
        # Players take both line ends; \n on every system makes the same file everywhere.
        partial.write_text(text, encoding="utf-8", newline="\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_captions(found: Mapping[str, Any], srt: str | None, vtt: str | None) -> None:
    """The captions of a prediction in windows (see `predict_files`) as subtitle files, where a name is given."""
    cues = [Cue(part["start_s"], part["end_s"], part.get("caption", "")) for part in found.get("windows", ())]
    for path, kind in ((srt, "srt"), (vtt, "vtt")):
        if path is not None and "error" not in found:
            write_subtitles(path, cues, kind)


def _shown(cues: Iterable[Cue]) -> list[Cue]:
    return [cue for cue in cues if cue.text.strip() and round(cue.end_s * 1000) > round(cue.start_s * 1000)]


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(max(seconds, 0.0) * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"


def _lines(text: str) -> str:
    # A blank line would end the cue.
    return "\n".join(textwrap.wrap(" ".join(text.split()), LINE_LENGTH, break_long_words=False, break_on_hyphens=False))


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
