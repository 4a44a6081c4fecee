"""The log-mel as matrix products is the log-mel."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmfusion.encoders.logmel import LogMel, LogMelConfig
from mmfusion.encoders.logmel_products import LogMelProducts
from mmfusion.types import Stream


def whole(sound: torch.Tensor, rate: float) -> Stream:
    return Stream(sound, torch.ones_like(sound, dtype=torch.bool), rate)


@settings(deadline=None, max_examples=60)
@example(rate=11025, window_s=0.025, hop_s=0.02, normalize="none", length_s=0.03, level=1e-4)  # the hop ends in a half
@given(
    rate=st.sampled_from([8000, 11025, 16000, 22050, 44100]),
    window_s=st.sampled_from([0.025, 0.046, 0.05]),
    hop_s=st.sampled_from([0.01, 0.0125, 0.02, 0.025]),
    normalize=st.sampled_from(["none", "clip"]),
    length_s=st.floats(0.03, 1.2),
    level=st.sampled_from([1e-4, 0.03, 1.0]),
)
def test_equal_to_the_fourier_transform(
    rate: int, window_s: float, hop_s: float, normalize: str, length_s: float, level: float
) -> None:
    logmel = LogMel(LogMelConfig(num_mels=32, window_s=window_s, hop_s=hop_s, normalize=normalize)).eval()
    products = LogMelProducts(logmel, rate)
    num = max(products.min_samples, round(length_s * rate))
    sound = level * torch.randn(2, num, generator=torch.Generator().manual_seed(num))
    expected, found = logmel(whole(sound, rate)), products(whole(sound, rate))
    real = expected.mask[0].nonzero().squeeze(1)
    assert found.mask.all() and found.rate == expected.rate
    assert real.tolist() == list(range(found.data.shape[1])), "the real frames come first, and are all that is left"
    torch.testing.assert_close(found.data, expected.data[:, real], atol=1e-5, rtol=0)


def test_the_largest_spread_of_levels() -> None:
    """A full-scale tone beside silence: what float32 loses of the tone is hardly seen in the bands beside it.

    Sums of 400 products lose a little more than the butterflies of a Fourier transform: 2e-5 where those lose 4e-6.
    """
    logmel = LogMel(LogMelConfig()).eval()
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(16000) / 16000)[None]
    sound = torch.cat([tone, torch.zeros_like(tone)], dim=1)
    expected, found = logmel(whole(sound, 16000)), LogMelProducts(logmel, 16000)(whole(sound, 16000))
    torch.testing.assert_close(found.data, expected.data, atol=3e-5, rtol=0)
    assert expected.data.max() > 2 and expected.data[:, -1].max() == 0


@pytest.mark.parametrize("num", [159, 160, 161, 239, 240, 241, 320])
def test_half_a_frame_is_a_frame(num: int) -> None:
    logmel = LogMel(LogMelConfig(hop_s=0.01)).eval()
    found = LogMelProducts(logmel, 16000)(whole(torch.randn(1, num), 16000))
    assert found.data.shape[1] == max(1, (num + 80) // 160)
