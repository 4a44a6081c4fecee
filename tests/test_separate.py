"""Windows of a long mixture: cut, their sources matched and faded into one another, without seams and without end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.separate import Joined, cut, nearest
from mmfusion.spectrum import StftConfig, to_sound, to_spectra
from mmfusion.types import Stream

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


def test_silence_in_the_overlap_leaves_the_order_alone() -> None:
    assert nearest(np.zeros((4, 10), np.float32), noise(4, 10)).tolist() == [0, 1, 2, 3]


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
