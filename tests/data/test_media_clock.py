"""Sound and pictures are on one clock: what was muxed at t is read at t, in every container."""

from __future__ import annotations

import numpy as np
import pytest
from media_making import clicks, flashes, picture, write_media

from mmfusion.data.media import probe, read_frames, read_frames_at, read_sound, write_clip

EVENT_S = 3.0
SUFFIXES = [".mp4", ".mov", ".mkv", ".webm", ".ts"]
OWN_ZERO = [".mp4", ".mov", ".mkv", ".webm"]


def click_time_s(path, sample_rate_hz: int = 16000) -> float:
    sound = read_sound(path, sample_rate_hz)
    assert sound is not None and sound.mask.dtype == bool and sound.data.dtype == np.float32
    return int(np.flatnonzero(np.abs(sound.data) > 0.3)[0]) / sample_rate_hz


def flash_step(path, rate: float) -> int:
    frames = read_frames(path, rate, 16)
    assert frames is not None and frames.data.shape == (len(frames.mask), 16, 16, 3)
    return int(np.flatnonzero(frames.data.mean(axis=(1, 2, 3)) > 128)[0])


@pytest.mark.parametrize("suffix", OWN_ZERO)
@pytest.mark.parametrize(("sound_s", "pictures_s"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.52)])
def test_click_and_flash_land_on_the_same_step(tmp_path, suffix, sound_s, pictures_s):
    path = write_media(
        tmp_path / f"event{suffix}",
        flashes(EVENT_S, pictures_s, 25, 4.0),
        clicks(EVENT_S, sound_s, 48000, 4.0),
        sound_s,
    )
    assert click_time_s(path) == pytest.approx(EVENT_S, abs=0.002)
    for rate in (1.0, 4.0, 10.0, 25.0):
        assert flash_step(path, rate) == round(EVENT_S * rate) == int((click_time_s(path) + 0.002) * rate)


@pytest.mark.parametrize("suffix", OWN_ZERO)
def test_the_clock_is_the_containers_own_when_everything_starts_late(tmp_path, suffix):
    pictures, sound = flashes(EVENT_S, 0.52, 25, 4.0), clicks(EVENT_S, 0.4, 48000, 4.0)
    path = write_media(tmp_path / f"late{suffix}", pictures, sound, 0.4)
    assert click_time_s(path) == pytest.approx(EVENT_S, abs=0.002)
    assert flash_step(path, 25.0) == 75
    assert not read_frames(path, 25.0, 16).mask[:13].any()
    assert not read_sound(path, 16000).mask[: int(0.37 * 16000)].any()


@pytest.mark.parametrize(("sound_s", "pictures_s"), [(0.0, 0.0), (1.2, 1.0), (1.0, 1.2)])
def test_a_transport_stream_starts_at_its_earliest_stream(tmp_path, sound_s, pictures_s):
    """Such a stream has no zero of its own, and does not say which samples are the encoder's priming (21 ms)."""
    pictures, sound = flashes(EVENT_S, pictures_s, 25, 4.0), clicks(EVENT_S, sound_s, 48000, 4.0)
    path = write_media(tmp_path / "late.ts", pictures, sound, sound_s)
    assert click_time_s(path) == pytest.approx(EVENT_S - min(sound_s, pictures_s), abs=0.025)
    flash = read_frames_at(path, np.arange(0.0, 4.0, 0.001), 8).data.mean(axis=(1, 2, 3)) > 128
    assert np.flatnonzero(flash)[0] / 1000 == pytest.approx(click_time_s(path), abs=0.003)


@pytest.mark.parametrize("suffix", OWN_ZERO)
def test_a_fragment_cut_from_something_long_starts_at_zero(tmp_path, suffix):
    pictures, sound = flashes(1003.0, 1000.0, 25, 4.0), clicks(1003.0, 1000.0, 48000, 4.0)
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"} if suffix in (".mp4", ".mov") else {}
    path = write_media(tmp_path / f"piece{suffix}", pictures, sound, 1000.0, options=options)
    assert click_time_s(path) == pytest.approx(EVENT_S, abs=0.03)
    assert abs(flash_step(path, 25.0) - 75) <= 1


@pytest.mark.parametrize("sample_rate_hz", [16000, 22050, 44100])
@pytest.mark.parametrize("event_s", [0.0, 0.3, 1.97])
def test_write_clip_is_read_back_on_the_same_clock(tmp_path, sample_rate_hz, event_s):
    frames = np.zeros((24, 32, 48, 3), np.uint8)
    frames[6:8] = 255
    path = tmp_path / "clip.mp4"
    write_clip(path, frames, 12, clicks(event_s, 0.0, sample_rate_hz, 2.0), sample_rate_hz)
    assert click_time_s(path, sample_rate_hz) == pytest.approx(event_s, abs=0.002)
    assert flash_step(path, 4.0) == 2
    back = read_frames(path, 12.0, (32, 48))
    assert back.data.shape == (24, 32, 48, 3) and back.mask.all()
    assert np.abs(back.data.astype(int) - frames).mean() < 3
    info = probe(path)
    assert info.duration_s == pytest.approx(2.0, abs=0.01)
    assert (info.video_start_s, info.audio_start_s) == (0.0, 0.0)
    assert len(read_sound(path, sample_rate_hz).data) == pytest.approx(2 * sample_rate_hz, abs=2)


def test_sound_does_not_drift(tmp_path):
    """Clicks each second, written at 44.1 kHz into a container that rounds to milliseconds, read at 16 kHz."""
    sound = sum(clicks(t, 0.0, 44100, 20.0) for t in range(1, 20))
    path = write_media(tmp_path / "long.mkv", None, sound, sample_rate_hz=44100)
    back = read_sound(path, 16000)
    loud = np.abs(back.data) > 0.3
    for second in range(1, 20):
        first = np.flatnonzero(loud[round((second - 0.5) * 16000) :])[0] / 16000 + second - 0.5
        assert first == pytest.approx(second, abs=0.002)


def test_variable_frame_rate(tmp_path):
    times = [0.0, 0.1, 0.15, 0.9, 1.0, 2.5]
    path = write_media(tmp_path / "vfr.mp4", [(t, picture(40 * k)) for k, t in enumerate(times)], None)
    wanted = np.array([0.0, 0.05, 0.1, 0.149, 0.16, 0.89, 0.9, 0.99, 1.0, 2.4, 2.5])
    frames = read_frames_at(path, wanted, 8)
    assert frames.mask.all()
    found = np.rint(frames.data.mean(axis=(1, 2, 3)) / 40).astype(int)
    assert found.tolist() == (np.searchsorted(times, wanted + 0.001, side="right") - 1).tolist()
    shuffled = np.random.default_rng(0).permutation(len(wanted))
    assert np.array_equal(read_frames_at(path, wanted[shuffled], 8).data, frames.data[shuffled])


def test_before_the_first_and_after_the_last_frame_nothing_is_real(tmp_path):
    path = write_media(tmp_path / "middle.mp4", flashes(0.5, 0.5, 10, 1.0), clicks(1.0, 0.0, 48000, 3.0))
    frames = read_frames(path, 10.0, 8, end_s=3.0)
    assert frames.mask.tolist() == [False] * 5 + [True] * 10 + [False] * 15
    assert not frames.data[~frames.mask].any()
    assert read_frames_at(path, [-1.0, 0.2, 0.5, 1.4, 9.0], 8).mask.tolist() == [False, False, True, True, False]
    sound = read_sound(path, 8000, 2.0, 5.0)
    assert len(sound.data) == 24000 and sound.mask[:7900].all() and not sound.mask[9000:].any()


def test_the_step_in_which_the_first_frame_appears_shows_it(tmp_path):
    path = write_media(tmp_path / "soon.mkv", flashes(0.03, 0.03, 10, 1.0), clicks(0.5, 0.0, 48000, 1.0))
    frames = read_frames(path, 4.0, 8)
    assert frames.mask.all() and frames.data[0].mean() > 128


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_part_is_the_part_of_the_whole(tmp_path, suffix):
    """Reading from the middle, where the file is searched, gives what reading everything gives there."""
    rng = np.random.default_rng(1)
    pictures = [(k / 10, picture(int(rng.integers(256)))) for k in range(300)]
    sound = (0.3 * rng.standard_normal(30 * 16000)).astype(np.float32)
    path = write_media(
        tmp_path / f"whole{suffix}", pictures, sound, sample_rate_hz=16000 if suffix != ".webm" else 48000
    )
    frames = read_frames(path, 5.0, 8)
    for start_s, end_s in ((0.0, 1.0), (1.6, 4.0), (17.2, 19.0), (28.0, 29.4)):
        part = read_frames(path, 5.0, 8, start_s, end_s)
        first = round(start_s * 5)
        assert np.array_equal(part.data, frames.data[first : first + len(part.data)])
        assert part.mask.all() and len(part.mask) == round((end_s - start_s) * 5)
    rate_hz = 16000
    whole = read_sound(path, rate_hz).data
    for start_s, end_s in ((0.5, 1.0), (9.5, 10.0)) + (((12.0, 13.5),) if suffix != ".webm" else ((8.5, 9.0),)):
        part = read_sound(path, rate_hz, start_s, end_s).data
        piece = whole[round(start_s * rate_hz) : round(end_s * rate_hz)]
        assert len(part) == round((end_s - start_s) * rate_hz)
        assert np.corrcoef(part, piece)[0, 1] > 0.99
