"""Windows of a long mixture: cut, their sources matched and faded into one another, without seams and without end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.separate import KnownClasses, Windows, cut
from mmfusion.separate_join import Heard, Joined
from mmfusion.separate_record import NAME, Record, source_names
from mmfusion.spectrum import StftConfig, to_sound, to_spectra
from mmfusion.types import InputError, Stream

STFT = StftConfig(sample_rate_hz=2000)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@settings(deadline=None)
@given(num=st.integers(1, 500), size=st.integers(2, 60), share=st.floats(0.01, 0.5), piece=st.integers(1, 80))
def test_windows_cover_a_sound_and_joining_the_sound_itself_gives_it_back(
    num: int, size: int, share: float, piece: int
) -> None:
    sound = np.arange(num, dtype=np.float32)
    overlap = max(1, int(size * share))
    windows = list(cut((sound[at : at + piece] for at in range(0, num, piece)), size, size - overlap))
    assert all(len(window) == size for window in windows[:-1])
    assert len(windows) == 1 or overlap < len(windows[-1]) <= size
    joined = Joined(overlap)
    blocks = [joined.add(np.stack([window, -window])) for window in windows]
    assert joined.held is not None
    whole = np.concatenate([*blocks, joined.held], axis=1)
    np.testing.assert_allclose(whole, np.stack([sound, -sound]), atol=1e-3)


def test_nothing_is_a_window_of_nothing() -> None:
    assert list(cut([], 10, 5)) == [] and list(cut([np.zeros(0, np.float32)], 10, 5)) == []


def test_sources_keep_their_places_when_windows_name_them_in_another_order() -> None:
    sources = noise(3, 1000) * np.array([[1.0], [0.3], [0.1]], np.float32)
    joined = Joined(40)
    generator = np.random.default_rng(1)
    blocks = []
    for number in range(6):
        window = sources[:, number * 160 : number * 160 + 200]
        blocks.append(joined.add(window if number == 0 else window[generator.permutation(3)]))
    whole = np.concatenate([*blocks, joined.held], axis=1)  # type: ignore[list-item]
    np.testing.assert_allclose(whole, sources, atol=1e-5)


def test_sources_in_a_known_order_keep_it_whatever_they_sound_like() -> None:
    """Every window gives the outputs' signals anew, so that by likeness they would be dealt out otherwise."""
    first, joined, dealt = noise(2, 200), Joined(40, ordered=True), Joined(40)
    before = joined.add(first)
    swapped = np.concatenate([first[::-1, 160:], noise(2, 160, seed=1)], axis=1)
    dealt.add(first)
    dealt.add(swapped)
    np.testing.assert_array_equal(dealt.held, swapped[::-1, 160:])
    after = joined.add(swapped)
    np.testing.assert_array_equal(before, first[:, :160])
    np.testing.assert_allclose(after[:, 30:40], swapped[:, 30:40], atol=1e-6)
    np.testing.assert_array_equal(joined.held, swapped[:, 160:])


def test_files_of_classes_are_called_like_them() -> None:
    assert KnownClasses(("Rain, heavy", "dog")).names() == ["Rain_heavy.wav", "dog.wav"]
    assert KnownClasses(("dog",), rest=True).names() == ["dog.wav", "rest.wav"]
    with pytest.raises(InputError, match=r"'dog' alone would be given the whole file; add --rest"):
        KnownClasses(("dog",))
    with pytest.raises(InputError, match=r"'a b' and 'a/b' would both go into a_b.wav"):
        KnownClasses(("a b", "a/b"))
    with pytest.raises(InputError, match=r"'rest' and 'rest' would both go into rest.wav"):
        KnownClasses(("rest", "dog"), rest=True)
    with pytest.raises(InputError, match=r"'dog' and 'dog' would both"):
        KnownClasses(("dog", "dog"))


def test_silence_in_the_overlap_leaves_the_order_alone() -> None:
    assert Heard().order(np.zeros((4, 10), np.float32), noise(4, 10)).tolist() == [0, 1, 2, 3]


def band(num: int, low: float, high: float, seed: int) -> np.ndarray:
    """Noise between two frequencies, given as shares of the sample rate, of power 1."""
    spectrum = np.fft.rfft(noise(num, seed=seed))
    at = np.fft.rfftfreq(num)
    sound = np.fft.irfft(spectrum * ((at >= low) & (at < high)), num)
    return (sound / sound.std()).astype(np.float32)


def joined_in_any_order(sources: np.ndarray, size: int, overlap: int, seed: int, leak: float = 0.05) -> np.ndarray:
    """What comes of sources (S, N) when each window has them in an order of its own, and leaking into one another."""
    rng = np.random.default_rng(seed)
    joined, blocks = Joined(overlap), []
    for places in cut([np.arange(sources.shape[1], dtype=np.float32)], size, size - overlap):
        window = sources[:, places.astype(int)]
        window = (1 - leak) * window + leak * (window.sum(axis=0) - window)
        # What is heard in a pause is dealt out as it comes.
        window = window + 0.003 * rng.standard_normal(window.shape).astype(np.float32)
        blocks.append(joined.add(window[rng.permutation(len(window))]))
    assert joined.held is not None
    return np.concatenate([*blocks, joined.held], axis=1)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), gap_s=st.sampled_from([2, 5, 9]), num=st.integers(2, 4))
def test_sources_that_take_turns_keep_their_outputs_over_pauses(seed: int, gap_s: int, num: int) -> None:
    """Windows of 4 s that overlap by 1 s, sounds of 3 s one after the other, pauses of 2 s and more between them."""
    rate, turns = 4000, 3 * num
    num_samples = turns * (3 + gap_s) * rate
    bands = [(0.02, 0.1), (0.15, 0.22), (0.25, 0.45), (0.11, 0.14)]
    sources = np.zeros((num, num_samples), np.float32)
    for turn in range(turns):
        first, own = turn * (3 + gap_s) * rate, turn % num
        sources[own, first : first + 3 * rate] = 0.2 * band(3 * rate, *bands[own], seed=seed + turn)
    found = joined_in_any_order(sources, 4 * rate, rate, seed)
    alike = np.abs(np.corrcoef(np.concatenate([sources, found]))[:num, num:])
    assert sorted(alike.argmax(axis=1)) == list(range(num)) and (alike.max(axis=1) > 0.95).all(), alike.round(2)


def test_what_is_silent_in_the_overlap_is_told_by_how_it_sounded() -> None:
    """Of three sources one sounds throughout, and the other two pause wherever windows meet."""
    rate = 4000
    sources = 0.2 * np.stack([band(40 * rate, *edges, seed=3) for edges in ((0.02, 0.1), (0.15, 0.25), (0.3, 0.4))])
    time_s = np.arange(40 * rate) / rate
    sources[1:, time_s % 3 < 1.2] = 0
    found = joined_in_any_order(sources, 4 * rate, rate, seed=5)
    alike = np.abs(np.corrcoef(np.concatenate([sources, found]))[:3, 3:])
    assert sorted(alike.argmax(axis=1)) == [0, 1, 2] and (alike.max(axis=1) > 0.95).all(), alike.round(2)


def separated_by_frequency(sound: np.ndarray) -> np.ndarray:
    """A model that does the same at all times: masks that do not change."""
    raw = Stream(torch.from_numpy(sound)[None], torch.ones(1, len(sound), dtype=torch.bool), 2000.0)
    spectra = to_spectra(raw, STFT).data
    low = torch.linspace(1, 0, STFT.num_bins)
    return to_sound(torch.stack([low * spectra[0], (1 - low) * spectra[0]]), STFT, len(sound)).numpy()


@pytest.mark.parametrize("length", [9000, 4321])
def test_what_is_the_same_at_all_times_has_no_seam(length: int) -> None:
    sound = noise(length)
    joined = Joined(400)
    blocks = [joined.add(separated_by_frequency(window)) for window in cut([sound], 1600, 1200)]
    whole = np.concatenate([*blocks, joined.held], axis=1)  # type: ignore[list-item]
    np.testing.assert_allclose(whole, separated_by_frequency(sound), atol=1e-4)


def test_sources_that_sum_to_each_window_sum_to_the_whole() -> None:
    sound, generator = noise(5000), np.random.default_rng(2)
    joined, blocks = Joined(300), []
    for window in cut([sound], 1000, 700):
        shares = generator.dirichlet(np.ones(4), len(window)).T.astype(np.float32)
        blocks.append(joined.add(shares * window))
    whole = np.concatenate([*blocks, joined.held], axis=1)  # type: ignore[list-item]
    np.testing.assert_allclose(whole.sum(axis=0), sound, atol=1e-5)


def test_names_sort_as_the_sources_do() -> None:
    assert source_names(2) == ["source1.wav", "source2.wav"]
    for num in (9, 10, 100):
        assert sorted(source_names(num)) == source_names(num) and len(set(source_names(num))) == num


@pytest.mark.parametrize("num", [0, 1, 100])
def test_windows_of_a_very_short_file(num: int) -> None:
    size, overlap = Windows(4.0, 1.0).samples(16000)
    assert (size, overlap) == (64000, 16000)
    assert [len(window) for window in cut([np.ones(num, np.float32)], size, size - overlap)] == [num] * (num > 0)
    assert Windows(1e-4, 5e-5).samples(16000) == (2, 1)
    with pytest.raises(InputError, match="the overlap is shorter than a sample at 16000 Hz"):
        Windows(1e-5, 5e-6).samples(16000)


def test_a_record_removes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    folder, mixture = tmp_path / "out" / "x", tmp_path / "x.wav"

    def written(names: list[str]) -> None:
        record = Record(folder, mixture)
        record.claim(names)
        for name in names:
            (folder / name).write_bytes(b"sound")
        record.finish(names, {"duration_s": 1.0})

    written(source_names(10))
    (folder / "source99.wav").write_bytes(b"another's")
    written(source_names(2))
    assert sorted(path.name for path in folder.iterdir()) == [NAME, "source1.wav", "source2.wav", "source99.wav"]
    assert json.loads((folder / NAME).read_text())["sources"] == ["source1.wav", "source2.wav"]
    with pytest.raises(InputError, match=r"x: holds the sources of .*x\.wav; choose another folder"):
        Record(folder, tmp_path / "other" / "x.wav")
    with pytest.raises(InputError, match=r"source99\.wav: was not written by this tool"):
        Record(folder, mixture).claim(source_names(99))
    for text in ("{}", "[]", '{"path": "x", "sources": ["../x.wav"]}', "\xff"):
        (folder / NAME).write_text(text)
        with pytest.raises(InputError, match=r"separated\.json: not the record of separated sources"):
            Record(folder, mixture)
    assert len(list(folder.iterdir())) == 4


def test_a_record_that_was_given_up_names_what_is_there(tmp_path: Path) -> None:
    record = Record(tmp_path / "x", tmp_path / "x.wav")
    record.abandon()
    assert not (tmp_path / "x").exists()
    record.claim(["source1.wav", "source2.wav"])
    record.abandon()
    assert not (tmp_path / "x").exists()
    record.claim(["source1.wav", "source2.wav"])
    (tmp_path / "x" / "source2.wav").write_bytes(b"sound")
    record.abandon()
    assert json.loads((tmp_path / "x" / NAME).read_text())["sources"] == ["source2.wav"]
