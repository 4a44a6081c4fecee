from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.encoders.logmel import (
    LogMel,
    LogMelConfig,
    SpecAugmentConfig,
    frames_per_step,
    random_filters,
    spec_augment,
)
from mmfusion.types import InputError, Stream


def sound(data: torch.Tensor, rate: float = 16000.0, lengths: list[int] | None = None) -> Stream:
    ends = torch.tensor(lengths or [data.shape[1]] * len(data))
    return Stream(data, torch.arange(data.shape[1]) < ends[:, None], rate)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 0.1


@given(
    at=st.integers(0, 159), inside=st.sampled_from([0.0, 0.25, 0.5]), rate=st.sampled_from([8000, 16000, 22050, 44100])
)
@settings(max_examples=30, deadline=None)
def test_click_is_loudest_in_the_frame_that_covers_it(at: int, inside: float, rate: int) -> None:
    data = torch.zeros(1, 2 * rate)
    data[0, min(2 * rate - 1, round((at + inside) * 0.0125 * rate))] = 1.0
    frames = LogMel(LogMelConfig())(sound(data, rate))
    assert frames.rate == pytest.approx(80.0) and frames.data.shape[1] == 160
    assert int(frames.data[0].sum(1).argmax()) == at


def test_click_at_a_boundary_is_not_heard_before_it() -> None:
    data = torch.zeros(1, 64000)
    data[0, 48000:48080] = 1.0
    energy = LogMel(LogMelConfig())(sound(data)).data[0].sum(1)
    assert energy[239] < 0.25 * energy[240] and not energy[:239].any()


def test_tone_lands_in_its_band() -> None:
    time = torch.arange(16000) / 16000
    tones = torch.stack([torch.sin(2 * torch.pi * hz * time) for hz in (200.0, 1000.0, 5000.0)])
    band = LogMel(LogMelConfig())(sound(tones)).data[:, 40].argmax(1).tolist()
    assert band == sorted(band) and len(set(band)) == 3


@pytest.mark.parametrize("normalize", ["none", "clip"])
def test_silence_padding_and_missing_sound(normalize: str) -> None:
    model = LogMel(LogMelConfig(normalize=normalize))  # type: ignore[arg-type]
    data = torch.cat([noise(1, 8000), torch.zeros(1, 8000), noise(1, 8000)])
    frames = model(sound(data, lengths=[8000, 8000, 0]))
    assert frames.data.isfinite().all()
    assert not frames.data[1:].any() and not frames.mask[2].any()
    louder = torch.cat([data, torch.full((3, 4000), 7.0)], 1)
    padded = model(sound(louder, lengths=[8000, 8000, 0]))
    assert torch.equal(padded.data[:, :40], frames.data) and not padded.mask[:, 40:].any()


def test_clip_normalisation_ignores_the_level() -> None:
    model = LogMel(LogMelConfig(normalize="clip", floor=1e-12))
    data = noise(1, 16000)
    both = model(sound(torch.cat([data, data * 0.5]))).data
    assert both[0].mean().abs() < 1e-4
    torch.testing.assert_close(both[0], both[1], atol=2e-3, rtol=0)


def test_float32_under_autocast() -> None:
    model, data = LogMel(LogMelConfig()), noise(2, 8000)
    plain = model(sound(data))
    with torch.autocast("cpu", torch.bfloat16):
        cast = model(sound(data))
    assert cast.data.dtype == torch.float32 and torch.equal(cast.data, plain.data)


@given(share=st.floats(0.02, 0.4), raised=st.booleans())
@settings(max_examples=10, deadline=None)
def test_a_raised_tone_is_a_higher_tone(share: float, raised: bool) -> None:
    """Every clip's tone lands where a tone of one of the drawn frequencies does, and all pitches are drawn."""
    model = LogMel(LogMelConfig(augment=SpecAugmentConfig(pitch=share)))
    time = torch.arange(4000) / 16000
    tone = torch.sin(2 * torch.pi * 1500.0 * time)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        heard = model.train()(sound(tone.repeat(200, 1))).data[:, 10]
    highest = 1500.0 * (1 + share if raised else 1 - share)
    expected = model.eval()(sound(torch.sin(2 * torch.pi * highest * time)[None])).data[0, 10]
    nearest = heard[(heard - expected).square().sum(1).argmin()]
    assert abs(int(nearest.argmax()) - int(expected.argmax())) <= 1
    plain = model(sound(tone[None])).data[0, 10]
    torch.testing.assert_close(heard[(heard - plain).square().sum(1).argmin()], plain)
    assert len({tuple(row.tolist()) for row in heard}) == 21


def test_pitch_is_for_training_and_leaves_silence_alone() -> None:
    model, data = LogMel(LogMelConfig(augment=SpecAugmentConfig(pitch=0.2))), noise(1, 8000)
    torch.testing.assert_close(model.eval()(sound(data)).data, LogMel(LogMelConfig())(sound(data)).data)
    assert not model.train()(sound(torch.zeros(2, 8000))).data.any()


@given(most=st.floats(0.5, 20))
@settings(max_examples=10, deadline=None)
def test_random_filters_are_straight_lines_between_four_gains(most: float) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        gains = 10 * random_filters(500, 13, most, torch.device("cpu")).log10().squeeze(1)
    assert gains.shape == (500, 13)
    corners = gains[:, ::4]
    assert corners.abs().max() <= most * (1 + 1e-5) and corners.max() > 0.95 * most and corners.min() < -0.95 * most
    assert corners.mean().abs() < 0.1 * most and not torch.equal(corners[:, 0], corners[:, 1])
    for part in range(3):
        steps = torch.arange(5) / 4
        line = corners[:, part, None] * (1 - steps) + corners[:, part + 1, None] * steps
        torch.testing.assert_close(gains[:, 4 * part : 4 * part + 5], line, atol=1e-4 * most, rtol=0)


def test_a_filter_changes_the_power_of_whole_bands_in_training_only() -> None:
    config = LogMelConfig(augment=SpecAugmentConfig(filter_db=6.0))
    model, data = LogMel(config), noise(50, 8000)
    plain = LogMel(LogMelConfig())(sound(data)).data
    torch.testing.assert_close(model.eval()(sound(data)).data, plain)
    heard = model.train()(sound(data)).data
    power, filtered = torch.expm1(plain.double() * 4), torch.expm1(heard.double() * 4)
    gains = 10 * (filtered / power).log10()
    torch.testing.assert_close(gains, gains[:, :1].expand_as(gains), atol=0.01, rtol=0)
    assert 5 < gains.abs().max() <= 6.01 and gains.std(0).min() > 1
    assert not model(sound(torch.zeros(2, 8000))).data.any()


def test_spec_augment_in_training_only() -> None:
    config = SpecAugmentConfig(num_band_masks=2, band_width=10, num_time_masks=2, time_width_s=0.3)
    model, data = LogMel(LogMelConfig(augment=config)), noise(8, 16000)
    calm = model.eval()(sound(data)).data
    torch.manual_seed(0)
    hit = model.train()(sound(data)).data
    assert torch.equal(model.eval()(sound(data)).data, calm)
    changed = hit != calm
    assert changed.any() and not hit[changed].any()
    assert 0.05 < changed.float().mean() < 0.6
    torch.manual_seed(0)
    assert torch.equal(model.train()(sound(data)).data, hit)


def test_spec_augment_keeps_to_its_widths_and_to_real_time() -> None:
    config = SpecAugmentConfig(num_band_masks=1, band_width=5, num_time_masks=1, time_width_s=0.5)
    stream = Stream(torch.ones(200, 40, 20), torch.arange(40).expand(200, 40) < 12, 10.0)
    blank = spec_augment(stream, config).data == 0
    assert blank.all(1).sum(1).max() == 5 and blank.all(1).sum(1).min() == 0
    assert blank.all(2).sum(1).max() == 5 and not blank.all(2)[:, 12:].any()
    short = Stream(torch.ones(200, 40, 20), torch.arange(40).expand(200, 40) < 4, 10.0)
    assert (spec_augment(short, config).data == 0).all(2).sum(1).max() == 2, "a short clip is never hidden as a whole"


def test_wrong_settings_are_input_errors() -> None:
    with pytest.raises(InputError, match=r"hop_s"):
        LogMel(LogMelConfig(hop_s=0.1))
    with pytest.raises(InputError, match=r"rate: 3 steps .* 80, 40, 20, 16, 10, 8, 5, 4, 2, 1 do"):
        frames_per_step(0.0125, 3.0, "rate")
    with pytest.raises(InputError, match=r"max_hz"):
        LogMel(LogMelConfig(min_hz=5000.0))(sound(noise(1, 800), 8000.0))
