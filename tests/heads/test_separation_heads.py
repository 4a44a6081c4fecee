"""Separation heads: shapes, sums, padding, gradients, conditioning, and four mixtures learnt by heart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from mmfusion.config import validate
from mmfusion.heads.separation import ConvTasNetConfig, MaskConfig, steps_at
from mmfusion.heads.separation_build import build_separation
from mmfusion.types import InputError, Separator, Stream, Targets

RATE, WIDTH = 2000.0, 6
STFT = {"sample_rate_hz": 2000, "window_s": 0.032, "hop_s": 0.008}
BINS, NUM_CLASSES = 33, 5
TASNET = {"kind": "conv_tasnet", "filters": 12, "num_taps": 16, "width": 8, "hidden": 12, "layers": 2, "stacks": 1}
SETTINGS: dict[str, dict[str, Any]] = {
    "sigmoid": {"kind": "mask"},
    "softmax": {"kind": "mask", "mask": "softmax", "hidden": 7},
    "relu": {"kind": "mask", "mask": "relu", "consistency": "energy"},
    "complex": {"kind": "mask", "mask": "complex"},
    "by_class": {"kind": "mask", "by_class": True, "mask": "softmax"},
    "by_bin": {"kind": "mask", "by_bin": True},
    "by_bin_complex": {"kind": "mask", "by_bin": True, "mask": "complex", "hidden": 5},
    "conv_tasnet": TASNET,
    "conv_tasnet_conditioned": {**TASNET, "conditioned": True},
}
every_kind = pytest.mark.parametrize("name", list(SETTINGS))


def make(name: str, num_sources: int = 3, **more: Any) -> Any:
    settings = {**SETTINGS[name], **more}
    if settings["kind"] == "mask":
        settings["stft"] = STFT
    schema = MaskConfig if settings["kind"] == "mask" else ConvTasNetConfig
    torch.manual_seed(1)
    head = build_separation(validate(schema, settings, "test"), width_of(name), num_sources, NUM_CLASSES).eval()
    for layer in [getattr(head, "modulate", None)]:
        if layer is not None:  # as after some training: at first the stream has no say
            nn.init.normal_(layer.weight, std=0.3)
    return head


def width_of(name: str) -> int:
    return 2 * BINS if name.startswith("by_bin") else WIDTH


def make_mixture(lengths: tuple[int, ...] = (800, 500), padded: int = 0, seed: int = 0) -> Stream:
    total = max(lengths) + padded
    data = torch.stack([
        torch.randn(total, generator=torch.Generator().manual_seed(seed + row)) for row in range(len(lengths))
    ])  # fmt: skip
    return Stream(data, torch.arange(total) < torch.tensor(lengths)[:, None], RATE)


def make_stream(mixture: Stream, width: int, rate: float = 125.0, seed: int = 5) -> Stream:
    """Features on a clock of their own, real as long as the mixture is."""
    num = int(mixture.mask.shape[1] / RATE * rate + 0.999)
    data = torch.randn(len(mixture.data), 200, width, generator=torch.Generator().manual_seed(seed))[:, :num]
    return Stream(data, torch.arange(num) / rate < mixture.lengths[:, None] / RATE, rate)


@every_kind
@torch.no_grad()
def test_as_many_signals_as_asked_for_that_sum_to_the_mixture(name: str) -> None:
    head, mixture = make(name), make_mixture()
    assert isinstance(head, Separator) and head.reads == "audio"
    said = head(make_stream(mixture, width_of(name)), mixture)
    assert said.sources.shape == (2, 3, 800) and said.sources.dtype == torch.float32
    torch.testing.assert_close(said.sources.sum(1), mixture.zeroed(), atol=1e-4, rtol=0)
    assert not said.sources[1, :, 500:].any() and torch.equal(said.mask, mixture.mask)
    assert (said.sources[:, 0] - said.sources[:, 1]).abs().max() > 1e-3


@every_kind
@torch.no_grad()
def test_without_consistency_the_sum_is_free(name: str) -> None:
    head, mixture = make(name, consistency="none"), make_mixture()
    said = head(make_stream(mixture, width_of(name)), mixture)
    off = (said.sources.sum(1) - mixture.zeroed()).abs().max()
    assert off < 1e-4 if name in ("softmax", "by_class") else off > 1e-2


@every_kind
@torch.no_grad()
def test_padding_leaves_what_is_real_alone(name: str) -> None:
    head, mixture, longer = make(name), make_mixture(), make_mixture(padded=333)
    plain = head(make_stream(mixture, width_of(name)), mixture)
    padded = head(make_stream(longer, width_of(name)), longer)
    torch.testing.assert_close(padded.sources[..., :800], plain.sources, atol=1e-5, rtol=1e-5)
    assert not padded.sources[..., 800:].any()


@every_kind
@torch.no_grad()
def test_a_batch_is_its_mixtures_one_by_one(name: str) -> None:
    head, mixture = make(name), make_mixture()
    stream = make_stream(mixture, width_of(name))
    both = head(stream, mixture).sources
    for row, length in enumerate((800, 500)):
        own = Stream(mixture.data[row : row + 1, :length], mixture.mask[row : row + 1, :length], RATE)
        alone = head(Stream(stream.data[row : row + 1], stream.mask[row : row + 1], stream.rate), own).sources
        torch.testing.assert_close(both[row : row + 1, :, :length], alone, atol=1e-5, rtol=1e-5)


@every_kind
def test_a_batch_without_sound_is_silent_and_trains(name: str) -> None:
    head, mixture = make(name), make_mixture()
    none = Stream(mixture.data, mixture.mask & False, RATE)
    said = head(make_stream(mixture, width_of(name)), none)
    assert not said.sources.any()
    loss, _ = head.told_loss(said, Targets(sources=torch.zeros(2, 3, 800), source_mask=torch.zeros(2, 3) > 0))
    assert loss.isfinite()


@every_kind
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_gradients_are_finite_and_reach_every_weight(name: str, dtype: torch.dtype | None) -> None:
    head, mixture = make(name, num_outputs=3, num_sources=2).train(), make_mixture()
    sources = torch.stack([mixture.zeroed() * 0.3, mixture.zeroed() * 0.7], dim=1)
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        said = head(make_stream(mixture, width_of(name)), mixture)
    loss, figures = head.told_loss(said, Targets(sources=sources, source_classes=torch.tensor([[0, 4], [2, 1]])))
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite() and "likeness" in figures
    grads = {key: weight.grad for key, weight in head.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
    assert sum(bool(grad.any()) for grad in grads.values() if grad is not None) > len(grads) / 2


@every_kind
@torch.no_grad()
def test_bfloat16_changes_little(name: str) -> None:
    head, mixture = make(name), make_mixture()
    stream = make_stream(mixture, width_of(name))
    plain = head(stream, mixture)
    with torch.autocast("cpu", torch.bfloat16):
        half = head(stream, mixture)
    assert half.sources.dtype == torch.float32
    torch.testing.assert_close(half.sources.sum(1), mixture.zeroed(), atol=1e-4, rtol=0)
    assert (half.sources - plain.sources).norm() < 0.05 * plain.sources.norm()


@torch.no_grad()
def test_conditioning_begins_without_a_say_and_then_has_one() -> None:
    mixture = make_mixture()
    streams = [make_stream(mixture, WIDTH, rate=4.0, seed=seed) for seed in (1, 2)]
    trained = make("conv_tasnet_conditioned")
    assert not torch.allclose(trained(streams[0], mixture).sources, trained(streams[1], mixture).sources, atol=1e-3)
    torch.manual_seed(1)
    settings = {**TASNET, "conditioned": True}
    fresh = build_separation(validate(ConvTasNetConfig, settings, "test"), WIDTH, 3).eval()
    assert torch.equal(fresh(streams[0], mixture).sources, fresh(streams[1], mixture).sources)
    alone = make("conv_tasnet")
    assert torch.equal(alone(streams[0], mixture).sources, alone(streams[1], mixture).sources)


def test_frames_read_the_step_in_which_their_middle_lies() -> None:
    data = torch.arange(1.0, 4.0)[None, :, None]
    stream = Stream(data, torch.ones(1, 3, dtype=torch.bool), 2.0)
    assert steps_at(stream, 4.0, 8)[0, :, 0].tolist() == [1, 1, 2, 2, 3, 3, 0, 0]
    assert steps_at(stream, 1.0, 2)[0, :, 0].tolist() == [2, 0]
    assert steps_at(stream, 2.0, 3) is not None and torch.equal(steps_at(stream, 2.0, 3), data)
    hidden = Stream(data, torch.tensor([[True, False, True]]), 2.0)
    assert steps_at(hidden, 4.0, 6)[0, :, 0].tolist() == [1, 1, 0, 0, 3, 3]


@pytest.mark.parametrize("name", ["sigmoid", "complex", "by_bin", "conv_tasnet"])
def test_four_mixtures_are_learnt_by_heart(name: str) -> None:
    """Tones and clicks in noise-free mixtures: the loss falls until every source stands out by 8 dB."""
    time = torch.arange(800) / RATE
    tones = torch.stack([torch.sin(2 * torch.pi * hz * time) for hz in (150.0, 260.0, 400.0, 610.0)])
    others = torch.randn(4, 800, generator=torch.Generator().manual_seed(0)) * (torch.arange(800) % 200 < 60)
    sources = torch.stack([tones, others], dim=1)
    mixture = Stream(sources.sum(1), torch.ones(4, 800, dtype=torch.bool), RATE)
    more = {"filters": 48, "width": 24, "hidden": 32} if name == "conv_tasnet" else {}
    head = make(name, num_sources=2, **more).train()
    stream = nn.Parameter(0.1 * torch.randn(4, 50, width_of(name), generator=torch.Generator().manual_seed(1)))
    optimiser = torch.optim.Adam([*head.parameters(), stream], lr=0.03 if name != "conv_tasnet" else 0.01)
    first = figure = None
    for _ in range(150):
        said = head(Stream(stream, torch.ones(4, 50, dtype=torch.bool), 125.0), mixture)
        figure, _ = head.told_loss(said, Targets(sources=sources))
        first = figure.item() if first is None else first
        optimiser.zero_grad()
        figure.backward()
        optimiser.step()
    assert figure is not None and first is not None
    # Both sources are as loud, so the mixture itself has 0 dB.
    assert first > -6 and figure.item() < -8, (first, figure.item())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="num_outputs: 2 is fewer than the 3 sources"):
        make("sigmoid", num_outputs=2)
    with pytest.raises(InputError, match=r"objective: mixit tries every way .* there are 12 and 3"):
        make("sigmoid", num_outputs=12, loss={"objective": "mixit"})
    with pytest.raises(InputError, match="by_bin: 6 features are not so many for each of 33 frequencies"):
        make("sigmoid", by_bin=True)


def test_no_sources_no_loss() -> None:
    head, mixture = make("sigmoid"), make_mixture()
    loss, figures = head.told_loss(head(make_stream(mixture, WIDTH), mixture), Targets())
    assert loss.item() == 0 and loss.requires_grad and not figures
