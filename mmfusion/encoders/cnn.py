"""torchvision's image classifiers by name, as feature extractors."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmfusion.types import InputError, did_you_mean

FILES = (".pth", ".pt", ".bin", ".safetensors")


class ImageNetwork(nn.Module):
    """A classifier without its last layer: pictures (M, channels, H, W) float -> (M, width)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, pictures: Tensor) -> Tensor:
        features = self.body(pictures.contiguous(memory_format=torch.channels_last))
        # Inception and GoogLeNet answer with a tuple in training; the first entry is the network's own.
        features = features if isinstance(features, Tensor) else features[0]
        return features.flatten(1)


def load_image_network(model: str, weights: str, channels: int = 3) -> tuple[ImageNetwork, int]:
    """torchvision's `model` without its classifier, and the width of what comes out.

    `weights` is "none", one of torchvision's names, or a local file of tensors (never of code). With `channels=1` the
    first convolution's weights are summed over red, green and blue, so a grey picture is seen as before. Raises
    InputError.
    """
    body = _build(model, weights)
    head, width = _cut_classifier(body, model)
    if weights.endswith(FILES):
        load_weights(body, Path(weights), skip=head)
    if channels != 3:
        _replace_first_conv(body, channels)
    return ImageNetwork(body).to(memory_format=torch.channels_last), width  # type: ignore[call-overload]


def _build(model: str, weights: str) -> nn.Module:
    import torchvision.models as zoo

    names = zoo.list_models(module=zoo)
    if model not in names:
        raise InputError(f"model: torchvision has no {model!r}{did_you_mean(model, names)}")
    if weights == "none" or weights.endswith(FILES):
        options = {"init_weights": True} if model in ("googlenet", "inception_v3") else {}
        return zoo.get_model(model, weights=None, **options)
    known = zoo.get_model_weights(model)
    if weights not in known.__members__:
        valid = ", ".join(["none", *known.__members__, "a file " + " ".join(FILES)])
        raise InputError(f"weights: torchvision's {model} has no {weights!r} (valid: {valid})")
    try:
        return zoo.get_model(model, weights=known[weights], progress=False)
    except (OSError, RuntimeError) as error:
        raise InputError(f"weights: {weights} of {model} could not be fetched: {error}") from error


def _cut_classifier(body: nn.Module, model: str) -> tuple[str, int]:
    """Replaces the last linear layer, or else the last convolution, by nothing; returns its name and its width."""
    for kind in (nn.Linear, nn.Conv2d):
        found = [(name, module) for name, module in body.named_modules() if isinstance(module, kind)]
        if found:
            name, module = found[-1]
            _put(body, name, nn.Identity())
            return name, module.in_features if isinstance(module, nn.Linear) else module.in_channels
    raise InputError(f"model: {model!r} has no layer that could be its classifier")


def _replace_first_conv(body: nn.Module, channels: int) -> None:
    name, old = next((name, module) for name, module in body.named_modules() if isinstance(module, nn.Conv2d))
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        old.dilation,  # type: ignore[arg-type]
        bias=old.bias is not None,
        padding_mode=old.padding_mode,
    )
    with torch.no_grad():
        new.weight.copy_(old.weight.sum(1, keepdim=True).expand_as(new.weight) / channels)
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    _put(body, name, new)
    if hasattr(body, "transform_input"):
        body.transform_input = False  # type: ignore[assignment] # would pick red, green and blue apart


def _put(body: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(body.get_submodule(parent), child, module)


def load_weights(body: nn.Module, path: Path, skip: str) -> None:
    """Loads a file of tensors into `body`, leaving out the layer named `skip`; InputError names the file."""
    tensors = {name.removeprefix("module."): value for name, value in read_tensors(path).items()}
    tensors = {name: value for name, value in tensors.items() if not name.startswith(skip + ".")}
    expected = body.state_dict()
    for name, value in expected.items():
        if name not in tensors and not name.endswith("num_batches_tracked"):
            raise InputError(f"{path}: holds no tensor {name}, which the model needs")
        if name in tensors and tensors[name].shape != value.shape:
            given, needed = tuple(tensors[name].shape), tuple(value.shape)
            raise InputError(f"{path}: {name} has shape {given}, the model needs {needed}")
    unknown = sorted(tensors.keys() - expected.keys())
    if unknown:
        raise InputError(f"{path}: holds {unknown[0]}, which the model does not have")
    body.load_state_dict(tensors, strict=False)


def read_tensors(path: Path) -> Mapping[str, Tensor]:
    """Name -> tensor from a .safetensors or .pth file. A file that would run code is refused with InputError."""
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: refused, it is damaged or holds code (pickled objects), not only tensors") from error
    except Exception as error:  # a damaged file can break either reader in any way
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(f"{path}: not a readable weights file: {reason}") from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"{path}: does not hold named tensors")
    return content
