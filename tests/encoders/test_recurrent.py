from __future__ import annotations

import pytest
import torch

from mmfusion.encoders.recurrent import Recurrent, RecurrentConfig
from mmfusion.types import Stream

SHAPES = [RecurrentConfig(size=6, layers=layers, bidirectional=both) for layers in (1, 2) for both in (False, True)]
every_shape = pytest.mark.parametrize("config", SHAPES, ids=lambda c: f"{c.layers}-{c.bidirectional}")


def make(config: RecurrentConfig) -> Recurrent:
    torch.manual_seed(0)
    return Recurrent(4, config).eval()


def steps(lengths: list[int], total: int, seed: int = 0) -> Stream:
    data = torch.randn(len(lengths), 40, 4, generator=torch.Generator().manual_seed(seed))[:, :total].clone()
    mask = torch.arange(total) < torch.tensor(lengths)[:, None]
    data[~mask] = torch.randn(int((~mask).sum()), 4) * 9  # what lies under the mask must not matter
    return Stream(data, mask, 4.0)


@every_shape
@torch.no_grad()
def test_padding_changes_nothing(config: RecurrentConfig) -> None:
    model = make(config)
    plain, padded = model(steps([7, 3, 0], 7)), model(steps([7, 3, 0], 12))
    torch.testing.assert_close(plain.data, padded.data[:, :7], rtol=0, atol=1e-6)
    assert not padded.data[~padded.mask].any() and plain.data.shape == (3, 7, model.width)


@every_shape
@torch.no_grad()
def test_batch_equals_single_clips(config: RecurrentConfig) -> None:
    model, raw = make(config), steps([7, 3, 5], 7)
    together = model(raw)
    for row, length in enumerate([7, 3, 5]):
        alone = model(Stream(raw.data[row : row + 1, :length], raw.mask[row : row + 1, :length], 4.0))
        torch.testing.assert_close(together.data[row, :length], alone.data[0], rtol=0, atol=1e-6)


@torch.no_grad()
def test_forward_equals_repeated_step() -> None:
    model, raw = make(SHAPES[2]), steps([9, 9], 9)
    state, one_by_one = None, []
    for step in range(9):
        out, state = model.lstm(raw.data[:, step : step + 1], state)
        one_by_one.append(out)
    torch.testing.assert_close(model(raw).data, torch.cat(one_by_one, 1), rtol=0, atol=1e-6)


@torch.no_grad()
def test_backward_direction_starts_at_the_last_real_step() -> None:
    model, raw = make(SHAPES[1]), steps([3], 8)
    last = model(raw).data[0, 2, 6:]
    alone = model.lstm(raw.data[:, 2:3])[0][0, 0, 6:]
    torch.testing.assert_close(last, alone, rtol=0, atol=1e-6)


@every_shape
def test_gaps_read_as_zeros_and_speak_zeros(config: RecurrentConfig) -> None:
    raw = steps([6], 6)
    mask = raw.mask.clone()
    mask[0, 2] = False
    model = make(config)
    states = model(Stream(raw.data, mask, 4.0))
    zeros = raw.data.clone()
    zeros[0, 2] = 0
    expected = model(Stream(zeros, raw.mask, 4.0)).data
    assert not states.data[0, 2].any()
    torch.testing.assert_close(states.data[mask], expected[mask], rtol=0, atol=1e-6)


@every_shape
def test_float32_under_autocast_and_gradient(config: RecurrentConfig) -> None:
    model, raw = make(config), steps([7, 3, 0], 7)
    plain = model(raw)
    with torch.autocast("cpu", torch.bfloat16):
        cast = model(raw.with_data(raw.data.requires_grad_()))
    assert cast.data.dtype == torch.float32 and torch.equal(cast.data, plain.data)
    cast.data.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() and p.grad.isfinite().all() for p in model.parameters())
    assert raw.data.grad is not None and not raw.data.grad[~raw.mask].any()


def test_dropout_in_training_only() -> None:
    model, raw = Recurrent(4, RecurrentConfig(size=50, dropout=0.5)), steps([7], 7)
    assert torch.equal(model.eval()(raw).data, model(raw).data)
    assert 0.3 < (model.train()(raw).data == 0).float().mean() < 0.7
