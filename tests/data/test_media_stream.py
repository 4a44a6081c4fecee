"""Sound block by block is the sound at once, whatever the file; wavs written piece by piece hold what was written."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from media_making import clicks, flashes, write_media

from mmfusion.data.media import MediaError, open_wav, read_sound, stream_sound, write_sound
from mmfusion.types import InputError


def noise(num: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, num).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("seconds", [0.01, 0.9, 7.3])
def test_blocks_are_the_sound_at_once(tmp_path: Path, rate: int, seconds: float) -> None:
    path = tmp_path / "noise.wav"
    write_sound(path, noise(round(seconds * 22050)), 22050)
    whole = read_sound(path, rate)
    blocks = list(stream_sound(path, rate, block_s=0.4))
    assert whole is not None and max(map(len, blocks)) <= round(0.4 * rate)
    np.testing.assert_array_equal(np.concatenate(blocks), whole.data)


@pytest.mark.parametrize("name", ["late.mp4", "late.mkv", "film.webm", "film.ts"])
def test_blocks_of_films_are_their_sound_at_once(tmp_path: Path, name: str) -> None:
    start_s = 0.7 if name.startswith("late") else 0.0
    path = write_media(tmp_path / name, flashes(2.0, 0.0, 10, 4.0), clicks(3.0, start_s, 48000, 3.2), start_s)
    whole = read_sound(path, 16000)
    assert whole is not None
    np.testing.assert_array_equal(np.concatenate(list(stream_sound(path, 16000))), whole.data)


def test_blocks_of_odd_files_are_their_sound_at_once(shared_data: Path) -> None:
    compared = 0
    for path in sorted((shared_data / "media").rglob("*")):
        if not path.is_file() or path.suffix in (".csv", ".txt", ".md"):
            continue
        try:
            whole = read_sound(path, 16000)
        except InputError:
            whole = None
        if whole is None:
            with pytest.raises(InputError):
                list(stream_sound(path, 16000))
            continue
        np.testing.assert_array_equal(np.concatenate(list(stream_sound(path, 16000))), whole.data, err_msg=path.name)
        compared += 1
    assert compared > 20


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    peaks = []
    for seconds in (20, 200):
        path = tmp_path / f"{seconds}.wav"
        with open_wav(path, 16000) as write:
            for second in range(seconds):
                write(noise(16000, second))
        tracemalloc.start()
        num = sum(len(block) for block in stream_sound(path, 16000))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert num == seconds * 16000
    assert peaks[1] < 1.5 * peaks[0]


def test_a_wav_holds_what_was_written_beyond_full_scale_too(tmp_path: Path) -> None:
    pieces = [noise(1000), 3 * noise(17, 1), noise(4000, 2)]
    with open_wav(tmp_path / "new" / "sound.wav", 8000) as write:
        for piece in pieces:
            write(piece)
    sound = read_sound(tmp_path / "new" / "sound.wav", 8000)
    assert sound is not None
    np.testing.assert_array_equal(sound.data, np.concatenate(pieces))


def test_a_wav_that_was_cut_off_leaves_nothing(tmp_path: Path) -> None:
    def cut_off() -> None:
        with open_wav(tmp_path / "sound.wav", 8000) as write:
            write(noise(100))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_off()
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_sound_is_named(tmp_path: Path) -> None:
    path = write_media(tmp_path / "mute.mp4", flashes(1.0, 0.0, 10, 2.0), None)
    with pytest.raises(MediaError, match=r"mute\.mp4: has no sound"):
        list(stream_sound(path, 16000))
