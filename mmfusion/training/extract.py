"""Steps of frozen encoders, computed once and kept in the cache."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

from accelerate import Accelerator
from torch import nn

from mmfusion.config import to_tree
from mmfusion.data.frozen import cache_features
from mmfusion.data.inputs import FeaturesInput
from mmfusion.model import FusionModel
from mmfusion.training.run import Run
from mmfusion.training.setup import Material
from mmfusion.types import InputError, Stream


def extract_frozen(model: FusionModel, material: Material, run: Run, accelerator: Accelerator, quiet: bool) -> Material:
    """The material in which frozen encoders' steps stand ready, and `model` told to read them there.

    Every clip goes once through each frozen encoder; what the cache holds from before, with the same settings and
    weights, is not computed again. InputError when augmentation would make the steps differ from epoch to epoch.
    """
    config = run.config
    if config.data.augment.is_on or config.data.augment.blend.is_on:
        where = run.folder / "config.yaml"
        raise InputError(f"{where}: training.cache_frozen: augmented clips have other steps in every epoch")
    cache = material.cache
    for name, encoder in config.model.encoders.items():
        source = model.inputs[name]
        if not encoder.frozen or isinstance(config.data.inputs[source], FeaturesInput):
            continue
        if source in config.data.modality_dropout:
            where = run.folder / "config.yaml"
            raise InputError(
                f"{where}: training.cache_frozen: {source} is in data.modality_dropout, which needs it raw"
            )
        steps = model.steps_of(name).to(accelerator.device).eval()

        def encode(raw: Stream, steps: nn.Module = steps) -> Stream:
            return steps(raw.to(accelerator.device))

        target = f"{name} steps"
        clips = cache.usable(material.manifest.clips)
        with accelerator.main_process_first():
            cache = cache_features(
                cache, clips, source, encode, _key(to_tree(encoder), steps), target=target, progress=not quiet
            )
        model.read_extracted(name, target)
    return replace(material, cache=cache)


def _key(settings: dict[str, Any], steps: nn.Module) -> str:
    """Names everything that decides an encoder's steps: its settings and a hash of its weights."""
    found = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(steps.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
