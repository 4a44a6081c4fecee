"""A run's model, ready for clips that no manifest knows: what is read of them, and what the model hears and says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmfusion.data.clips import ClipCache
from mmfusion.data.collate import Example, collate
from mmfusion.data.features import read_features
from mmfusion.data.inputs import FeaturesInput, WaveformInput
from mmfusion.data.manifest import read_manifest
from mmfusion.data.raw import Raw
from mmfusion.data.reading import layout, read_raw
from mmfusion.data.scaling import Scaling, gather_scaling, scale
from mmfusion.heads.caption import CaptionConfig
from mmfusion.heads.labels import LabelsConfig
from mmfusion.language.search import search
from mmfusion.model import FusionModel, build_model
from mmfusion.training.checkpoint import fit_weights, load_weights
from mmfusion.training.run import Run
from mmfusion.types import THRESHOLD, Batch, Clip, Facts, InputError, Output, Stream


class Predictor:
    """A run's model, ready for clips that no manifest knows.

    InputError when the run cannot be used, and when it reads features and `features` names none of them; None
    promises clips that name their feature files themselves.
    """

    def __init__(self, run: Run, features: Mapping[str, Path] | None = None) -> None:
        config = run.config
        wanted = [name for name, way in config.data.inputs.items() if isinstance(way, FeaturesInput)]
        for name in features or ():
            if name not in wanted:
                known = f"it reads {', '.join(wanted)}" if wanted else "it reads none"
                raise InputError(f"{run.folder}: {name!r} is no input of precomputed features ({known})")
        if wanted and features is not None and not features:
            what = f"{run.folder}: reads precomputed features ({wanted[0]}), which a media file does not hold"
            raise InputError(f"{what}: give --features {wanted[0]}=FILE.npz")
        if not run.weights.exists():
            raise InputError(f"{run.weights}: no such file; train the run first")
        self.run, self.config, self.vocabulary = run, config, run.vocabulary()
        heads = config.model.heads.items()
        self.label_head = next((name for name, head in heads if isinstance(head, LabelsConfig)), None)
        self.caption_head = next((name for name, head in heads if isinstance(head, CaptionConfig)), None)
        speaking = [name for name, head in heads if isinstance(head, LabelsConfig | CaptionConfig)]
        self.silent_heads = [name for name in speaking if name not in (self.label_head, self.caption_head)]
        tensors = load_weights(run.weights)
        self.stored = run.feature_facts()
        self.widths = _widths(run, tensors, features or {})
        words = self.vocabulary.words if self.vocabulary else ()
        self.facts = Facts(run.labels(), words, self.widths, config.data.num_sources)
        self.thresholds = run.thresholds()
        self.scaling = _scaling(run)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model: FusionModel = build_model(config.model, self.facts)
        fit_weights(self.model, tensors, run.weights)
        self.model.eval().to(self.device)

    @property
    def sounds(self) -> list[str]:
        """The inputs that are sound: waveforms, and features that are called audio."""
        inputs = self.config.data.inputs.items()
        return [name for name, way in inputs if isinstance(way, WaveformInput) or name == "audio"]

    def decided(self, chances: Mapping[str, float], by_tuned: bool = True) -> list[str]:
        """The classes of {class: probability} that are there: the likeliest, or all that reach their thresholds.

        Without `by_tuned` the threshold is 0.5 whatever was tuned.
        """
        head = self.config.model.heads[self.label_head] if self.label_head else None
        if isinstance(head, LabelsConfig) and head.scored_as == "single":
            return [max(chances, key=chances.__getitem__)]
        tuned = self.thresholds.get(self.label_head or "", {}) if by_tuned else {}
        return [name for name, chance in chances.items() if chance >= tuned.get(name, THRESHOLD)]

    def media_of(self, path: Path | None, features: Mapping[str, Path]) -> dict[str, str]:
        """What a manifest would say of the file: the one file for all media, and the feature files."""
        media = {} if path is None else {"audio": str(path), "video": str(path)}
        for name, way in self.config.data.inputs.items():
            key = way.source or name
            if not isinstance(way, FeaturesInput):
                media |= {key: str(path)} if path is not None else {}
            elif name in features:
                media[key] = str(features[name])
            else:
                media.pop(key, None)
        return media

    def read(self, clip: Clip, only: Sequence[str] | None = None) -> tuple[dict[str, Raw], list[str]]:
        """The inputs (or only some) that the clip has, and why others that it should have could not be read."""
        found: dict[str, Raw] = {}
        warnings: list[str] = []
        end_s = clip.start_s + self.config.data.max_duration_s if clip.end_s is None else clip.end_s
        for name, way in self.config.data.inputs.items():
            media = clip.media.get(way.source or name)
            if media is None or (only is not None and name not in only):
                continue
            try:
                raw = read_raw(Path(media), way, clip.start_s, end_s)
            except InputError as error:
                warnings.append(f"{name}: {error}")
                continue
            if raw is not None:
                found[name] = scale(raw, way, self.scaling.get(name)) if isinstance(way, FeaturesInput) else raw
                warnings += [f"{name}: read in part: {raw.flaw}"] if raw.flaw else []
        return found, warnings

    def batch(self, inputs: Mapping[str, Raw]) -> Batch:
        """A batch of one clip; what it does not have is masked."""
        layouts = {
            name: layout(way, self.widths.get(name), self.stored.get(name, {}).get("rate"))
            for name, way in self.config.data.inputs.items()
        }
        return collate([Example("clip", inputs, layouts)]).to(self.device)

    def captions(self, fused: dict[str, Stream]) -> list[tuple[str, float]]:
        """The search's n best captions with their scores, the best first."""
        if self.caption_head is None or self.vocabulary is None:
            return []
        found = search(self.model.steppers[self.caption_head], fused, self.config.search)[0]
        return [(self.vocabulary.decode(one.words), one.score) for one in found]

    def hear(self, inputs: Mapping[str, Raw]) -> dict[str, float] | None:
        """{label: probability} from the sound alone, all else masked; None where there is no sound."""
        sound = {name: raw for name, raw in inputs.items() if name in self.sounds}
        if not sound or self.label_head is None:
            return None
        with torch.inference_mode():
            output = self.model(self.batch(sound))[self.label_head]
        assert isinstance(output, Output)
        return dict(zip(self.facts.labels, output.log_probs().exp()[0].tolist(), strict=True))


def _widths(run: Run, tensors: Mapping[str, Tensor], features: Mapping[str, Path]) -> dict[str, int]:
    """Features a step of each feature input: as training or the weights have it, else as the files have it."""
    widths = {name: facts["width"] for name, facts in run.feature_facts().items()}
    readers = {encoder.input or name: name for name, encoder in run.config.model.encoders.items()}
    for name, way in run.config.data.inputs.items():
        if not isinstance(way, FeaturesInput):
            continue
        own = {key: value for key, value in tensors.items() if key.startswith(f"encoders.{readers.get(name)}.")}
        for ending in ("norm.weight", "project.weight", "lstm.weight_ih_l0"):
            found = [int(value.shape[-1]) for key, value in own.items() if key.endswith(ending)]
            if found and name not in widths:
                widths[name] = found[0]
        if name not in widths:
            if name not in features:
                raise InputError(
                    f"{run.folder}: how many features {name} has is not known: give --features {name}=FILE.npz"
                )
            widths[name] = read_features(features[name])[0].shape[1]
    return widths


def _scaling(run: Run) -> dict[str, Scaling]:
    """The statistics of the training split, where an input is standardized by them; they are in the run's cache."""
    config = run.config.data
    if not any(isinstance(way, FeaturesInput) and way.standardize for way in config.inputs.values()):
        return {}
    return gather_scaling(ClipCache(read_manifest(config.manifest), config), config)
