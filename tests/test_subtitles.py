"""Subtitles: the files that players read, to the letter."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.report.subtitles import Cue, as_srt, as_vtt, write_captions, write_subtitles

CUES = [Cue(0.0, 4.0, "a bell rings"), Cue(4.0, 7.25, "rain & <thunder> --> far"), Cue(3661.5, 3665.0, "a bird sings")]
TIME = re.compile(r"(\d\d+):(\d\d):(\d\d)[,.](\d\d\d)")


def test_srt_is_what_players_read():
    assert as_srt(CUES) == (
        "1\n00:00:00,000 --> 00:00:04,000\na bell rings\n\n"
        "2\n00:00:04,000 --> 00:00:07,250\nrain & <thunder> --> far\n\n"
        "3\n01:01:01,500 --> 01:01:05,000\na bird sings\n"
    )


def test_vtt_has_its_header_and_escapes():
    assert as_vtt(CUES[:2]) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:04.000\na bell rings\n\n"
        "00:00:04.000 --> 00:00:07.250\nrain &amp; &lt;thunder&gt; --&gt; far\n"
    )


def test_nothing_said_is_no_cue():
    cues = [Cue(0, 1, ""), Cue(1, 1.0001, "too short"), Cue(2, 3, "  "), Cue(3, 4, "a bell\n\nrings")]
    assert as_srt(cues) == "1\n00:00:03,000 --> 00:00:04,000\na bell rings\n"
    assert as_srt([]) == "" and as_vtt([]) == "WEBVTT\n"


@settings(deadline=None)
@given(st.floats(0, 400_000, allow_nan=False))
def test_times_are_milliseconds_and_carry(seconds):
    hours, minutes, rest, milliseconds = map(int, TIME.findall(as_srt([Cue(seconds, seconds + 1, "x")]))[0])
    assert minutes < 60 and rest < 60
    assert abs(hours * 3600 + minutes * 60 + rest + milliseconds / 1000 - seconds) <= 0.00051


def test_long_captions_are_broken_and_keep_their_words():
    text = "a red ball bounces and thuds while a siren wails off screen and a helicopter hovers silently"
    block = as_srt([Cue(0, 4, text)]).splitlines()[2:]
    assert len(block) > 1 and max(map(len, block)) <= 42 and " ".join(block) == text


def test_files_are_written_whole_into_new_folders(tmp_path: Path):
    write_subtitles(tmp_path / "new" / "out.VTT", CUES)
    assert (tmp_path / "new" / "out.VTT").read_text() == as_vtt(CUES)
    windows = [{"start_s": 0.0, "end_s": 4.0, "caption": "a bell rings"}, {"start_s": 4.0, "end_s": 8.0}]
    write_captions({"windows": windows}, str(tmp_path / "out.txt"), None)
    assert (tmp_path / "out.txt").read_text() == as_srt([Cue(0, 4, "a bell rings")])
    write_captions({"error": "broken"}, str(tmp_path / "none.srt"), None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "out.txt"]
