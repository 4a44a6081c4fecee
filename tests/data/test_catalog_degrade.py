"""The degradation of AV-MNIST: the ratio of speech to noise, and what is left of an image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.data.catalog.degrade import Projection, active, mix, power_db

RATE_HZ = 8000


def _word(start: int, end: int, level: float, seed: int = 0) -> np.ndarray:
    speech = np.zeros(RATE_HZ)
    speech[start:end] = level * np.random.default_rng(seed).standard_normal(end - start)
    return speech


def test_silence_around_a_word_is_not_active():
    speech = _word(1600, 4800, 0.1)
    assert active(speech, RATE_HZ).nonzero()[0].tolist() == list(range(1600, 4800))


def test_nothing_is_active_in_silence():
    assert not active(np.zeros(RATE_HZ), RATE_HZ).any()


@settings(max_examples=20, deadline=None)
@given(
    snr_db=st.floats(-10, 20),
    start=st.integers(0, 4000),
    length=st.integers(400, 4000),
    speech_level=st.floats(0.001, 0.1),
    noise_level=st.floats(0.001, 0.5),
)
def test_the_ratio_is_that_of_the_active_part(snr_db, start, length, speech_level, noise_level):
    speech = _word(start, start + length, speech_level)
    noise = noise_level * np.random.default_rng(1).standard_normal(RATE_HZ)
    mixture = mix(speech, noise, snr_db, RATE_HZ).astype(np.float64)
    # A sum that would leave full scale is scaled down as a whole; the scale is found by regression on both parts.
    scale = np.linalg.lstsq(np.stack([speech, noise], 1), mixture, rcond=None)[0]
    assert 0 < scale[0] <= 1 + 1e-6 and np.abs(mixture).max() <= 1
    measured = power_db((scale[0] * speech)[active(speech, RATE_HZ)]) - power_db(scale[1] * noise)
    assert measured == pytest.approx(snr_db, abs=0.01)


def test_silence_has_no_power():
    assert power_db(np.zeros(10)) == float("-inf")


@pytest.mark.parametrize("num_components", [1, 5])
def test_images_keep_only_the_components(num_components):
    images = np.random.default_rng(0).integers(0, 256, (200, 6, 6), dtype=np.uint8)
    projection = Projection.fit(images, num_components)
    flat = (images.reshape(200, -1) - projection.mean) @ projection.components.T @ projection.components
    assert np.linalg.matrix_rank(flat, tol=1e-6) == num_components
    shown = projection(images).reshape(200, -1) / 255 * (projection.high - projection.low) + projection.low
    assert np.abs(shown - flat - projection.mean).max() <= 0.51 * (projection.high - projection.low) / 255


def test_all_components_give_the_image_back():
    images = np.random.default_rng(0).integers(0, 256, (200, 4, 4), dtype=np.uint8)
    images[0], images[1] = 0, 255
    assert np.abs(Projection.fit(images, 16)(images).astype(int) - images).max() <= 1
