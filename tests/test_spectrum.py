"""Sound to spectra and back: exactly the same sound, known values, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmfusion.config import validate
from mmfusion.spectrum import StftConfig, to_sound, to_spectra
from mmfusion.types import InputError, Stream


def stream(num: int, rows: int = 2, rate: float = 16000.0, seed: int = 0) -> Stream:
    sound = torch.randn(rows, num, generator=torch.Generator().manual_seed(seed))
    return Stream(sound, torch.ones(rows, num, dtype=torch.bool), rate)


@given(num=st.integers(1, 3000), overlap=st.sampled_from([2, 3, 4, 8]), hop=st.sampled_from([16, 50, 128]))
def test_spectra_of_a_sound_give_it_back(num: int, overlap: int, hop: int) -> None:
    config = StftConfig(window_s=overlap * hop / 16000, hop_s=hop / 16000)
    raw = stream(num)
    spectra = to_spectra(raw, config)
    assert spectra.data.shape == (2, -(-num // hop), config.num_bins) and spectra.mask.all()
    torch.testing.assert_close(to_sound(spectra.data, config, num), raw.data, atol=2e-5, rtol=0)


def test_the_way_back_is_linear() -> None:
    config, raw = StftConfig(), stream(5000)
    spectra = to_spectra(raw, config).data
    mask = torch.rand(spectra.shape, generator=torch.Generator().manual_seed(1))
    parts = to_sound(torch.stack([mask * spectra, (1 - mask) * spectra]), config, 5000)
    torch.testing.assert_close(parts.sum(0), raw.data, atol=2e-5, rtol=0)


def test_a_frame_is_the_spectrum_around_the_middle_of_its_hop() -> None:
    config, raw = StftConfig(), stream(4000, rows=1)
    window = np.hanning(513)[:512]
    start = 10 * 128 + 64 - 256
    expected = np.fft.rfft(raw.data[0, start : start + 512].numpy() * window)
    np.testing.assert_allclose(to_spectra(raw, config).data[0, 10].numpy(), expected, atol=1e-4)


def test_what_is_not_real_is_silent_and_a_frame_is_real_when_any_of_its_hop_is() -> None:
    config, raw = StftConfig(), stream(1280, rows=1)
    mask = torch.arange(1280)[None] < 300
    spectra = to_spectra(Stream(raw.data, mask, raw.rate), config)
    assert spectra.mask[0].tolist() == [True] * 3 + [False] * 7
    assert not spectra.data[0, 5:].abs().any()
    silenced = to_spectra(Stream(raw.data * mask, mask | True, raw.rate), config)
    assert torch.equal(spectra.data, silenced.data)


def test_frames_that_are_not_real_have_no_part_in_the_sound() -> None:
    config, raw = StftConfig(), stream(1280, rows=1)
    spectra = to_spectra(Stream(raw.data, torch.arange(1280)[None] < 640, raw.rate), config)
    filled = spectra.data + ~spectra.mask[..., None] * 100.0
    found = to_sound(filled, config, 1280, spectra.mask)
    torch.testing.assert_close(found[:, :640], raw.data[:, :640], atol=2e-5, rtol=0)
    short = to_sound(spectra.data[:, :5] * 0.5, config, 640)
    torch.testing.assert_close(to_sound(spectra.data * 0.5, config, 1280, spectra.mask)[:, :640], short)


def test_gradients_are_right_under_autocast_too() -> None:
    config, raw = StftConfig(window_s=0.002, hop_s=0.001), stream(40, rows=1)
    sound = raw.data.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        spectra = to_spectra(Stream(sound, raw.mask, raw.rate), config)
        again = to_sound(spectra.data * 0.5, config, 40)
    assert spectra.data.dtype == torch.complex64 and again.dtype == torch.float32
    again.sum().backward()
    torch.testing.assert_close(sound.grad, torch.full_like(raw.data, 0.5), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window_s": 0.008}, "2, 3, ... times hop_s"),
        ({"window_s": 0.02}, "2, 3, ... times hop_s, and is 2.5 times"),
        ({"sample_rate_hz": 44100}, "whole number of samples, and is 352.8 at 44100 Hz"),
        ({"hop": 0.1}, "hop: unknown key"),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        validate(StftConfig, settings, "test")


def test_another_sample_rate_is_refused() -> None:
    with pytest.raises(InputError, match=r"sample_rate_hz: is 16000, and the sound comes at 8000 Hz"):
        to_spectra(stream(100, rate=8000.0), StftConfig())
