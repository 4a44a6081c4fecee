"""Masks by class: what is chosen, what is learnt, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from mmfusion.config import validate
from mmfusion.heads.class_masks import ClassMaskHead, SeparatedByClass, covering
from mmfusion.heads.separation import MaskConfig
from mmfusion.heads.separation_build import build_separation
from mmfusion.heads.separation_losses import signal_to_noise
from mmfusion.types import InputError, Stream, Targets

RATE, WIDTH, CLASSES, NUM = 2000.0, 8, 4, 1000
SETTINGS = {"kind": "mask", "by_class": True, "mask": "softmax",
            "stft": {"sample_rate_hz": 2000, "window_s": 0.032, "hop_s": 0.008}}  # fmt: skip


def make(num_sources: int = 2, **more: Any) -> ClassMaskHead:
    torch.manual_seed(3)
    head = build_separation(validate(MaskConfig, {**SETTINGS, **more}, "test"), WIDTH, num_sources, CLASSES)
    assert isinstance(head, ClassMaskHead)
    return head


def tones(*hertz: float) -> Tensor:
    """(1, S, N): one tone a source, each with a level of its own."""
    time = torch.arange(NUM) / RATE
    return torch.stack([(1 + place) * torch.sin(6.2832 * f * time) for place, f in enumerate(hertz)])[None]


def heard(sources: Tensor) -> tuple[Stream, Stream]:
    """A stream of constants, and the mixture of the sources."""
    mixture = Stream(sources.sum(1), torch.ones(len(sources), NUM, dtype=torch.bool), RATE)
    steps = torch.ones(len(sources), 125, WIDTH)
    return Stream(steps, torch.ones(len(sources), 125, dtype=torch.bool), 250.0), mixture


def test_the_classes_that_cover_a_mixture_together_are_chosen() -> None:
    """Class 1 has most of it, class 3 most of what class 1 lacks; class 0 is second by itself, where class 1 is too."""
    masks = torch.tensor([[0.4, 0.3, 0.0], [0.6, 0.6, 0.1], [0.0, 0.1, 0.1], [0.0, 0.0, 0.8]])[None, :, None]
    weights = torch.ones(1, 1, 3)
    assert covering(masks, weights, 1).tolist() == [[1]]
    assert covering(masks, weights, 2).tolist() == [[1, 3]]
    assert covering(masks, weights, 4).tolist() == [[0, 1, 2, 3]]
    assert covering(masks, torch.tensor([[[0.0, 0.0, 5.0]]]), 1).tolist() == [[3]]
    assert covering(masks, torch.zeros(1, 1, 3), 3).tolist() == [[0, 1, 2]]


def test_tones_are_learnt_by_class_and_told_apart_without_labels() -> None:
    """Four classes of tones, two at a time: trained on some pairs, the head parts and names a pair it never saw."""
    hertz = (150.0, 400.0, 650.0, 900.0)
    head = make()
    optimiser = torch.optim.Adam(head.parameters(), lr=0.05)
    pairs = [(0, 1), (1, 2), (2, 3), (3, 0), (1, 3)]
    sources = torch.cat([tones(*(hertz[k] for k in pair)) for pair in pairs])
    targets = Targets(sources=sources, source_classes=torch.tensor(pairs))
    for _ in range(60):
        optimiser.zero_grad()
        loss, figures = head.told_loss(head(*heard(sources)), targets)
        loss.backward()
        optimiser.step()
    assert float(figures["found"]) == 1 and float(loss.detach() - 3.0 * figures["missed"]) < -15
    unseen = tones(hertz[0], hertz[2])
    with torch.no_grad():
        said = head.eval()(*heard(unseen))
    assert isinstance(said, SeparatedByClass) and said.chosen.tolist() == [[0, 2]]
    assert (signal_to_noise(said.sources, unseen) > 15).all()
    with torch.no_grad():
        stems = head.sounds_of(*heard(unseen), [2, 1], rest=True).sources
        shared = head.sounds_of(*heard(unseen), [2, 0]).sources
    assert (signal_to_noise(shared[:, [1, 0]], unseen) > 15).all()
    assert (signal_to_noise(stems[:, [2, 0]], unseen) > 15).all(), "the class that was not asked for is in the rest"
    assert float(stems[:, 1].square().mean() / unseen.sum(1).square().mean()) < 0.01
    torch.testing.assert_close(stems.sum(1), unseen.sum(1), atol=1e-4, rtol=0)


@torch.no_grad()
def test_sources_of_one_class_are_one_sound_and_unknown_ones_say_nothing() -> None:
    head, weight = make(num_sources=3), 3.0
    sources = tones(150.0, 400.0, 900.0)
    joint, last = sources[:, 0] + sources[:, 1], sources[:, 2]
    said = head(*heard(sources))

    def loss(classes: list[int], *given: Tensor) -> Tensor:
        told, figures = head.told_loss(
            said, Targets(sources=torch.stack(given, 1), source_classes=torch.tensor([classes]))
        )
        return told - weight * figures["missed"]

    # The mean is over sources: the joint sound counts twice where it is two of them.
    first = loss([1, 1, 2], sources[:, 0], sources[:, 1], last)
    second = loss([1, 2, 2], joint, last, last)
    assert float(first + second) == pytest.approx(2 * float(loss([1, 2], joint, last)), abs=1e-4)
    # Of which class all of a mixture is has to be known: the rest would be taught to the one that is.
    for classes in ([1, -1, 2], [-1, -1, -1]):
        nothing, _ = head.told_loss(said, Targets(sources=sources, source_classes=torch.tensor([classes])))
        assert float(nothing) == 0
    assert float(head.told_loss(said, Targets(sources=sources))[0]) == 0
    assert float(head.told_loss(said, Targets())[0]) == 0


@torch.no_grad()
def test_padding_and_silent_sources_leave_the_loss_alone() -> None:
    head, sources = make(), tones(150.0, 400.0)
    stream, mixture = heard(sources)
    plain, figures = head.told_loss(
        head(stream, mixture), Targets(sources=sources, source_classes=torch.tensor([[3, 1]]))
    )
    padded = Stream(torch.nn.functional.pad(mixture.data, (0, 600)), torch.arange(NUM + 600)[None] < NUM, RATE)
    longer = torch.nn.functional.pad(sources, (0, 600))
    targets = Targets(sources=longer, source_classes=torch.tensor([[3, 1]]))
    found, again = head.told_loss(head(stream, padded), targets)
    assert float(found) == pytest.approx(float(plain), abs=1e-3)
    assert float(again["missed"]) == pytest.approx(float(figures["missed"]), abs=1e-4)
    # A third source, silent, of a class of its own, is neither learnt nor given a share.
    silent = torch.cat([sources, torch.zeros_like(sources[:, :1])], dim=1)
    mask = torch.tensor([[True, True, False]])
    targets = Targets(sources=silent, source_mask=mask, source_classes=torch.tensor([[3, 1, 0]]))
    assert float(head.told_loss(head(stream, mixture), targets)[0]) == pytest.approx(float(plain), abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_classes_are_chosen_in_float32(dtype: torch.dtype) -> None:
    """Classes 2 and 3 are alike to a thousandth, and sums are far above what half precision holds."""
    masks = torch.tensor([0.1, 0.2, 0.3497, 0.3503])[None, :, None, None].expand(1, 4, 50, 200)
    with torch.autocast("cpu", dtype):
        assert covering(masks, torch.full((1, 50, 200), 1e4), 1).tolist() == [[3]]


def test_what_other_classes_take_is_missed() -> None:
    """Masks that are the same everywhere: two of four classes have half of every mixture, however loud."""
    head = make()
    torch.nn.init.zeros_(head.layers[0].weight)
    torch.nn.init.zeros_(head.layers[0].bias)
    sources = torch.cat([tones(150.0, 400.0), 0.01 * tones(400.0, 900.0)])
    _, figures = head.told_loss(
        head(*heard(sources)), Targets(sources=sources, source_classes=torch.tensor([[0, 1]] * 2))
    )
    assert float(figures["missed"]) == pytest.approx(-math.log(0.5 + 1e-3), abs=1e-4)


def test_fewer_classes_than_signals_are_refused() -> None:
    with pytest.raises(
        InputError, match="by_class: 5 signals come out, each of a class of its own, and the clips' labels name 4"
    ):
        make(num_sources=5)


@pytest.mark.parametrize(("more", "reason"), [
    ({"mask": "sigmoid"}, "needs mask softmax, not sigmoid"),
    ({"loss": {"objective": "mixit"}}, "mixit knows of none"),
])  # fmt: skip
def test_settings_that_do_not_fit_are_refused(more: dict[str, Any], reason: str) -> None:
    with pytest.raises((InputError, ValidationError), match=reason):
        validate(MaskConfig, {**SETTINGS, **more}, "test")
