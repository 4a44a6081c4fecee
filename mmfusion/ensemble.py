"""Several trained runs as one: their probabilities are averaged, for words at every step of the search.

Venugopalan et al. 2016 (EMNLP), section 4: the last rows of their table. The equations are those of `fusion.mix`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmfusion.config import save, to_tree, validate
from mmfusion.data.manifest import read_manifest
from mmfusion.evaluate import in_float32, load_model, score_split
from mmfusion.fusion.mix import mix, mix_steps
from mmfusion.heads.separation import SeparationConfig
from mmfusion.model import FusionModel
from mmfusion.training.provenance import built_from, commit, hardware, versions
from mmfusion.training.run import Run, RunConfig, is_scored_from
from mmfusion.training.setup import Material, open_material
from mmfusion.training.thresholds import tune_run
from mmfusion.types import Batch, Decision, InputError, Output, Separated, Stepper, Stream, Targets


class Ensemble(nn.Module):
    """Models with the same heads, classes and words, with the interface of one `FusionModel` for predicting."""

    def __init__(self, members: Sequence[FusionModel]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def encode(self, batch: Batch) -> list[dict[str, Stream]]:
        return [member.encode(batch) for member in self._models]

    def fusion(self, streams: list[dict[str, Stream]]) -> list[dict[str, Stream]]:
        return [member.fusion(own) for member, own in zip(self._models, streams, strict=True)]

    def decide(self, fused: list[dict[str, Stream]], batch: Batch) -> dict[str, Decision]:
        """Each head's mean distribution, and of every step where all members classify steps."""
        outputs = [member.decide(own, batch) for member, own in zip(self._models, fused, strict=True)]
        return {name: _mean([output[name] for output in outputs]) for name in outputs[0]}

    def loss(self, outputs: Mapping[str, Decision], targets: Targets) -> tuple[Tensor, dict[str, Tensor]]:
        return self._models[0].loss(outputs, targets)

    def as_sources(self, outputs: Mapping[str, Decision], targets: Targets) -> dict[str, Separated]:
        return self._models[0].as_sources(outputs, targets)

    @property
    def loss_weights(self) -> dict[str, float]:
        return self._models[0].loss_weights

    @property
    def steppers(self) -> dict[str, Stepper]:
        return {name: Together([member.steppers[name] for member in self._models]) for name in self._models[0].steppers}

    @property
    def _models(self) -> list[FusionModel]:
        return list(self.members)  # type: ignore[arg-type]


class Together:
    """Steppers that say one sentence together: the mean of their word distributions at every step."""

    def __init__(self, members: Sequence[Stepper]) -> None:
        self.members = tuple(members)

    def start(self, given: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(member.start(own) for member, own in zip(self.members, given, strict=True))

    def step(self, words: Tensor, state: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        said = [member.step(words, own) for member, own in zip(self.members, state, strict=True)]
        return _mean_logits([log_probs for log_probs, _ in said], "categorical"), tuple(after for _, after in said)


def evaluate_ensemble(folders: Sequence[str | Path], config: RunConfig, split: str, quiet: bool = True) -> Run:
    """Predicts and scores a split with several finished runs together, into the run folder of `config`.

    `config` gives the search and the name of that folder; nothing is trained. InputError when the runs read other
    data or say other words.
    """
    runs = [Run.open(folder) for folder in folders]
    _check_alike(runs)
    accelerator = in_float32()
    materials = [open_material(run, accelerator, quiet=True) for run in runs]
    model = Ensemble([load_model(run, material) for run, material in zip(runs, materials, strict=True)]).eval()
    tree = to_tree(runs[0].config) | {"name": config.name, "seed": config.seed, "search": to_tree(config)["search"]}
    run = Run(config.folder, validate(RunConfig, tree, config.name))
    run.folder.mkdir(parents=True, exist_ok=True)
    save(run.config, run.folder / "config.yaml")
    run.write_json("labels.json", list(runs[0].labels()))
    if materials[0].vocabulary is not None:
        materials[0].vocabulary.save(run.folder / "vocabulary.json")
    run.write_json("provenance.json", _provenance(runs, materials[0], config))
    model = model.to(accelerator.device)
    tune_run(run, materials[0], accelerator, quiet, model)
    score_split(model, materials[0], run, split, accelerator, quiet)
    return run


def ensemble_done(folders: Sequence[str | Path], config: RunConfig, split: str) -> bool:
    """True when the folder of `config` holds these runs' figures, by its search and today's weights and manifest."""
    manifest = read_manifest(config.data.manifest).file_hash()
    made = is_scored_from(config.folder, split, built_from=built_from(map(Path, folders)), manifest=manifest)
    return made and Run.open(config.folder).config.search == config.search


def _check_alike(runs: Sequence[Run]) -> None:
    first = runs[0]
    for run in runs:
        if not run.finished:
            raise InputError(f"{run.folder}: is not trained to its end")
        same_words = run.vocabulary() == first.vocabulary() and run.labels() == first.labels()
        if not same_words or to_tree(run.config.data) != to_tree(first.config.data):
            raise InputError(f"{run.folder}: reads other data, classes or words than {first.folder}; no ensemble")
        if list(run.config.model.heads) != list(first.config.model.heads):
            raise InputError(f"{run.folder}: has other heads than {first.folder}; no ensemble")
        if _timed(run) != _timed(first):
            raise InputError(f"{run.folder}: differs in per_second from {first.folder}; no ensemble")
        if any(isinstance(head, SeparationConfig) for head in run.config.model.heads.values()):
            raise InputError(f"{run.folder}: separated signals come in no order that runs share; no ensemble")


def _timed(run: Run) -> list[str]:
    """The heads that classify every step, too."""
    return [name for name, head in run.config.model.heads.items() if getattr(head, "per_second", False)]


def _provenance(runs: Sequence[Run], material: Material, config: RunConfig) -> dict[str, Any]:
    facts = [run.read_json("provenance.json") for run in runs]
    return {
        "commit": commit(),
        "packages": versions(),
        "hardware": hardware(),
        "manifest": material.manifest.file_hash(),
        "seed": config.seed,
        "built_from": built_from(run.folder for run in runs),
        "num_parameters": sum(fact["num_parameters"] for fact in facts),
        "training_s": 0.0,
    }


def _mean(outputs: Sequence[Decision]) -> Output:
    said = [cast(Output, output) for output in outputs]
    family = said[0].family
    steps = {str(number): output.steps for number, output in enumerate(said) if output.steps is not None}
    weights = torch.full((len(said),), 1 / len(said), device=said[0].logits.device)
    together = mix_steps(steps, weights, family, "linear") if len(steps) == len(said) else None
    return Output(_mean_logits([output.logits for output in said], family), family, together)


def _mean_logits(logits: Sequence[Tensor], family: Any) -> Tensor:
    weights = torch.full((len(logits[0]), len(logits)), 1 / len(logits), device=logits[0].device)
    return mix(logits, weights, family, "linear")
