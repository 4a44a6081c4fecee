"""What must hold for an encoder of any kind."""

from __future__ import annotations

from math import ceil
from pathlib import Path

import pytest
import torch
from kinds import AUDIO, FRAME_RATE, SETTINGS, VIDEO, WHOLE, WIDE, make, make_raw

from mmfusion.types import Stream

every_kind = pytest.mark.parametrize("name", list(SETTINGS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


def close(left: torch.Tensor, right: torch.Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5)


@every_kind
@torch.no_grad()
def test_padding_changes_nothing(name: str, folder: Path) -> None:
    encoder = make(name, folder)
    plain = encoder(make_raw(name, [2.3, 1.1]))
    padded = encoder(make_raw(name, [2.3, 1.1], padded_s=1.7))
    num = plain.mask.shape[1]
    assert padded.mask.shape[1] > num and not padded.mask[:, num:].any()
    assert torch.equal(plain.mask, padded.mask[:, :num])
    close(plain.data, padded.data[:, :num])
    assert not padded.data[~padded.mask].any()


@every_kind
@torch.no_grad()
def test_batch_of_two_equals_two_batches_of_one(name: str, folder: Path) -> None:
    encoder = make(name, folder)
    raw = make_raw(name, [2.3, 1.1])
    both = encoder(raw)
    for row, length in enumerate([2.3, 1.1]):
        num = round(length * raw.rate)
        alone = encoder(Stream(raw.data[row : row + 1, :num], raw.mask[row : row + 1, :num], raw.rate))
        steps = alone.mask.shape[1]
        assert alone.mask.all() and both.mask[row].sum() == steps
        close(both.data[row, :steps], alone.data[0])
    assert both.data.std() > 1e-4  # the features do say something


@every_kind
def test_rate_width_and_mask(name: str, folder: Path) -> None:
    encoder = make(name, folder)
    steps = encoder(make_raw(name, [2.0, 0.5]))
    expected = getattr(encoder, "rate", FRAME_RATE)
    assert steps.rate == pytest.approx(expected)
    assert steps.data.shape == (2, round(2 * expected), encoder.width) and steps.data.dtype == torch.float32
    assert steps.lengths.tolist() == [round(2.0 * expected), ceil(0.5 * expected)]


@every_kind
@pytest.mark.parametrize("training", [False, True])
def test_missing_modality_is_zeros(name: str, training: bool, folder: Path) -> None:
    encoder = make(name, folder).train(training)
    raw = make_raw(name, [1.0, 1.0])
    none = encoder(Stream(torch.zeros_like(raw.data), torch.zeros_like(raw.mask), raw.rate))
    assert not none.mask.any() and not none.data.any()
    mixed = encoder(make_raw(name, [1.0, 0.0]))
    assert mixed.mask[0].all() and not mixed.mask[1].any()
    assert mixed.data.isfinite().all() and mixed.data[0].any() and not mixed.data[1].any()


@every_kind
def test_gradient_reaches_every_weight(name: str, folder: Path) -> None:
    # also when no clip of the batch has this modality: data-parallel training waits for every gradient
    encoder = make(name, folder).train()
    if not list(encoder.parameters()):
        pytest.skip("has no weights")
    for lengths in ([2.3, 1.1], [0.0, 0.0]):
        encoder.zero_grad()
        steps = encoder(make_raw(name, lengths, padded_s=0.4))
        (steps.data * torch.randn_like(steps.data)).sum().backward()
        grads = [p.grad for p in encoder.parameters() if p.grad is not None]
        assert all(grad.isfinite().all() for grad in grads)
        unused = {name for name, p in encoder.named_parameters() if p.grad is None}
        # parts that only a model's own pooler or pretraining uses
        assert all(key.split(".")[2] in ("pooler", "masked_spec_embed", "layernorm") for key in unused)
        assert sum(bool(grad.any()) for grad in grads) > len(grads) / 2 or not any(lengths)


@every_kind
@torch.no_grad()
def test_bfloat16_autocast(name: str, folder: Path) -> None:
    encoder = make(name, folder)
    raw = make_raw(name, [2.3, 1.1])
    plain = encoder(raw)
    with torch.autocast("cpu", torch.bfloat16):
        half = encoder(raw)
    assert half.data.dtype == torch.float32 and half.data.isfinite().all()
    assert (half.data - plain.data).norm() < 0.1 * plain.data.norm()


@every_kind
def test_silence_and_black_are_finite(name: str, folder: Path) -> None:
    encoder = make(name, folder).train()
    raw = make_raw(name, [1.0, 1.0])
    assert encoder(raw.with_data(torch.zeros_like(raw.data))).data.isfinite().all()


@every_kind
def test_one_clip_of_one_step_trains(name: str, folder: Path) -> None:
    steps = make(name, folder).train()(make_raw(name, [0.25]))
    assert steps.mask.sum() >= 1 and steps.data.isfinite().all()


@every_kind
def test_frozen_stays_in_evaluation(name: str, folder: Path) -> None:
    encoder = make(name, folder, frozen=True)
    torch.nn.Sequential(encoder).train()
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    raw = make_raw(name, [1.0, 0.5])
    assert torch.equal(encoder(raw).data, encoder(raw).data)
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


@pytest.mark.parametrize("name", [name for name in AUDIO if name not in WIDE + WHOLE])
@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_click_lands_on_its_step(name: str, seed: int, folder: Path) -> None:
    more = {"window_s": None} if name == "torchvision_audio_wide" else {}
    encoder = make(name, folder, **more)
    quiet = make_raw(name, [4.0], seed=seed)
    quiet = quiet.with_data(quiet.data * 0.01)
    assert reaction(encoder, quiet, clicked(quiet, 3.0)) == int(3.0 * encoder.rate)  # type: ignore[operator]


@pytest.mark.parametrize("name", WIDE)
@torch.no_grad()
def test_click_shows_within_reach_of_its_step(name: str, folder: Path) -> None:
    encoder = make(name, folder)
    quiet = make_raw(name, [4.0])
    quiet = quiet.with_data(quiet.data * 0.01)
    change = (encoder(quiet.with_data(clicked(quiet, 3.0))).data - encoder(quiet).data)[0].norm(dim=-1)
    at, reach = int(3.0 * encoder.rate), encoder.reach  # type: ignore[operator]
    assert change[at] > 0.1 * change.max()
    assert not change[: at - reach].any() and not change[at + reach + 1 :].any()  # type: ignore[operator]


@pytest.mark.parametrize("name", VIDEO)
@torch.no_grad()
def test_flash_lands_on_its_step(name: str, folder: Path) -> None:
    encoder = make(name, folder)
    dark = make_raw(name, [4.0])
    data = dark.data // 4
    flash = data.clone()
    flash[:, 12] = 255
    assert reaction(encoder, dark.with_data(data), flash) == int(3.0 * FRAME_RATE)


def clicked(raw: Stream, at_s: float) -> torch.Tensor:
    data = raw.data.clone()
    start = round(at_s * raw.rate)
    data[:, start : start + round(0.005 * raw.rate)] = 0.9
    return data


def reaction(encoder: torch.nn.Module, raw: Stream, changed: torch.Tensor) -> int:
    """The step whose features an event changes most."""
    change = encoder(raw.with_data(changed)).data - encoder(raw).data
    return int(change[0].norm(dim=-1).argmax())
