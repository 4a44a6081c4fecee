"""66 odd real files: each is read, or gives one clear reason, and what is found agrees with the list beside them."""

from __future__ import annotations

import csv
import time

import numpy as np
import pytest

from mmfusion.data.media import MediaError, probe, read_frames, read_sound

NO_STREAM = {"mp4parse/chunk_out_of_range.mp4", "wpt/invalid-codec.mp4", "wpt/invalid-codec.webm"}
NOTHING_DECODES = {"mp4parse/invalid_userdata.mp4", "mp4parse/zero_empty_stsc.mp4"}


@pytest.fixture(scope="module")
def rows(shared_data):
    with (shared_data / "media" / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_probe_finds_agrees_with_the_list(shared_data, rows):
    for row in rows:
        path = shared_data / "media" / row["path"]
        if row["path"] in NO_STREAM:
            with pytest.raises(MediaError, match=path.name):
                probe(path)
            continue
        info = probe(path)
        if not row["container"]:  # what stopped the list's author was a title that is not UTF-8
            assert row["status"].startswith("UnicodeDecodeError") and info.has_video and info.has_audio
            continue
        assert info.container == row["container"]
        assert info.duration_s == pytest.approx(float(row["duration_s"]), abs=0.001), path
        assert (info.video_codec or "", info.audio_codec or "") == (row["vcodec"], row["acodec"]), path
        assert (info.has_video, info.has_audio) == (bool(row["vcodec"]), bool(row["acodec"])), path
        expected = [int(row[key]) if row[key] else None for key in ("width", "height", "sr", "channels")]
        assert [info.width_px, info.height_px, info.sample_rate_hz, info.num_channels] == expected, path
        if row["fps"]:
            assert info.frame_rate == pytest.approx(float(row["fps"]), abs=0.001), path
        rotation = int(row["rotation"] or 0)
        assert (info.rotation_deg or 0) == (rotation if abs(rotation) <= 360 else 0), path


def test_every_file_is_read_or_gives_one_reason(shared_data, rows, capfd):
    """The first seconds of each; sound and pictures are there where the list says that a plain decode finds them."""
    end_s = 3.0
    for row in rows:
        path = shared_data / "media" / row["path"]
        started = time.monotonic()
        for read, has, num in (
            (lambda p: read_frames(p, 4.0, 32, 0.0, end_s), row["vcodec"], 12),
            (lambda p: read_sound(p, 16000, 0.0, end_s), row["acodec"], 48000),
        ):
            if row["path"] in NO_STREAM | NOTHING_DECODES:
                with pytest.raises(MediaError) as caught:
                    read(path)
                assert str(path) in str(caught.value) and "\n" not in str(caught.value)
                continue
            found = read(path)
            if row["container"]:
                assert (found is None) == (not has), path
            if found is not None:
                assert len(found.data) == len(found.mask) == num and np.isfinite(found.data).all()
                assert found.mask.any(), path
        assert time.monotonic() - started < 60, path
    assert capfd.readouterr().err == ""


def test_as_much_sound_as_a_plain_decode_finds(shared_data, rows):
    for row in rows:
        if not row["audio_samples"] or int(row["audio_samples"]) == 0 or float(row["duration_s"]) > 12:
            continue
        sound = read_sound(shared_data / "media" / row["path"], 8000)
        expected_s = int(row["audio_samples"]) / int(row["sr"])
        # An edit list may end the sound within its last packet.
        assert -0.1 < sound.mask.sum() / 8000 - expected_s < 0.001, row["path"]
        first, last = np.flatnonzero(sound.mask)[[0, -1]]
        assert sound.mask[first : last + 1].all(), row["path"]


def test_pictures_lie_where_the_frames_are(shared_data, rows):
    """The mask is True from the first frame to the end of the last one."""
    for row in rows:
        decoded = row["frames_decoded"]
        if not decoded or not 0 < int(decoded) < 200 or row["fps"] in ("", "1000.0"):
            continue
        frames = read_frames(shared_data / "media" / row["path"], 10.0, 8)
        expected_s = int(decoded) / float(row["fps"])
        assert frames.mask.sum() / 10 == pytest.approx(expected_s, abs=0.21), row["path"]
        real = np.flatnonzero(frames.mask)
        assert frames.mask[real[0] :].all(), row["path"]


def test_a_part_is_the_part_of_the_whole(shared_data):
    """Files of many kinds, read from a place that has to be searched for."""
    for name in ("mmaction2/test.avi", "grid_lipnet/bbaf2n.mpg", "mdn/flower.webm", "wpt/test.mp4", "wpt/test.ogv"):
        path = shared_data / "media" / name
        start_s = 2.5
        part = read_frames(path, 10.0, 16, start_s, start_s + 0.4)
        whole = read_frames(path, 10.0, 16, 0.0, start_s + 0.4)
        assert np.array_equal(part.data, whole.data[25:]), name
    path = shared_data / "media" / "bmt/women_long_jump.mp4"
    part, whole = read_sound(path, 44100, 20.0, 21.0), read_sound(path, 44100, 0.0, 21.0)
    assert np.corrcoef(part.data, whole.data[882000:])[0, 1] > 0.999


def test_a_part_behind_a_key_frame_is_what_the_whole_shows(shared_data):
    """Frames of this file lean on others before its key frames, and count as damaged where a decoder starts there."""
    path = shared_data / "media" / "imageio" / "cockatoo.mp4"
    whole = read_frames(path, 4.0, 48, 0.0, 12.0)
    for start_s in (4.0, 8.0):
        part = read_frames(path, 4.0, 48, start_s, start_s + 4)
        assert whole is not None and part is not None and part.num_broken == 0
        first = int(4 * start_s)
        np.testing.assert_array_equal(part.data[1:], whole.data[first + 1 : first + 16])
