from __future__ import annotations

import pytest
import torch

from mmfusion.config import validate
from mmfusion.encoders.build import EncoderConfig, build_steps
from mmfusion.encoders.steps import encode_real
from mmfusion.encoders.video import FrameCnn, FrameCnnConfig
from mmfusion.types import InputError, Stream


def frames(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, (*shape, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_motion_is_the_difference_to_the_frame_before() -> None:
    data = frames(2, 4)
    mask = torch.ones(2, 4, dtype=torch.bool)
    mask[0, 1] = mask[1, 0] = False
    index = mask.flatten().nonzero().squeeze(1)
    encoder = FrameCnn(FrameCnnConfig(motion=True))
    pictures = encoder._pictures(data.flatten(0, 1), mask, index)
    motion = torch.zeros(8, 3, 28, 28).index_copy(0, index, pictures[:, 3:]).unflatten(0, (2, 4))
    for clip, step, follows in [(0, 0, False), (0, 2, False), (0, 3, True), (1, 1, False), (1, 2, True), (1, 3, True)]:
        change = (data[clip, step].float() - data[clip, step - 1].float()) * follows
        torch.testing.assert_close(motion[clip, step], change / 255 * 2)
    torch.testing.assert_close(pictures[0, :3], (data[0, 0].float() / 255 - 0.5) * 4)


def test_only_real_steps_are_read_and_each_lands_in_its_place() -> None:
    seen: list[list[int]] = []
    mask = torch.tensor([[True, False, True], [False, False, True]])

    def network(inputs: torch.Tensor) -> torch.Tensor:
        seen.append(inputs[:, 0].tolist())
        return inputs * 10.0

    out = encode_real(network, lambda at: at[:, None].float(), mask)
    assert seen == [[0.0, 2.0, 5.0]]
    assert out[..., 0].tolist() == [[0.0, 0.0, 20.0], [0.0, 0.0, 50.0]]


@pytest.mark.parametrize("side", [28, 64, 96])
def test_any_size_and_not_only_squares(side: int) -> None:
    data = torch.zeros(1, 2, 3, side, side + 4, dtype=torch.uint8)
    steps = FrameCnn(FrameCnnConfig())(Stream(data, torch.ones(1, 2, dtype=torch.bool), 4.0))
    assert steps.data.shape == (1, 2, 128)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "frame_cnn", "wdith": 3}, "wdith: unknown key .did you mean width"),
        ({"kind": "frame_net"}, "frame_net"),
        ({"kind": "spectrogram_cnn", "rate": 3.0}, "rate: 3 steps a second do not divide"),
        ({"kind": "torchvision_audio", "window_s": 0.1}, "window_s"),
        ({"kind": "precomputed"}, "not a stream of features"),
        ({"kind": "frame_cnn", "channels": []}, "channels"),
    ],
)
def test_wrong_settings_are_one_sentence(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_steps(validate(EncoderConfig, settings, "model.yaml"), None)  # type: ignore[arg-type]
