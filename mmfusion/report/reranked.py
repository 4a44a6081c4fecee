"""A trained run whose captions are ranked anew by what is heard, as a run folder of its own beside the trained one.

The weight of re-ranking and the tagger's thresholds are tuned on validation and lie in this folder (grounding.json, see
report/grounding.py). Labels are the trained run's; the tagger's parameters are counted where it is another run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmfusion.config import save, to_tree, validate
from mmfusion.data.manifest import Manifest, read_manifest
from mmfusion.evaluate import keep_scores, read_rows
from mmfusion.predictor import Predictor
from mmfusion.report.comparison import Reranked
from mmfusion.report.grounding import Grounder, look, tune
from mmfusion.training.provenance import built_from, commit, hardware, versions
from mmfusion.training.run import THRESHOLDS, Run, RunConfig, is_scored_from
from mmfusion.types import InputError

FIGURE = "cider"
"""caption figure by which the weight is chosen on validation"""


def evaluate_reranked(source: Reranked, config: RunConfig, split: str) -> Run:
    """Ranks a run's n best captions anew and scores them into the run folder of `config`, which gives only its name.

    InputError when the run is not trained and evaluated on the split, has no captions, or nothing can hear.
    """
    trained = Run.open(source.folder)
    tagger = Run.open(source.tagger) if source.tagger else None
    told = trained.folder / f"predictions.{split}.jsonl"
    predictor, grounder = Predictor(trained), Grounder(trained, tagger)
    speaks = predictor.caption_head
    if speaks is None:
        raise InputError(f"{trained.folder}: has no caption head, so there is nothing to rank")
    manifest = read_manifest(trained.config.data.manifest)
    run = Run(config.folder, validate(RunConfig, _tree(trained, config), config.name))
    run.folder.mkdir(parents=True, exist_ok=True)
    save(run.config, run.folder / "config.yaml")
    looked = look(predictor, grounder, manifest, trained.config.data.validation_split)
    tune(trained, grounder, looked, FIGURE, into=run)
    chosen = {
        each.clip.id: grounder.choose(each.captions, each.chances)
        for each in look(predictor, grounder, manifest, split)
    }
    rows = [{**row, speaks: chosen.get(row["id"], row[speaks])} for row in read_rows(told)]
    run.write_json("labels.json", list(trained.labels()))
    if trained.thresholds():
        run.write_json(THRESHOLDS, trained.thresholds())
    run.write_json("provenance.json", _provenance(source, trained, tagger, manifest))
    ids = {row["id"] for row in rows}
    clips = [clip for clip in manifest.split(split) if clip.id in ids]
    keep_scores(rows, run, split, clips, manifest, trained.labels())
    return run


def reranked_done(folder: Path, source: Reranked, split: str) -> bool:
    """True when the folder holds figures of this run and this tagger, with the weights that they have now."""
    folders = _folders(source)
    return is_scored_from(folder, split, reranks=[str(one) for one in folders], built_from=built_from(folders))


def _tree(trained: Run, config: RunConfig) -> dict[str, Any]:
    return to_tree(trained.config) | {"name": config.name, "seed": config.seed}


def _folders(source: Reranked) -> tuple[Path, Path]:
    return source.folder, source.tagger or source.folder


def _provenance(source: Reranked, trained: Run, tagger: Run | None, manifest: Manifest) -> dict[str, Any]:
    facts = [run.read_json("provenance.json") for run in (trained, tagger) if run]
    return {
        "commit": commit(),
        "packages": versions(),
        "hardware": hardware(),
        "manifest": manifest.file_hash(),
        "seed": trained.config.seed,
        "reranks": [str(one) for one in _folders(source)],
        "built_from": built_from(_folders(source)),
        "num_parameters": sum(fact["num_parameters"] for fact in facts),
        "training_s": 0.0,
    }
