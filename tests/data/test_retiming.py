"""Faster, slower, turned round, cut: all inputs move alike, and what is known about seconds moves along."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.data.augment import AugmentConfig, augment, generator
from mmfusion.data.raw import Raw
from mmfusion.data.retiming import Retiming, change_speed, cut, duration, roll

RATE = 8000.0


def sound(data: np.ndarray, length_s: float = 2.0) -> Raw:
    return Raw(data.astype(np.float32), np.ones(len(data), bool), len(data) / length_s)


def burst(start_s: float, end_s: float, length_s: float = 4.0) -> Raw:
    """Ones between two times, zeros elsewhere."""
    times = np.arange(int(RATE * length_s)) / RATE
    return sound(((times >= start_s) & (times < end_s)) * 1.0, length_s)


def loud(raw: Raw) -> np.ndarray:
    """Seconds at which the burst is heard."""
    return np.flatnonzero((raw.data > 0.5) & raw.mask) / raw.rate


@pytest.mark.parametrize("speed", [0.5, 0.9, 1.0, 1.25, 2.0])
def test_speed_moves_pitch_and_length_alike(speed: float) -> None:
    times = np.arange(16000) / RATE
    tone = sound(np.sin(2 * np.pi * 500 * times))
    faster = change_speed(tone, speed)
    assert len(faster.data) == len(faster.mask) == pytest.approx(16000 / speed, abs=1)
    spectrum = np.abs(np.fft.rfft(faster.data * np.hanning(len(faster.data))))
    assert spectrum.argmax() * RATE / len(faster.data) == pytest.approx(500 * speed, abs=2)
    assert faster.data.dtype == np.float32 and np.abs(faster.data).max() < 1.1


def test_speed_keeps_what_is_not_real_out() -> None:
    raw = sound(np.full(16000, 5.0))
    raw.mask[8000:] = False
    faster = change_speed(raw, 2.0)
    assert faster.mask.sum() == 4000 and faster.mask[:4000].all()
    assert np.abs(faster.data[4100:]).max() < 0.05


@given(roll_s=st.integers(0, 8).map(lambda half: half / 2))
@settings(max_examples=10, deadline=None)
def test_all_inputs_turn_alike_also_when_one_is_shorter(roll_s: float) -> None:
    audio = burst(1.0, 1.5)
    frames = Raw(np.zeros((7, 3, 2, 2), np.uint8), np.ones(7, bool), 2.0)
    frames.data[2] = 200  # shown from 1.0 to 1.5 s
    turned, pictures = roll(audio, roll_s, 4.0), roll(frames, roll_s, 4.0)
    assert len(pictures.mask) == 8 and pictures.mask.sum() == 7
    assert loud(turned)[0] == pytest.approx((1.0 + roll_s) % 4.0)
    assert pictures.data[:, 0, 0, 0].argmax() / 2 == loud(turned)[0]


@given(
    start_s=st.integers(0, 7), length_s=st.integers(1, 6), seed=st.integers(0, 200), turn=st.booleans(),
    stretch=st.sampled_from([None, 1.5, 3.0]), speed=st.sampled_from([None, (0.8, 1.25)]),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_what_is_known_moves_with_the_sound(start_s, length_s, seed, turn, stretch, speed) -> None:
    start, end = start_s / 2, min(4.0, (start_s + length_s) / 2)
    config = AugmentConfig(roll=turn, stretch_s=stretch, shift_s=0.5, speed=speed)
    changed, moved = augment({"audio": burst(start, end)}, config, generator(seed, 0, "a", "augment"))
    length = duration(changed)
    known = np.zeros(len(changed["audio"].mask), bool)
    for span in moved.spans(start, end):
        first, last = (round(min(max(time, 0.0), length) * RATE) for time in span)
        known[first:last] = True
    heard = (changed["audio"].data > 0.5) & changed["audio"].mask
    # Resampling blurs the edges by a few samples.
    assert (known & changed["audio"].mask != heard).sum() <= (40 if speed else 2)


def test_a_cut_is_as_long_as_asked_and_leaves_short_clips_whole() -> None:
    for length_s, expected in ((1.0, 1.0), (9.0, 4.0)):
        changed, _ = augment({"audio": burst(0, 1)}, AugmentConfig(stretch_s=length_s), generator(0, 0, "a", "augment"))
        assert duration(changed) == expected
    vector = Raw(np.ones((1, 4), np.float32), np.ones(1, bool), 0.1)
    assert cut(vector, 3.0, 1.0) is vector and roll(vector, 3.0, 4.0) is vector


def test_nothing_changed_is_where_it_was() -> None:
    assert Retiming().spans(1.25, 3.5) == [(1.25, 3.5)]
