"""What encoders for separation are told beside the spectra: levels over the clip's mean, positions, context."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmfusion.config import validate
from mmfusion.encoders.spectral import SpectraConfig, features
from mmfusion.encoders.unet import Unet, UnetConfig
from mmfusion.types import Stream

RATE, LENGTH = 16000, 32000
SMALL = {"kind": "unet", "channels": [4, 6, 8], "maps": 2}


def sound(data: Tensor, padded: int = 0) -> Stream:
    mask = torch.arange(len(data) + padded) < len(data)
    return Stream(torch.nn.functional.pad(data, (0, padded))[None], mask[None], float(RATE))


def tone(hertz: float) -> Tensor:
    return 0.1 * torch.sin(2 * torch.pi * hertz * torch.arange(LENGTH) / RATE)


def unet(**more: Any) -> Unet:
    torch.manual_seed(0)
    return Unet(validate(UnetConfig, {**SMALL, **more}, "test")).eval()


def test_relative_levels_are_zero_where_a_sound_is_steady_and_rise_where_something_happens() -> None:
    config = validate(SpectraConfig, {"relative": True}, "test")
    bins = config.stft.num_bins
    struck = tone(1000.0)
    struck[16000:17000] += tone(3000.0)[16000:17000]
    told = features(sound(struck, padded=4000), config).data[0, :, bins:]
    low, high = (round(hertz / RATE * config.stft.size) for hertz in (1000, 3000))
    inner, during = slice(4, 244), slice(127, 131)
    assert told[inner, low].abs().max() < 0.1
    assert (told[during, high] > 1).all() and (told[20:100, high] < 0).all()
    assert told[:250].mean(0).abs().max() < 1e-5 and not told[250:].any()


def test_positions_tell_low_from_high() -> None:
    """Without them the response to a tone moves with the tone; the borders are far from both."""

    def peaks(encoder: Unet) -> list[Tensor]:
        found = []
        for hertz in (2000.0, 5000.0):
            at = round(hertz / RATE * 512)
            said = encoder(sound(tone(hertz))).data[0, 100].unflatten(0, (2, -1))
            found.append(said[:, at - 8 : at + 8])
        return found

    with torch.no_grad():
        plain, told = peaks(unet()), peaks(unet(positions=True))
    assert (plain[0] - plain[1]).norm() < 0.02 * plain[0].norm()
    assert (told[0] - told[1]).norm() > 0.1 * told[0].norm()


@pytest.mark.parametrize("context", [False, True])
def test_context_reaches_over_the_whole_clip(context: bool) -> None:
    encoder = unet(context=context)
    plain, struck = tone(1000.0), tone(1000.0)
    struck[30000:31000] += tone(3000.0)[30000:31000]
    with torch.no_grad():
        change = (encoder(sound(struck)).data - encoder(sound(plain)).data)[0, :100]
    assert encoder.reach < 250 - 100 and bool(change.any()) == context
