"""The model: encode each modality, fuse, apply each head.

`ModelConfig` says what to build; facts about the data (class names, words, feature widths) come in as values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, cast

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from mmfusion.config import configclass
from mmfusion.encoders.build import EncoderConfig, build_steps
from mmfusion.encoders.recurrent import Recurrent, RecurrentConfig
from mmfusion.fusion.build import FusionConfig, build_fusion
from mmfusion.fusion.late import LateConfig, Mix, MixConfig
from mmfusion.fusion.weights import FixedWeights, TunedWeights
from mmfusion.heads.caption import CaptionConfig, CaptionHead
from mmfusion.heads.labels import LabelHead, LabelsConfig
from mmfusion.heads.separation import ConvTasNetConfig, MaskConfig, SeparationConfig
from mmfusion.heads.separation_build import build_separation
from mmfusion.language.causal import load_causal
from mmfusion.language.fused import (
    DeepLanguage,
    DeepLanguageConfig,
    EarlyLanguageConfig,
    LanguageConfig,
    LanguageMember,
    LateLanguageConfig,
    begin_as,
    embed,
    train_only_joins,
)
from mmfusion.language.lm import LanguageModel, load_language_model
from mmfusion.language.vectors import VectorsConfig
from mmfusion.language.vocab import Vocabulary
from mmfusion.types import (
    Batch,
    Decision,
    Facts,
    Head,
    InputError,
    Output,
    Separated,
    Separator,
    Stepper,
    Stream,
    Targets,
)

HeadConfig = Annotated[LabelsConfig | CaptionConfig | MaskConfig | ConvTasNetConfig, Field(discriminator="kind")]
# Names become parts of dotted names (weights, figures), and heads keys of a row of predictions and of metrics.
StreamName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$")]
_TAKEN = ("id", "truth", "activity", "windows", "split", "clips", "num_clips", "manifest", "unscored", "loss", "lr")


@configclass
class ModelConfig:
    """Named encoders, one fusion, named heads."""

    encoders: dict[StreamName, EncoderConfig] = Field(min_length=1)
    """one a stream; the key is the stream's name"""
    recurrent: RecurrentConfig | None = None
    """the LSTM: behind the join for early fusion, one a modality otherwise; null leaves it out"""
    fusion: FusionConfig
    heads: dict[StreamName, HeadConfig] = Field(min_length=1)
    """the key is the head's name in predictions and figures"""
    language: LanguageConfig | None = None
    """a language model, fused into every caption head"""
    vectors: VectorsConfig | None = None
    """word vectors (GloVe) for the embedding of every caption head"""

    @field_validator("heads")
    @classmethod
    def _names_free(cls, heads: dict[str, HeadConfig]) -> dict[str, HeadConfig]:
        for name in heads:
            if name in _TAKEN:
                raise ValueError(f"a head cannot be called {name!r}, which has a meaning in predictions or metrics")
        return heads

    @model_validator(mode="after")
    def _one_first_embedding(self) -> Any:
        if self.vectors is not None and isinstance(self.language, EarlyLanguageConfig):
            raise ValueError("vectors: early language fusion already gives the embedding its first weights")
        return self


class FusionModel(nn.Module):
    """Encoders, a fusion, and heads over what the fusion gives.

    `inputs` maps each encoder's name to the input stream that it reads.
    """

    def __init__(self, encoders: Mapping[str, nn.Module], inputs: Mapping[str, str], fusion: nn.Module,
                 heads: Mapping[str, nn.Module], loss_weights: Mapping[str, float]) -> None:  # fmt: skip
        super().__init__()
        self.encoders = nn.ModuleDict(encoders)
        self._readers: dict[str, nn.Module] = dict(encoders)
        self.fusion = fusion
        self.heads = nn.ModuleDict(heads)
        self.inputs = dict(inputs)
        self.loss_weights = dict(loss_weights)

    def forward(self, batch: Batch) -> dict[str, Decision]:
        """The output of every head, by the head's name."""
        streams = self.encode(batch)
        fused = self.fusion(streams)
        return self.decide(fused, batch)

    def encode(self, batch: Batch) -> dict[str, Stream]:
        """One stream a modality."""
        return {name: encoder(batch.inputs[self.inputs[name]]) for name, encoder in self._readers.items()}

    def steps_of(self, name: str) -> nn.Module:
        """The part of an encoder that turns raw input into steps, before any recurrent network."""
        encoder = self.encoders[name]
        return encoder[0] if isinstance(encoder, nn.Sequential) else encoder

    def read_extracted(self, name: str, source: str) -> None:
        """From now on takes an encoder's steps ready-made from the input `source`; its weights stay in the model."""
        encoder = self.encoders[name]
        self._readers[name] = encoder[1:] if isinstance(encoder, nn.Sequential) else nn.Identity()
        self.inputs[name] = source

    def decide(self, fused: Mapping[str, Stream], batch: Batch) -> dict[str, Decision]:
        """Each head's output; heads that say words are left out when there are no words to follow."""
        silent = () if batch.targets.words is not None else self.steppers
        return {name: _decision(head, fused, batch) for name, head in self.heads.items() if name not in silent}

    def loss(self, outputs: Mapping[str, Decision], targets: Targets) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the heads' losses; and each head's own `<head>.loss` before weighting, with the figures
        that it tells beside it (float32 scalars).
        """
        told = {name: _loss(self.heads[name], output, targets) for name, output in outputs.items()}
        total = torch.stack([self.loss_weights[name] * loss for name, (loss, _) in told.items()]).sum()
        figures = {f"{name}.loss": loss for name, (loss, _) in told.items()}
        return total, figures | {f"{name}.{key}": v for name, (_, more) in told.items() for key, v in more.items()}

    def as_sources(self, outputs: Mapping[str, Decision], targets: Targets) -> dict[str, Separated]:
        """What each separation head's output is scored as."""
        heads = {name: head for name, head in self.heads.items() if isinstance(head, Separator) and name in outputs}
        return {name: head.as_sources(cast(Separated, outputs[name]), targets) for name, head in heads.items()}

    @property
    def steppers(self) -> dict[str, Stepper]:
        """The heads that say words, by name."""
        return {name: head for name, head in self.heads.items() if isinstance(head, Mix) and head.speaks}


def _decision(head: nn.Module, fused: Mapping[str, Stream], batch: Batch) -> Decision:
    if isinstance(head, Separator):
        (stream,) = fused.values()
        return head(stream, batch.inputs[head.reads])
    return head(fused, batch.targets)


def _loss(head: nn.Module, output: Decision, targets: Targets) -> tuple[Tensor, dict[str, Tensor]]:
    """A head's loss, and what else it tells."""
    if isinstance(head, Separator):
        return head.told_loss(cast(Separated, output), targets)
    return cast(Head, head).loss(cast(Output, output), targets), {}


def build_model(config: ModelConfig, facts: Facts) -> FusionModel:
    """A new model with random (or, where the encoders say so, pre-trained) weights.

    Raises InputError for a combination that makes no sense, naming the field.
    """
    inputs = {name: encoder.input or name for name, encoder in config.encoders.items()}
    steps = {name: build_steps(encoder, facts.widths.get(inputs[name])) for name, encoder in config.encoders.items()}
    recurrent = config.recurrent and partial(Recurrent, config=config.recurrent)
    joins_steps = config.fusion.depth == "early"
    encoders = steps if joins_steps else {name: _stacked(step, recurrent) for name, step in steps.items()}
    fusion = build_fusion(config.fusion, {name: _width(module) for name, module in encoders.items()}, recurrent)
    rule = config.fusion.mix if isinstance(config.fusion, LateConfig) else None
    heads: dict[str, nn.Module] = {}
    for name, head in config.heads.items():
        if isinstance(head, SeparationConfig):
            heads[name] = _separator(name, head, fusion.widths, facts)
            continue
        members = {stream: _head(head, width, facts, config) for stream, width in fusion.widths.items()}
        heads[name] = _with_member(Mix(members, rule), config.language, facts)
    model = FusionModel(
        encoders, inputs, fusion, heads, {name: head.loss_weight for name, head in config.heads.items()}
    )
    if isinstance(config.language, DeepLanguageConfig) and config.language.freeze_captioner:
        for step in steps.values():
            step.freeze()
        train_only_joins(model)
    return model


def _stacked(steps: nn.Module, recurrent: Callable[[int], nn.Module] | None) -> nn.Module:
    return steps if recurrent is None else nn.Sequential(steps, recurrent(_width(steps)))


def _width(encoder: nn.Module) -> int:
    last = encoder[-1] if isinstance(encoder, nn.Sequential) else encoder
    return int(last.width)  # type: ignore[arg-type]


def _head(config: LabelsConfig | CaptionConfig, width: int, facts: Facts, model: ModelConfig) -> nn.Module:
    if isinstance(config, CaptionConfig):
        if not facts.words:
            raise InputError("model.heads: a caption head needs captions, and the manifest's training split has none")
        captioner = CaptionHead(config, width, len(facts.words))
        if model.vectors is not None:
            embed(captioner.embedding, model.vectors, facts.words)
        if isinstance(model.language, EarlyLanguageConfig):
            begin_as(captioner, _language_model(model.language, facts))
        elif isinstance(model.language, DeepLanguageConfig):
            return DeepLanguage(captioner, _language_model(model.language, facts), model.language)
        return captioner
    if not facts.labels:
        raise InputError("model.heads: a label head needs labels, and the manifest has none")
    return LabelHead(config, width, len(facts.labels))


def _separator(name: str, config: SeparationConfig, widths: Mapping[str, int], facts: Facts) -> nn.Module:
    """A separation head on the one stream that the fusion gives."""
    if len(widths) != 1:
        raise InputError(f"model.heads.{name}: separated signals are not mixed, so fusion.depth: late is not for them")
    if not facts.num_sources and config.num_outputs is None:
        without = "there are none without data.mixture or data.stored_sources"
        raise InputError(f"model.heads.{name}: separation is learnt from mixtures, and {without}")
    try:
        return build_separation(config, next(iter(widths.values())), facts.num_sources, len(facts.labels))
    except InputError as error:
        raise InputError(f"model.heads.{name}.{error}") from error


def _with_member(head: Mix, config: LanguageConfig | None, facts: Facts) -> Mix:
    """The head with a language model as one more member, where late fusion asks for it and the head says words."""
    if not isinstance(config, LateLanguageConfig) or not head.speaks:
        return head
    if config.weight == "tuned":
        weights: FixedWeights | TunedWeights = TunedWeights()
    else:
        weights = FixedWeights(values={"captioner": 1 - config.weight, "language": config.weight})
    if config.source == "transformers":
        member = LanguageMember(load_causal(config.model, Vocabulary(facts.words)))
    else:
        member = LanguageMember(_language_model(config, facts))
    return Mix({"captioner": head, "language": member}, MixConfig(rule=config.rule, weights=weights))


def _language_model(config: LanguageConfig, facts: Facts) -> LanguageModel:
    model, vocabulary = load_language_model(config.model)
    if vocabulary.words != facts.words:
        raise InputError(
            f"language.model: {config.model} was trained on another vocabulary ({len(vocabulary)} words) "
            f"than this run's ({len(facts.words)}); give both the same captions and min_count"
        )
    return model
