from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.data.augment import (
    AugmentConfig,
    add_noise,
    augment,
    crop_frames,
    drop_modalities,
    generator,
)
from mmfusion.data.raw import Raw
from mmfusion.data.retiming import Retiming, shift

ALL = AugmentConfig(crop=0.3, flip=0.5, shift_s=0.6, gain_db=(-6.0, 6.0), noise_snr_db=(10.0, 30.0))


def clip(length_s: float = 2.0, seed: int = 0) -> dict[str, Raw]:
    rng = np.random.default_rng(seed)
    samples, frames, steps = int(8000 * length_s), int(4 * length_s), int(2 * length_s)
    return {
        "audio": Raw(rng.uniform(-1, 1, samples).astype(np.float32), np.ones(samples, bool), 8000.0),
        "video": Raw(rng.integers(0, 256, (frames, 3, 12, 12), dtype=np.uint8), np.ones(frames, bool), 4.0),
        "flow": Raw(rng.normal(size=(steps, 3)).astype(np.float32), np.ones(steps, bool), 2.0),
    }


def read_only(inputs: dict[str, Raw]) -> dict[str, Raw]:
    for raw in inputs.values():
        raw.data.flags.writeable = raw.mask.flags.writeable = False
    return inputs


def test_the_same_draw_gives_the_same_clip_and_others_differ() -> None:
    draws = {}
    for seed, epoch, name in ((0, 0, "a"), (0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b")):
        changed, moved = augment(read_only(clip()), ALL, generator(seed, epoch, name, "augment"))
        content = tuple(raw.data.tobytes() for raw in changed.values()), moved
        assert draws.setdefault((seed, epoch, name), content) == content
    assert len(set(draws.values())) == 4


def test_generators_depend_on_nothing_else() -> None:
    assert generator(3, 2, "clip", "augment").integers(0, 1 << 30) == 100945116
    assert generator(1, 11, "a", "x").integers(1 << 60) != generator(11, 1, "a", "x").integers(1 << 60)


def test_off_changes_nothing() -> None:
    inputs = clip()
    changed, moved = augment(inputs, AugmentConfig(), generator(0, 0, "a", "augment"))
    assert moved == Retiming()
    assert all(np.array_equal(raw.data, inputs[name].data) for name, raw in changed.items())


@given(seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_a_shift_keeps_all_inputs_in_step(seed: int) -> None:
    marks = clip()
    for raw in marks.values():  # each step holds the time at which it begins
        times = np.arange(1, len(raw.mask) + 1) / raw.rate
        raw.data[:] = (times * 50).reshape((-1,) + (1,) * (raw.data.ndim - 1)).astype(raw.data.dtype)
    moved, clock = augment(marks, AugmentConfig(shift_s=1.0), generator(seed, 0, "a", "augment"))
    shift_s = clock.shift_s
    assert abs(shift_s) <= 1.0
    assert shift_s * 2 == round(shift_s * 2)
    for name, raw in moved.items():
        steps = round(shift_s * raw.rate)
        assert raw.data.shape == marks[name].data.shape
        expected = np.zeros_like(raw.data)
        if steps >= 0:
            expected[steps:] = marks[name].data[: len(expected) - steps]
        else:
            expected[:steps] = marks[name].data[-steps:]
        np.testing.assert_array_equal(raw.data, expected)
        assert raw.mask.sum() == len(raw.mask) - abs(steps)
        assert not raw.data[~raw.mask].any()


def test_a_still_picture_is_not_shifted() -> None:
    still = Raw(np.full((1, 3, 4, 4), 7, np.uint8), np.ones(1, bool), 0.5)
    sound = clip()["audio"]
    moved, clock = augment({"video": still, "audio": sound}, AugmentConfig(shift_s=0.5), generator(1, 0, "a", "x"))
    assert clock.shift_s != 0.0
    assert moved["video"].mask.all()
    assert moved["video"].data.min() == 7
    assert shift(sound, 100.0).mask.sum() == 0


def test_flip_mirrors_all_frames_alike() -> None:
    inputs = clip()
    flipped, _ = augment(inputs, AugmentConfig(flip=1.0), generator(0, 0, "a", "augment"))
    np.testing.assert_array_equal(flipped["video"].data, inputs["video"].data[..., ::-1])
    np.testing.assert_array_equal(flipped["audio"].data, inputs["audio"].data)


def test_a_crop_is_alike_in_all_frames_and_keeps_the_size() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (1, 3, 16, 16), dtype=np.uint8)
    frames = np.repeat(frame, 5, axis=0)
    changed, _ = augment(
        {"video": Raw(frames, np.ones(5, bool), 4.0)}, AugmentConfig(crop=0.5), generator(0, 0, "b", "augment")
    )
    data = changed["video"].data
    assert data.shape == frames.shape
    assert data.dtype == np.uint8
    assert (data == data[:1]).all()
    assert not np.array_equal(data, frames)


def test_where_a_crop_lies() -> None:
    ramp = np.broadcast_to(np.arange(0, 200, 10, dtype=np.uint8), (1, 3, 20, 20))
    assert crop_frames(ramp, 1.0, 0.5, 0.5) is ramp
    left, right = crop_frames(ramp, 0.5, 0.0, 0.0), crop_frames(ramp, 0.5, 0.0, 1.0)
    assert (left.min(), left.max()) == (0, 90)
    assert (right.min(), right.max()) == (100, 190)


@given(snr_db=st.floats(-10, 40), seed=st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_noise_has_the_level_that_was_asked_for(snr_db: float, seed: int) -> None:
    sound = clip(seed=seed)["audio"].data
    mask = np.arange(len(sound)) < 12000
    sound = np.where(mask, sound, np.float32(0))
    noise = add_noise(sound, mask, snr_db, np.random.default_rng(seed)) - sound
    measured = 10 * np.log10(np.mean(sound[mask] ** 2) / np.mean(noise[mask] ** 2))
    assert measured == pytest.approx(snr_db, abs=0.3)
    assert not noise[~mask].any()


def test_silence_stays_silent_and_gain_is_in_db() -> None:
    silence = np.zeros(100, np.float32)
    assert not add_noise(silence, np.ones(100, bool), 0.0, np.random.default_rng(0)).any()
    inputs = clip()
    louder, _ = augment(inputs, AugmentConfig(gain_db=(20.0, 20.0)), generator(0, 0, "a", "augment"))
    np.testing.assert_allclose(louder["audio"].data, 10 * inputs["audio"].data, rtol=1e-6)
    assert louder["audio"].data.dtype == np.float32


def test_modality_dropout_keeps_its_rates_and_one_input() -> None:
    inputs = clip()
    counts = dict.fromkeys(inputs, 0)
    for number in range(2000):
        kept = drop_modalities(inputs, {"audio": 0.9, "video": 0.2}, generator(0, 0, str(number), "dropout"))
        assert "flow" in kept
        for name in kept:
            counts[name] += 1
    assert counts["audio"] / 2000 == pytest.approx(0.1, abs=0.03)
    assert counts["video"] / 2000 == pytest.approx(0.8, abs=0.03)
    always = dict.fromkeys(inputs, 1.0)
    left = [tuple(drop_modalities(inputs, always, generator(0, 0, str(number), "dropout"))) for number in range(300)]
    assert {len(names) for names in left} == {1}
    assert {name for names in left for name in names} == set(inputs)
    only_sound = {"audio": inputs["audio"]}
    assert set(drop_modalities(only_sound, always, generator(0, 0, "a", "dropout"))) == {"audio"}
    assert drop_modalities({}, always, generator(0, 0, "a", "dropout")) == {}
