"""A run: its configuration, its folder, and what is kept there so that its numbers can be trusted later.

runs/<name>/seed<k>/
    config.yaml         the resolved configuration
    provenance.json     git commit, package versions, hashes of the data, hardware, parameters, training time
    labels.json         class names in the model's order
    vocabulary.json     words in the model's order (only when a head says words)
    left_out.json       clips that no mixture is made of, by reason (with `data.mixture`), or mixtures without all of
                        their sources (with `data.stored_sources`)
    metrics.csv         every figure of the training, one row an update or epoch; tensorboard/ holds the same
    checkpoint-<n>.<e>/ the state after n updates, in epoch e, to resume from
    weights.safetensors the weights to use: the best ones by `training.select`, else the last
    thresholds.json     {label head: {class: probability}} from which a class is decided, where tuned on validation;
                        "activity" has those of single seconds
    predictions.<split>.jsonl, metrics.<split>.json     written by `evaluate`
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from filelock import FileLock, Timeout
from pydantic import Field, model_validator

from mmfusion.activity import EventsConfig
from mmfusion.config import configclass, load, save, to_tree
from mmfusion.data.inputs import DataConfig, WaveformInput
from mmfusion.data.sampler import Sampling
from mmfusion.data.windows import WindowsConfig
from mmfusion.encoders.build import SpectralConfig
from mmfusion.heads.caption import CaptionConfig
from mmfusion.heads.labels import LabelsConfig
from mmfusion.heads.separation import MaskConfig, SeparationConfig
from mmfusion.language.causal import TokenVocabulary, load_tokenizer
from mmfusion.language.search import BeamConfig, SearchConfig
from mmfusion.language.vocab import Vocabulary
from mmfusion.model import ModelConfig
from mmfusion.training.optimise import OptimiserConfig, ScheduleConfig
from mmfusion.types import InputError

# Settings that change how fast a run goes and nothing that it computes: they may differ when it is taken up again.
HARMLESS = (
    "data.workers", "data.cache", "data.cache_workers", "data.in_memory", "data.retry_failed",
    "training.checkpoint_every", "training.keep_state",
)  # fmt: skip


# What is computed from a run's weights, and so belongs to no other weights.
RESULTS = ("metrics.*.json", "predictions.*.jsonl", "grounding.json", "grounding.*.json")
THRESHOLDS, FEATURES, TRAINING_CLIPS = BEGUN = "thresholds.json", "features.json", "training_clips.json"


@configclass
class VocabularyConfig:
    """Which words of the training captions a caption head can say."""

    min_count: int = Field(default=1, ge=1)
    """a word that occurs less often is <unk>"""
    max_words: int = Field(default=20, ge=1)
    """longer training captions are cut"""
    tokenizer: str | None = None
    """transformers tokenizer (folder or name on its hub) whose tokens are the words: those in the training captions"""

    @model_validator(mode="after")
    def _tokens_are_all_kept(self) -> Any:
        if self.tokenizer is not None and self.min_count > 1:
            raise ValueError("min_count is for words, and a tokenizer's tokens are all kept")
        return self

    def build(self, captions: Iterable[str]) -> Vocabulary:
        """The vocabulary of these captions. InputError when the tokenizer cannot be had."""
        if self.tokenizer is None:
            return Vocabulary.build(captions, self.min_count)
        return TokenVocabulary.of(load_tokenizer(self.tokenizer), captions)

    def load(self, path: Path) -> Vocabulary:
        """What a run of these settings saved."""
        found = Vocabulary.load(path)
        return found if self.tokenizer is None else TokenVocabulary(found.words, load_tokenizer(self.tokenizer))


@configclass
class TrainingConfig:
    """How a model is trained; one update is one optimiser step over `batch_size * accumulate` clips a process."""

    epochs: int = Field(default=10, ge=0)
    batch_size: int = Field(default=32, ge=1)
    accumulate: int = Field(default=1, ge=1)
    """batches whose gradients are summed into one update"""
    sampling: Sampling = "shuffled"
    """shuffled: every clip once an epoch; balanced: every class equally often, rare ones again and again"""
    optimiser: OptimiserConfig = OptimiserConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    clip_norm: float | None = Field(default=5.0, gt=0)
    """largest gradient norm; null leaves gradients as they are"""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """of matrix products and convolutions in training; evaluation is always in float32"""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """decay an update of the averaged weights that are evaluated and kept; null uses the weights themselves"""
    select: str | None = None
    """validation figure that picks the epoch to keep, such as labels.map or loss; null keeps the last epoch"""
    patience: int | None = Field(default=None, ge=1)
    """epochs without a better `select` figure before training stops; null trains to the end"""
    validate_every: int = Field(default=1, ge=1)
    """epochs between two validations; the last epoch is always validated"""
    validate_captions: bool = False
    """generate and score captions at every validation (needs Java); the caption loss is always reported"""
    checkpoint_every: int | None = Field(default=None, ge=1)
    """updates between two checkpoints; null writes one at the end of each epoch"""
    parts_from: dict[str, str] = Field(default_factory=dict)
    """stream name -> run folder whose encoder and head weights this stream starts from"""
    start_from: str | None = None
    """run folder whose weights this run starts from, instead of `parts_from`; a language model may be fused into it"""
    cache_frozen: bool = False
    """compute the steps of frozen encoders once, keep them in the cache, and train from there (no augmentation)"""
    tensorboard: bool = True
    keep_state: bool = True
    """keep the last checkpoint of a finished run (optimiser state included), not only its weights"""


@configclass
class RunConfig:
    """Everything that decides a run."""

    name: str = Field(pattern=r"^[\w.+-]+$")
    seed: int = Field(default=0, ge=0, lt=2**32)
    runs: str = "runs"
    """folder of all runs"""
    data: DataConfig
    model: ModelConfig
    vocabulary: VocabularyConfig = VocabularyConfig()
    search: SearchConfig = Field(default_factory=BeamConfig)
    windows: WindowsConfig | None = None
    """evaluate and predict long clips in windows (label heads only); null sees the first `data.max_duration_s`"""
    events: EventsConfig = EventsConfig()
    """what heads with per_second hear, as events"""
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _parts_fit(self) -> Any:
        for name, encoder in self.model.encoders.items():
            source = encoder.input or name
            if source not in self.data.inputs:
                known = ", ".join(self.data.inputs)
                raise ValueError(f"model.encoders.{name} reads the input {source!r}, and data.inputs has {known}")
        _check_sounds(self.data, self.model)
        if self.training.start_from and self.training.parts_from:
            raise ValueError("training.start_from takes all weights from one run, and parts_from some from others")
        if self.training.patience is not None and self.training.select is None:
            raise ValueError("training.patience needs training.select, the figure that has to get better")
        speaks = any(isinstance(head, CaptionConfig) for head in self.model.heads.values())
        if speaks and self.data.augment.blend.is_on:
            raise ValueError(
                "data.augment.blend mixes clips, and a caption head would hear what its caption leaves out"
            )
        in_seconds = any(getattr(head, "per_second", False) for head in self.model.heads.values())
        if self.events != EventsConfig() and not in_seconds:
            raise ValueError("events are those of label heads with per_second, and there is none")
        if speaks and self.windows is not None:
            raise ValueError("windows are for label heads: the sentences of windows are no sentence about the clip")
        source = getattr(self.model.language, "source", "run")
        if source == "transformers" and self.vocabulary.tokenizer is None:
            raise ValueError("model.language.source: transformers needs vocabulary.tokenizer, the tokens to be said")
        return self

    @model_validator(mode="after")
    def _mixtures_fit(self) -> Any:
        if not self.data.num_sources:
            return self
        for name, head in self.model.heads.items():
            if head.kind == "caption" or getattr(head, "target", None) == "single":
                raise ValueError(f"model.heads.{name}: a mixture has several classes and no captions")
            if getattr(head, "by_class", False) and self.data.mixture and self.data.mixture.sources == "recordings":
                raise ValueError(f"model.heads.{name}.by_class: of mixed recordings no classes are known")
        if self.windows is not None:
            raise ValueError("windows: mixtures (data.mixture, data.stored_sources) are taken whole")
        if self.training.sampling == "balanced" and self.data.mixture is not None:
            raise ValueError("training.sampling: the classes of mixtures (data.mixture) are drawn uniformly already")
        if self.training.cache_frozen:
            raise ValueError("training.cache_frozen: mixtures are needed raw, beside their sources")
        return self

    @property
    def tuned_heads(self) -> list[str]:
        """The label heads whose thresholds are tuned on validation."""
        heads = self.model.heads.items()
        return [name for name, head in heads if isinstance(head, LabelsConfig) and head.thresholds == "tuned"]

    @property
    def folder(self) -> Path:
        return Path(self.runs) / self.name / f"seed{self.seed}"


def _check_sounds(data: DataConfig, model: ModelConfig) -> None:
    """What separates, and what takes spectra, reads a sound, at the sample rate that it is set to. ValueError."""
    heads = {name: head for name, head in model.heads.items() if isinstance(head, SeparationConfig)}
    encoders = {name: own for name, own in model.encoders.items() if isinstance(own, SpectralConfig)}
    read = {f"heads.{name}.input": head.input for name, head in heads.items()}
    read |= {f"encoders.{name}.input": encoder.input or name for name, encoder in encoders.items()}
    for where, source in read.items():
        if not isinstance(data.inputs.get(source), WaveformInput):
            raise ValueError(f"model.{where}: {source!r} is no sound among data.inputs")
    stfts = [(f"heads.{name}", head.input, head.stft) for name, head in heads.items() if isinstance(head, MaskConfig)]
    stfts += [(f"encoders.{name}.spectra", own.input or name, own.spectra.stft) for name, own in encoders.items()]
    for where, source, stft in stfts:
        rate = cast(WaveformInput, data.inputs[source]).sample_rate_hz
        if rate != stft.sample_rate_hz:
            raise ValueError(f"model.{where}.stft.sample_rate_hz is {stft.sample_rate_hz}, and {source!r} is at {rate}")


@dataclass(frozen=True)
class Run:
    """An opened run folder."""

    folder: Path
    config: RunConfig

    @classmethod
    def begun(cls, config: RunConfig) -> Run | None:
        """The run when something was trained in its folder, else None. InputError when that has other settings."""
        folder = config.folder
        path = folder / "config.yaml"
        if not (path.exists() and (any(folder.glob("checkpoint-*")) or (folder / "weights.safetensors").exists())):
            return None
        difference = first_difference(to_tree(load(type(config), path)), to_tree(config))
        if difference:
            raise InputError(f"{path}: {difference}; give the run another name or delete its folder")
        return cls(folder, config)

    @classmethod
    def create(cls, config: RunConfig) -> Run:
        """The run's folder, made if need be; who trains in it holds its lock. InputError as of `begun`."""
        folder = config.folder
        path, there = folder / "config.yaml", cls.begun(config)
        if there is not None:
            return there
        # Nothing was trained here yet: what an attempt with other settings left behind must not decide anything.
        folder.mkdir(parents=True, exist_ok=True)
        run = cls(folder, config)
        run.forget("labels.json", "vocabulary.json", "finished.json", "provenance.json", *BEGUN, *RESULTS)
        part = folder / f"config.yaml.part{os.getpid()}"
        save(config, part)
        os.replace(part, path)
        return run

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """An existing run. InputError when the folder does not hold one."""
        folder = Path(folder)
        if not (folder / "config.yaml").exists():
            raise InputError(f"{folder}: not a run folder (it has no config.yaml)")
        return cls(folder, load(RunConfig, folder / "config.yaml"))

    @property
    def weights(self) -> Path:
        return self.folder / "weights.safetensors"

    @property
    def finished(self) -> bool:
        """True once training has ended and the weights to use are in place."""
        return (self.folder / "finished.json").exists() and self.weights.exists()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second process from training the same run; InputError when one is at it. Ends with the process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / "training.lock", timeout=0):
                yield
        except Timeout as error:
            raise InputError(f"{self.folder}: another process is training this run") from error

    def forget(self, *patterns: str) -> None:
        """Removes files that no longer belong to this run's settings or weights."""
        for pattern in patterns:
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)

    def labels(self) -> tuple[str, ...]:
        """Class names in the model's order."""
        return tuple(self.read_json("labels.json"))

    def feature_facts(self) -> dict[str, dict[str, Any]]:
        """`width` and `rate` of every input of precomputed features, by its name, as they were in training."""
        return self.read_json(FEATURES) if (self.folder / FEATURES).exists() else {}

    def vocabulary(self) -> Vocabulary | None:
        path = self.folder / "vocabulary.json"
        return self.config.vocabulary.load(path) if path.exists() else None

    def thresholds(self) -> dict[str, dict[str, float]]:
        """{label head: {class: probability}} as tuned on validation, {} where none are; InputError without the file."""
        return self.read_json(THRESHOLDS) if self.config.tuned_heads else {}

    def scored(self, split: str) -> bool:
        """True when all figures of a split are there; False where a scorer failed half-way."""
        name = f"metrics.{split}.json"
        return (self.folder / name).exists() and "unscored" not in self.read_json(name)

    def weights_hash(self) -> str:
        """sha256 (hex) of the weights file."""
        return hashlib.sha256(self.weights.read_bytes()).hexdigest()

    def read_json(self, name: str) -> Any:
        path = self.folder / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file (was the run trained?)") from error
        except ValueError as error:
            raise InputError(f"{path}: not readable as JSON: {error}") from error

    def write_json(self, name: str, value: Any) -> Path:
        """Writes the file whole or not at all."""
        path = self.folder / name
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(part, path)
        return path


def is_scored_from(folder: Path, split: str, **facts: Any) -> bool:
    """True when the folder holds figures of the split, and its provenance says these facts."""
    if not (folder / "config.yaml").exists() or not (folder / "provenance.json").exists():
        return False
    run = Run.open(folder)
    told = run.read_json("provenance.json")
    return run.scored(split) and all(told.get(name) == value for name, value in facts.items())


def first_difference(there: Any, here: Any, place: str = "") -> str | None:
    """The first setting that differs between two configurations as trees, in words; None when only harmless ones do."""
    if place in HARMLESS or there == here:
        return None
    if isinstance(there, dict) and isinstance(here, dict):
        for key in {**there, **here}:
            found = first_difference(there.get(key), here.get(key), f"{place}.{key}" if place else str(key))
            if found:
                return found
        return None
    return f"was trained with {place} = {json.dumps(there)}, now asked for {json.dumps(here)}"
