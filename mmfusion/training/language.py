"""Training of a language model: sentences of several sources in, perplexity on a held-out part of each source out.

runs/<name>/seed<k>/
    config.yaml  vocabulary.json  weights.safetensors    what `load_language_model` opens
    metrics.json    of each source's held-out part and of "all" of them: perplexity; num_words (with <eos>) that it was
                    taken over; unk_share, <unk> among the words (without <eos>); num_sentences, also of the other parts
    metrics.csv  provenance.json  finished.json  checkpoint-<n>.<e>/    as for every run; a checkpoint at an epoch's end

Conventions of perplexity are in language/lm.py, those of the held-out part in language/sentences.py. Of a manifest only
the training split can be read. Its held-out captions tell of clips that training captions tell of too, so perplexity on
them flatters: it compares language models, and is no estimate for new clips.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from mmfusion.config import configclass, save
from mmfusion.data.manifest import check_groups, read_manifest
from mmfusion.data.sampler import epoch_order
from mmfusion.language.lm import LanguageModel, LmConfig, load_language_model, pad_sentences, perplexities
from mmfusion.language.sentences import ALL, Corpus, FileSource, divide, read_sentences
from mmfusion.language.vectors import VectorsConfig, read_vectors
from mmfusion.language.vocab import Vocabulary
from mmfusion.training.checkpoint import (
    Progress,
    State,
    load_checkpoint,
    random_state,
    remove_checkpoints,
    save_checkpoint,
    save_weights,
)
from mmfusion.training.log import Log
from mmfusion.training.optimise import (
    OptimiserConfig,
    ScheduleConfig,
    learning_rate_factor,
    make_optimiser,
    num_parameters,
    set_learning_rate,
)
from mmfusion.training.provenance import commit, hardware, versions
from mmfusion.training.run import Run
from mmfusion.types import InputError


@configclass
class ManifestSource:
    """The captions of a manifest's training split; those of another split cannot be had."""

    kind: Literal["manifest"] = "manifest"
    path: str
    split: Literal["train"] = "train"


SourceConfig = Annotated[FileSource | ManifestSource, Field(discriminator="kind")]


@configclass
class LmVocabularyConfig:
    """The words of the decoder that the model is to join: one of `manifest` and `source`, and that decoder's settings.

    All of their training sentences count, the held-out ones too, as they do for the decoder.
    """

    manifest: str | None = None
    """manifest whose training captions hold the words"""
    source: str | None = None
    """name of the source whose sentences hold the words"""
    min_count: int = Field(default=1, ge=1)
    """a word that occurs less often is <unk>"""

    @model_validator(mode="after")
    def _one_place(self) -> Any:
        if (self.manifest is None) == (self.source is None):
            raise ValueError("name either a manifest or a source")
        return self


@configclass
class LmTrainingConfig:
    """How a language model is trained; one update reads `batch_size` sentences of about one length."""

    epochs: int = Field(default=10, ge=0)
    batch_size: int = Field(default=64, ge=1)
    optimiser: OptimiserConfig = OptimiserConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    clip_norm: float | None = Field(default=5.0, gt=0)
    """largest gradient norm; null leaves gradients as they are"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """of the softmax's matrix product in training; all else is float32"""
    select: str | None = None
    """source (or "all") whose held-out perplexity picks the epoch to keep; null keeps the last epoch"""


@configclass
class LmRunConfig:
    """Everything that decides a language model."""

    name: str = Field(pattern=r"^[\w.+-]+$")
    seed: int = Field(default=0, ge=0, lt=2**32)
    runs: str = "runs"
    """folder of all runs"""
    sources: dict[str, SourceConfig] = Field(min_length=1)
    heldout: float = Field(default=0.05, gt=0, lt=1)
    """share of the distinct sentences that perplexity is measured on"""
    max_words: int = Field(default=40, ge=1)
    """longer sentences are left out"""
    vocabulary: LmVocabularyConfig
    model: LmConfig = LmConfig()
    vectors: VectorsConfig | None = None
    """a file of word vectors for the embedding; null learns it from nothing"""
    training: LmTrainingConfig = LmTrainingConfig()

    @model_validator(mode="after")
    def _parts_fit(self) -> Any:
        if ALL in self.sources:
            raise ValueError(f"sources.{ALL}: this name stands for all sources together")
        known = ", ".join(self.sources)
        if self.vocabulary.source not in (None, *self.sources):
            raise ValueError(f"vocabulary.source: no source {self.vocabulary.source!r} (sources: {known})")
        if self.training.select not in (None, ALL, *self.sources):
            raise ValueError(f"training.select: no source {self.training.select!r} (sources: {known}, {ALL})")
        if self.model.tied and self.vectors is not None and self.vectors.use == "frozen":
            raise ValueError("vectors.use: frozen vectors cannot be the softmax's matrix too; use model.tied=false")
        return self

    @property
    def folder(self) -> Path:
        return Path(self.runs) / self.name / f"seed{self.seed}"


def train_lm(config: LmRunConfig, quiet: bool = False) -> Path:
    """Trains into the run's folder and returns it; takes up an interrupted run, leaves a finished one alone.

    Raises InputError for settings or sentences that cannot be used, and KeyboardInterrupt when it is asked to stop;
    what was done since the end of the last epoch is then lost.
    """
    run = Run.begun(config) or Run(config.folder, config)  # type: ignore[arg-type]  # settings of another kind
    if not run.finished:
        with run.locked():
            _open_run(config)
            if not run.finished:
                _Trainer(run, config, quiet).fit()
    return run.folder


def perplexity_table(folder: str | Path) -> str:
    """The figures of a finished run as lines of text, one a source."""
    metrics = Run(Path(folder), None).read_json("metrics.json")  # type: ignore[arg-type]
    lines = [f"{'held-out part of':24}{'sentences':>10}{'words':>10}{'<unk>':>9}{'perplexity':>12}"]
    for name, value in metrics["perplexity"].items():
        sentences, words = metrics["num_sentences"][name]["heldout"], metrics["num_words"][name]
        lines.append(f"{name:24}{sentences:10}{words:10}{metrics['unk_share'][name]:9.2%}{value:12.2f}")
    return "\n".join(lines)


def read_corpus(config: LmRunConfig) -> Corpus:
    """Reads every source. InputError when one cannot be read, or has nothing to train on or to hold out."""
    texts = {name: _read_source(source) for name, source in config.sources.items()}
    chosen = config.vocabulary
    wanted = texts[chosen.source] if chosen.source else _read_source(ManifestSource(path=chosen.manifest or ""))
    vocabulary = Vocabulary.build(wanted, chosen.min_count)
    return Corpus(vocabulary, {name: divide(t, config.heldout, config.max_words, name) for name, t in texts.items()})


def _read_source(source: Any) -> list[str]:
    if not isinstance(source, ManifestSource):
        return read_sentences(source)
    manifest = read_manifest(Path(source.path))
    check_groups(manifest.clips, where=str(manifest.path))
    found = [caption for clip in manifest.split(source.split) for caption in clip.captions]
    if not found:
        raise InputError(f"{manifest.path}: split {source.split!r} has no captions")
    return found


def _open_run(config: LmRunConfig) -> None:
    """The run's folder, made if need be. InputError when it holds a model with other settings."""
    path, run = config.folder / "config.yaml", Run(config.folder, config)  # type: ignore[arg-type]
    if Run.begun(config) is not None:  # type: ignore[arg-type]
        return
    config.folder.mkdir(parents=True, exist_ok=True)
    run.forget("vocabulary.json", "finished.json", "provenance.json", "metrics.json", "best.safetensors")
    part = config.folder / f"config.yaml.part{os.getpid()}"
    save(config, part)
    os.replace(part, path)


def epoch_batches(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Indices of the sentences in batches of about one length, the order of both drawn by seed and epoch alone."""
    order = epoch_order(len(lengths), seed, epoch)
    order = order[np.argsort(lengths[order], kind="stable")]
    batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
    return [batches[index] for index in epoch_order(len(batches), seed, epoch)]


class _Trainer:
    """Sentences, model, optimiser and position of one run."""

    def __init__(self, run: Run, config: LmRunConfig, quiet: bool) -> None:
        self.run, self.config, self.settings, self.quiet = run, config, config.training, quiet
        self.corpus = read_corpus(config)
        self._keep_vocabulary()
        self.lengths = np.array([len(sentence) for sentence in self.corpus.train])
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(config.seed)
        model = LanguageModel(config.model, len(self.corpus.vocabulary)).to(self.device)
        self._place_vectors(model)
        self.state = State(model, make_optimiser(self.settings.optimiser, model), None, None, Progress())
        self.model, self.progress = model, self.state.progress
        load_checkpoint(run.folder, self.state, rank=0)
        self.updates_per_epoch = -(-len(self.lengths) // self.settings.batch_size)

    def fit(self) -> None:
        """Trains to the end, measures the weights that are kept, and writes them down."""
        progress, num_sentences, epochs = self.progress, len(self.lengths), self.settings.epochs
        log = Log(self.run.folder, progress.update, progress.epoch, tensorboard=False)
        bar = tqdm(total=epochs * num_sentences, initial=progress.epoch * num_sentences, unit="sentence",
                   desc=f"train {self.run.folder}", disable=self.quiet)  # fmt: skip
        try:
            with bar:
                while progress.epoch < epochs:
                    self._epoch(bar, log)
        finally:
            log.close()
        self._finish()

    def _epoch(self, bar: Any, log: Log) -> None:
        progress, began = self.progress, time.perf_counter()
        self.model.train()
        nats, num_words = torch.zeros((), device=self.device), 0
        for batch in epoch_batches(self.lengths, self.settings.batch_size, self.config.seed, progress.epoch):
            loss, count = self._update([self.corpus.train[index] for index in batch])
            nats, num_words = nats + loss * count, num_words + count
            bar.update(len(batch))
        mean = float(nats) / num_words
        if not math.isfinite(mean):
            raise InputError(f"{self.run.folder}: the loss is {mean} in epoch {progress.epoch}; "
                             "lower training.optimiser.lr or use training.precision=fp32")  # fmt: skip
        figures, _ = perplexities(self.model, self.corpus.heldout)
        log.write(progress.update, progress.epoch, "train", {"loss": mean})
        log.write(progress.update, progress.epoch, "heldout", {f"perplexity.{k}": v for k, v in figures.items()})
        bar.set_postfix(epoch=progress.epoch, loss=mean, perplexity=figures[ALL])
        self._keep_best(figures)
        progress.epoch += 1
        progress.seconds += time.perf_counter() - began
        save_checkpoint(self.run.folder, self.state, [random_state()])

    def _update(self, sentences: Sequence[list[int]]) -> tuple[torch.Tensor, int]:
        """One optimiser step; the mean loss (nats a word) and over how many words."""
        fed, next_words, real = (part.to(self.device) for part in pad_sentences(sentences))
        states = self.model.dropout(self.model.states(fed)[real])
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            logits = self.model.output(states)
        loss = cross_entropy(logits.float(), next_words[real])
        optimiser, progress = self.state.optimiser, self.progress
        optimiser.zero_grad()
        loss.backward()
        if self.settings.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        each, schedule = self.updates_per_epoch, self.settings.schedule
        set_learning_rate(optimiser, learning_rate_factor(schedule, progress.update, each * self.settings.epochs, each))
        optimiser.step()
        self.hold_vectors()
        progress.update += 1
        return loss.detach(), len(logits)

    def _keep_best(self, figures: Mapping[str, float]) -> None:
        progress, select = self.progress, self.settings.select
        if select is not None and (progress.best is None or figures[select] < progress.best):
            progress.best, progress.best_epoch = figures[select], progress.epoch
            save_weights(self.model.state_dict(), self.run.folder / "best.safetensors")

    def _finish(self) -> None:
        run, best = self.run, self.run.folder / "best.safetensors"
        if self.progress.best is None:
            save_weights(self.model.state_dict(), run.weights)
        elif best.exists():  # else a run that was stopped here had moved it already
            os.replace(best, run.weights)
        model, _ = load_language_model(run.folder)
        run.write_json("metrics.json", self._metrics(model.to(self.device)))
        run.write_json("provenance.json", self._provenance())
        run.write_json("finished.json", {"epochs": self.progress.epoch, "best_epoch": self.progress.best_epoch})
        remove_checkpoints(run.folder)

    def _metrics(self, model: LanguageModel) -> dict[str, Any]:
        figures, num_words = perplexities(model, self.corpus.heldout)
        sizes, unk_share = self.corpus.sizes(), self.corpus.unk_share()
        return {"perplexity": figures, "num_words": num_words, "unk_share": unk_share, "num_sentences": sizes}

    def _provenance(self) -> dict[str, Any]:
        return {
            "commit": commit(),
            "packages": versions(),
            "sources": self.corpus.hashes(),
            "vocabulary": self.corpus.vocabulary.hash,
            "vectors": self.coverage,
            "seed": self.config.seed,
            "hardware": hardware(),
            "num_parameters": num_parameters(self.model.parameters()),
            "num_updates": self.progress.update,
            "training_s": round(self.progress.seconds, 3),
        }

    def _keep_vocabulary(self) -> None:
        path, hashes = self.run.folder / "vocabulary.json", self.corpus.hashes()
        if not any(self.run.folder.glob("checkpoint-*")):
            self.corpus.vocabulary.save(path)
            self.run.write_json("sources.json", hashes)
        elif Vocabulary.load(path) != self.corpus.vocabulary or self.run.read_json("sources.json") != hashes:
            raise InputError(f"{path}: the sentences are not those with which this run began; give it another name")

    def _place_vectors(self, model: LanguageModel) -> None:
        """Puts the vectors into the embedding, and holds their rows where they are to stay."""
        self.coverage, self.hold_vectors = None, lambda: None
        chosen = self.config.vectors
        if chosen is None:
            return
        vectors = read_vectors(chosen.path, self.corpus.vocabulary)
        vectors.fill(model.embedding)
        self.coverage = vectors.coverage(self.corpus.counts())
        if not self.quiet:
            print(f"{chosen.path}: {self.coverage}")
        if chosen.use == "frozen":
            self.hold_vectors = vectors.hold(model.embedding)
