from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model

from mmfusion.encoders.cnn import load_image_network
from mmfusion.types import InputError

WIDTHS = {
    "resnet18": 512,
    "mobilenet_v3_small": 1024,
    "efficientnet_b0": 1280,
    "convnext_tiny": 768,
    "squeezenet1_1": 512,
    "shufflenet_v2_x0_5": 1024,
    "mnasnet0_5": 1280,
}


@pytest.mark.parametrize("name", WIDTHS)
@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_any_classifier_gives_features(name: str, channels: int) -> None:
    network, width = load_image_network(name, "none", channels)
    assert width == WIDTHS[name]
    assert network.eval()(torch.randn(2, channels, 64, 64)).shape == (2, width)


@torch.no_grad()
def test_vgg_gives_its_last_hidden_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    for init in ("kaiming_normal_", "normal_"):  # half a gigabyte of random numbers that nothing here looks at
        monkeypatch.setattr(torch.nn.init, init, lambda tensor, *args, **kwargs: tensor)
    network, width = load_image_network("vgg11", "none")
    assert width == 4096 and network.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 4096)


@pytest.fixture(scope="module")
def classifier() -> torch.nn.Module:
    torch.manual_seed(0)
    return get_model("squeezenet1_1", num_classes=7).eval()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@torch.no_grad()
def test_local_weights_are_used(suffix: str, classifier: torch.nn.Module, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    (torch.save if suffix == ".pth" else save_file)(classifier.state_dict(), path)
    network = load_image_network("squeezenet1_1", str(path))[0].eval()
    pictures = torch.randn(2, 3, 64, 64)
    expected = classifier.features(pictures).relu().mean((2, 3))  # type: ignore[operator]
    torch.testing.assert_close(network(pictures), expected, rtol=1e-4, atol=1e-5)
    grey = load_image_network("squeezenet1_1", str(path), channels=1)[0].eval()
    torch.testing.assert_close(grey(pictures[:, :1]), network(pictures[:, :1].expand(-1, 3, -1, -1)))


class Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("this must never run",))


def test_unusable_weights_are_one_sentence(
    classifier: torch.nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = classifier.state_dict()
    first = next(iter(good))
    contents = {
        "code.pth": (good | {"extra": Code()}, "refused"),
        "list.pth": ([1, 2], "named tensors"),
        "shape.pth": (good | {first: good[first][:5]}, f"{first} has shape"),
        "less.pth": ({key: value for key, value in good.items() if key != first}, f"no tensor {first}"),
        "more.pth": (good | {"other": torch.zeros(1)}, "holds other"),
    }
    for name, (content, _) in contents.items():
        torch.save(content, tmp_path / name)
    said = {name: message for name, (_, message) in contents.items()}
    for name in ("broken.pth", "broken.safetensors", "empty.pt"):
        (tmp_path / name).write_bytes(b"" if "empty" in name else b"neither one nor the other" * 9)
        said[name] = "damaged|not a readable"
    for name, message in {**said, "absent.pth": "no such"}.items():
        with pytest.raises(InputError, match=message) as caught:
            load_image_network("squeezenet1_1", str(tmp_path / name))
        assert name in str(caught.value) and "\n" not in str(caught.value)
    assert "never run" not in capsys.readouterr().out


def test_wrong_names_are_input_errors() -> None:
    with pytest.raises(InputError, match="did you mean resnet18"):
        load_image_network("resnet81", "none")
    with pytest.raises(InputError, match="IMAGENET1K_V1"):
        load_image_network("resnet18", "IMAGENET2K")
