"""Aligning streams: exact on constants, identity on its own grid, events stay in their second, masks are honoured."""

from __future__ import annotations

import math

import pytest
import torch
from fusion_cases import clip_of, padded, with_garbage
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.fusion.align import align
from mmfusion.types import Stream

RATES = st.sampled_from([1.0, 2.0, 4.0, 10.0, 12.5, 25.0, 29.97, 31.25, 50.0, 100 / 3])


def stream_of(data: torch.Tensor, rate: float) -> Stream:
    return Stream(data, torch.ones(data.shape[:2], dtype=torch.bool), rate)


def test_same_rate_and_length_is_the_same_stream():
    streams = {name: stream_of(torch.randn(2, 5, 3), 25.0) for name in ("audio", "video")}
    aligned = align(streams)
    assert all(aligned[name] is streams[name] for name in streams)


def test_same_rate_other_length_is_padded_bit_for_bit():
    streams = {"audio": stream_of(torch.randn(2, 5, 3), 25.0), "video": stream_of(torch.randn(2, 8, 4), 25.0)}
    audio = align(streams)["audio"]
    assert torch.equal(audio.data[:, :5], streams["audio"].data)
    assert audio.mask[:, :5].all() and not audio.mask[:, 5:].any()


@settings(max_examples=40, deadline=None)
@given(RATES, RATES, st.integers(1, 40), st.floats(-100, 100))
def test_constants_stay_constant_both_ways(rate_in, rate_out, num_steps, value):
    aligned = align({"audio": stream_of(torch.full((1, num_steps, 2), value), rate_in)}, rate_out)["audio"]
    assert aligned.rate == rate_out
    assert aligned.mask.all() and aligned.data.shape[1] == math.ceil(num_steps * rate_out / rate_in - 1e-6)
    torch.testing.assert_close(aligned.data, torch.full_like(aligned.data, value), rtol=1e-6, atol=0)


@settings(max_examples=60, deadline=None)
@given(RATES, RATES, st.floats(0.0, 3.9))
def test_a_click_reaches_the_step_of_its_time(rate_in, rate_out, time_s):
    step_in, step_out = math.floor(time_s * rate_in), math.floor(time_s * rate_out)
    if (step_in + 1) / rate_in - time_s < 1e-4 or (step_out + 1) / rate_out - time_s < 1e-4:
        return  # within rounding of the next step
    data = torch.zeros(1, math.ceil(4 * rate_in), 1)
    data[0, step_in] = 1
    aligned = align({"audio": stream_of(data, rate_in)}, rate_out)["audio"]
    assert aligned.data[0, step_out, 0] > 0
    clear_of_it = 1 + rate_out / rate_in
    assert not aligned.data[0, : max(0, math.floor(step_out - clear_of_it))].any()
    assert not aligned.data[0, math.ceil(step_out + clear_of_it) + 1 :].any()


@pytest.mark.parametrize("rates", [(25.0, 4.0), (100.0, 25.0), (31.25, 2.0), (4.0, 4.0)])
def test_click_and_flash_at_three_seconds_land_together(rates):
    streams = {}
    for name, rate in zip(("audio", "video"), rates, strict=True):
        data = torch.zeros(1, int(5 * rate), 1)
        data[0, math.floor(3.0 * rate)] = 1
        streams[name] = stream_of(data, rate)
    for grid_rate in (None, 2.0, 10.0, 25.0):
        aligned = align(streams, grid_rate)
        step = math.floor(3.0 * aligned["audio"].rate)
        assert all(stream.data[0, step, 0] > 0 for stream in aligned.values())
        assert all(stream.data.shape[1] == aligned["audio"].data.shape[1] for stream in aligned.values())


def test_downsampling_is_the_mean_of_what_is_real():
    data = torch.arange(8.0).reshape(1, 8, 1)
    mask = torch.tensor([[True, True, False, True, False, False, False, True]])
    aligned = align({"audio": Stream(data, mask, 8.0)}, 2.0)["audio"]
    torch.testing.assert_close(aligned.data[0, :, 0], torch.tensor([(0 + 1 + 3) / 3, 7.0]))
    assert aligned.mask.tolist() == [[True, True]]
    assert align({"audio": Stream(data, mask, 8.0)}, 4.0)["audio"].mask.tolist() == [[True, True, False, True]]


@pytest.mark.parametrize("rate", [29.97, 100 / 3, 10 / 3, 0.7])
def test_rounding_of_the_clocks_is_not_shared_time(rate):
    """Of 3 k fine steps those in an odd third are real; on the three times coarser grid no neighbour hears of them."""
    odd = torch.arange(300) // 3 % 2 == 1
    aligned = align({"audio": Stream(torch.ones(1, 300, 1), odd[None], rate * 3)}, rate)["audio"]
    assert aligned.mask[0].tolist() == [step % 2 == 1 for step in range(100)]


def test_a_sliver_that_is_real_counts():
    mask = torch.tensor([[False, True]])
    aligned = align({"audio": Stream(torch.tensor([[[5.0], [7.0]]]), mask, 1.0)}, 0.9)["audio"]
    assert aligned.mask.tolist() == [[True, True]]  # 1/9 s of the first step is real
    torch.testing.assert_close(aligned.data[0, :, 0], torch.tensor([7.0, 7.0]))


def test_steps_count_by_shared_time():
    # 3 steps a second onto 2: the second step lies half in the first half second.
    aligned = align({"audio": stream_of(torch.tensor([[[0.0], [3.0], [9.0]]]), 3.0)}, 2.0)["audio"]
    torch.testing.assert_close(aligned.data[0, :, 0], torch.tensor([1.0, 7.0]))


def test_lowest_rate_is_the_grid_and_the_longest_stream_sets_its_length():
    streams = {"audio": stream_of(torch.randn(1, 100, 2), 25.0), "video": stream_of(torch.randn(1, 9, 3), 2.0)}
    aligned = align(streams)
    assert {stream.rate for stream in aligned.values()} == {2.0}
    assert {stream.data.shape[1] for stream in aligned.values()} == {9}
    assert aligned["audio"].mask.sum() == 8 and aligned["video"] is streams["video"]


@pytest.mark.parametrize("rate", [2.0, 4.0, 7.0, 25.0])
def test_padding_garbage_and_company_change_nothing(rate):
    stream = stream_of(torch.randn(2, 12, 3), 8.0)
    stream = Stream(stream.data, torch.rand(2, 12) > 0.4, 8.0)
    plain = align({"audio": stream}, rate)["audio"]
    long = align({"audio": with_garbage(padded(stream, 5))}, rate)["audio"]
    num_steps = plain.data.shape[1]
    torch.testing.assert_close(long.zeroed()[:, :num_steps], plain.zeroed())
    assert not long.mask[:, num_steps:].any() and torch.equal(long.mask[:, :num_steps], plain.mask)
    for clip in range(2):
        torch.testing.assert_close(
            align({"audio": clip_of(stream, clip)}, rate)["audio"].data, plain.data[clip : clip + 1]
        )


def test_a_stream_that_is_not_there_stays_so_and_finite():
    stream = Stream(torch.full((1, 3, 2), torch.nan), torch.zeros(1, 3, dtype=torch.bool), 4.0)
    aligned = align({"audio": stream}, 2.0)["audio"]
    assert not aligned.mask.any() and not aligned.data.any()


def test_dtypes_other_axes_and_plain_samples():
    frames = Stream(torch.randn(1, 4, 2, 3).double(), torch.ones(1, 4, dtype=torch.bool), 4.0)
    aligned = align({"video": frames}, 2.0)["video"]
    assert aligned.data.dtype == torch.float64
    torch.testing.assert_close(aligned.data[:, 0], frames.data[:, :2].mean(1))
    samples = Stream(torch.arange(4.0)[None], torch.ones(1, 4, dtype=torch.bool), 4.0)
    torch.testing.assert_close(align({"audio": samples}, 2.0)["audio"].data, torch.tensor([[0.5, 2.5]]))
    assert align({"audio": stream_of(torch.randn(1, 4, 2).bfloat16(), 4.0)}, 2.0)["audio"].data.dtype == torch.bfloat16


def test_after_evaluation_training_still_works():
    with torch.inference_mode():
        align({"audio": stream_of(torch.randn(1, 13, 2), 13.0)}, 5.0)
    data = torch.randn(1, 13, 2, requires_grad=True)
    align({"audio": stream_of(data, 13.0)}, 5.0)["audio"].data.sum().backward()
    assert data.grad is not None and torch.isfinite(data.grad).all()


def test_what_cannot_be_aligned():
    with pytest.raises(ValueError, match="no streams"):
        align({})
    with pytest.raises(ValueError, match="same number of clips"):
        align({"audio": stream_of(torch.zeros(1, 2, 1), 2.0), "video": stream_of(torch.zeros(2, 2, 1), 2.0)})
