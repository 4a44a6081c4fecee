"""The one door to Hugging Face transformers for encoders: a network and its own input settings, by name or folder."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from mmfusion.types import InputError

Weights = Literal["pretrained", "none"]


def load_transformer(model: str, weights: Weights) -> tuple[nn.Module, Any]:
    """The network without a task head, and its transformers configuration.

    `model` is a name on the hub or a local folder. "none" takes the architecture only, with random weights. Of a model
    of pictures and text, the picture half. Raises InputError when it cannot be had or when weights are missing in it.
    """
    import transformers

    try:
        if weights == "none":
            network = transformers.AutoModel.from_config(transformers.AutoConfig.from_pretrained(model))
        else:
            network, found = transformers.AutoModel.from_pretrained(model, output_loading_info=True)
            # Poolers are commonly left out of checkpoints, and are used only when asked for.
            missing = sorted(name for name in found["missing_keys"] if "pooler" not in name)
            if missing:
                raise InputError(f"{model}: the checkpoint holds no {missing[0]}, which the model needs")
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{model}: cannot be loaded by transformers: {_first_line(error)}") from error
    if hasattr(network, "vision_model"):
        network = network.vision_model
    return network, network.config


def load_input_settings(model: str) -> dict[str, Any]:
    """What the model's preprocessor_config.json says (mean, deviation, sample rate ...); {} when it has none."""
    from transformers.feature_extraction_utils import FeatureExtractionMixin

    try:
        return FeatureExtractionMixin.get_feature_extractor_dict(model)[0]
    except (OSError, ValueError):
        return {}


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
