"""Grounding with a run's own ears: captions checked by what its label head hears, tuned on validation, and measured.

The sound tagger is a run's label head given the sound alone, everything else masked; a run that never saw sound alone
in training (fusion without `data.modality_dropout`) hears better through another run, `tagger`, trained on sound.

`tune` leaves `grounding.json` in the run's folder: `thresholds` {label: probability}, the re-ranking `weight`, the
figure it was tuned by, and sha256 of the weights that all this holds for. `measure_grounding` leaves
`grounding.<split>.json`:

    verdicts.<captions>.<verdict>   precision, recall, and how many words truly have the verdict
    rerank.<before|after>           caption figures; `contradicted`: share of labelled words that are so in truth

True is the verdict that the same words get from the manifest's sources (`heard`) in the place of the tagger. Captions:
`said` by the search, its `nbest`, the clip's own `references`, and `swapped`: the references of the next clip, most of
which are false.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from mmfusion.data.manifest import Manifest, read_manifest
from mmfusion.data.raw import Raw
from mmfusion.data.reading import window
from mmfusion.language.grounding import VERDICTS, Grounded, ground, word_tagger
from mmfusion.language.ontology import Ontology, read_ontology
from mmfusion.language.rerank import Candidate, agreement, pick, tune_weight
from mmfusion.metrics.captions import CAPTION_METRICS, caption_metrics
from mmfusion.metrics.thresholds import tune_thresholds
from mmfusion.predictor import Predictor
from mmfusion.training.run import Run
from mmfusion.types import THRESHOLD, Clip, InputError

TUNED = "grounding.json"


class Grounder:
    """A `Checker` of captions. InputError when no head can hear, or the ontology cannot be read."""

    def __init__(self, run: Run, tagger: Run | None = None, ontology: str | Path | None = None) -> None:
        self.ear = Predictor(tagger or run)
        if self.ear.label_head is None or not self.ear.sounds:
            what = "a label head" if self.ear.label_head is None else "an input of sound"
            raise InputError(f"{self.ear.run.folder}: has not {what} to check captions by: give --tagger RUN")
        self.ontology = Ontology(self.ear.facts.labels, read_ontology(ontology) if ontology else ())
        self.word_tagger, how = word_tagger()
        self.own = tagger is None
        self.thresholds, self.weight, tuned = recall(run, self.ear.run)
        self.tuned = bool(self.thresholds)
        self.notes = [how, tuned]

    def hear(self, clip: Clip, inputs: Mapping[str, Raw], path: Path | None = None
             ) -> tuple[dict[str, float] | None, list[str]]:  # fmt: skip
        """{label: probability} from the clip's sound alone, None without sound; and what of it could not be read."""
        if self.own:
            return self.ear.hear(inputs), []
        if path is not None:
            clip = replace(clip, media=self.ear.media_of(path, {}))
        heard, flaws = self.ear.read(clip, self.ear.sounds)
        return self.ear.hear(heard), [f"tagger: {flaw}" for flaw in flaws]

    def check(self, caption: str, chances: Mapping[str, float] | None) -> list[Grounded]:
        return ground(caption, chances, self.ontology, self.thresholds, self.word_tagger)

    def check_by_truth(self, caption: str, heard: Collection[str]) -> list[Grounded]:
        """The same words with the verdicts of a tagger that is always right."""
        chances = {label: float(label in heard) for label in self.ear.facts.labels}
        return ground(caption, chances, self.ontology, None, self.word_tagger)

    def candidates(self, captions: Iterable[tuple[str, float]], chances: Mapping[str, float] | None) -> list[Candidate]:
        return [Candidate(text, score, agreement(self.check(text, chances))) for text, score in captions]

    def choose(self, captions: Sequence[tuple[str, float]], chances: Mapping[str, float] | None) -> str:
        """The caption that re-ranking picks; the search's own where there is no sound."""
        candidates = self.candidates(captions, chances)
        return candidates[pick(candidates, self.weight)].caption


def recall(run: Run, ear: Run) -> tuple[dict[str, float], float, str]:
    """Thresholds and weight that were tuned for these very weights, else none and 0, and a sentence that says so."""
    if not (run.folder / TUNED).exists():
        return {}, 0.0, f"thresholds {THRESHOLD}, not tuned (tools/ground.py {run.folder})"
    found = run.read_json(TUNED)
    if (found.get("weights"), found.get("tagger")) != (run.weights_hash(), ear.weights_hash()):
        return {}, 0.0, f"thresholds {THRESHOLD}: {TUNED} was tuned for other weights (tools/ground.py {run.folder})"
    return found["thresholds"], found["weight"], f"thresholds tuned on {found['split']}"


@dataclass(frozen=True)
class Looked:
    """A clip, its n best captions with scores, and what the tagger hears (None without sound)."""

    clip: Clip
    captions: list[tuple[str, float]]
    chances: dict[str, float] | None

    @property
    def heard(self) -> set[str]:
        """The labels that can be heard in truth: of the sources, or, where none are known, of the clip."""
        return {s.label for s in self.clip.sources if s.heard} if self.clip.sources else set(self.clip.labels or ())


def measure_grounding(run: Run, split: str, tagger: Run | None = None, ontology: str | Path | None = None,
                      figure: str = "cider", quiet: bool = True) -> dict[str, Any]:  # fmt: skip
    """Tunes on the validation split, measures on `split`; see the file's head. InputError names what is missing."""
    if figure not in CAPTION_METRICS:
        raise InputError(f"--figure: {figure!r} is none of {', '.join(CAPTION_METRICS)}")
    predictor, grounder = Predictor(run), Grounder(run, tagger, ontology)
    if predictor.caption_head is None:
        raise InputError(f"{run.folder}: has no caption head, so there is nothing to ground")
    manifest = read_manifest(run.config.data.manifest)
    validation = look(predictor, grounder, manifest, run.config.data.validation_split, quiet)
    tune(run, grounder, validation, figure)
    looked = look(predictor, grounder, manifest, split, quiet)
    following = [*looked[1:], *looked[:1]]
    told = {
        "said": [[each.captions[0][0]] for each in looked],
        "nbest": [[text for text, _ in each.captions] for each in looked],
        "references": [list(each.clip.captions) for each in looked],
        "swapped": [list(each.clip.captions) for each in following],
    }
    found = {
        "split": split,
        "num_clips": len(looked),
        "num_without_sound": sum(each.chances is None for each in looked),
        "notes": grounder.notes,
        "tagger": str(grounder.ear.run.folder),
        "tagging": _tagging(looked, grounder.thresholds),
        "verdicts": {name: _verdicts(looked, captions, grounder) for name, captions in told.items()},
        "rerank": _gain(looked, grounder, figure),
    }
    run.write_json(f"grounding.{split}.json", found)
    return found


@torch.inference_mode()
def look(predictor: Predictor, grounder: Grounder, manifest: Manifest, split: str, quiet: bool = True) -> list[Looked]:
    """Every captioned clip of a split of which something can be read."""
    found = []
    for clip in tqdm(manifest.split(split), desc=f"look at {split}", unit="clip", leave=False, disable=quiet):
        start_s, end_s = window(clip, predictor.config.data.max_duration_s)
        here = replace(manifest.located(clip), start_s=start_s, end_s=end_s)
        inputs, _ = predictor.read(here)
        if inputs and clip.captions:
            batch = predictor.batch(inputs)
            captions = predictor.captions(predictor.model.fusion(predictor.model.encode(batch)))
            found.append(Looked(clip, captions, grounder.hear(here, inputs)[0]))
    if not found:
        raise InputError(f"{manifest.path}: split {split!r} has no readable clip with captions")
    return found


def tune(run: Run, grounder: Grounder, looked: Sequence[Looked], figure: str, into: Run | None = None) -> None:
    """Thresholds, then the weight of re-ranking, into the grounder and into the folder of `into` (or of `run`)."""
    with_sound = [each for each in looked if each.chances is not None]
    grounder.thresholds = hearing_thresholds([e.chances or {} for e in with_sound], [e.heard for e in with_sound])
    candidates = [grounder.candidates(each.captions, each.chances) for each in looked]
    grounder.weight, means = tune_weight(candidates, _values(looked, figure))
    split = run.config.data.validation_split
    grounder.notes[1] = f"thresholds tuned on {split}"
    hashes = {"weights": run.weights_hash(), "tagger": grounder.ear.run.weights_hash()}
    tuned = {"thresholds": grounder.thresholds, "weight": grounder.weight, "split": split, "figure": figure}
    (into or run).write_json(TUNED, hashes | tuned | {"means": {str(weight): mean for weight, mean in means.items()}})


def hearing_thresholds(chances: Sequence[Mapping[str, float]], heard: Sequence[Collection[str]],
                       least: int = 5) -> dict[str, float]:  # fmt: skip
    """For each label the threshold of the highest F1 over the clips (`metrics/thresholds.py`).

    `heard` says for each clip which labels can be heard in it. A label that is heard in fewer than `least` clips takes
    the threshold that is best for all labels together.
    """
    labels = sorted({label for row in chances for label in row})
    if not labels:
        return {}
    known = np.array([[label in row for label in labels] for row in chances])
    scores = np.array([[row.get(label, 0.0) for label in labels] for row in chances])
    truth = np.array([[label in there for label in labels] for there in heard])
    own = tune_thresholds(truth, scores, known)
    shared = tune_thresholds(truth[known][:, None], scores[known][:, None])
    enough = (truth & known).sum(axis=0) >= least
    return dict(zip(labels, np.where(enough, own, shared).tolist(), strict=True))


def _values(looked: Sequence[Looked], figure: str) -> list[list[float]]:
    """A figure of each candidate of each clip; CIDEr's word weights come from all references, so candidates compare."""
    references = {each.clip.id: each.clip.captions for each in looked}
    by_rank = []
    for rank in range(max(len(each.captions) for each in looked)):
        said = {each.clip.id: each.captions[min(rank, len(each.captions) - 1)][0] for each in looked}
        by_rank.append(caption_metrics(references, said)["per_clip"])
    return [[by_rank[rank][each.clip.id][figure] for rank in range(len(each.captions))] for each in looked]


def _verdicts(looked: Sequence[Looked], captions: Sequence[Sequence[str]], grounder: Grounder) -> dict[str, Any]:
    """Precision, recall and number of each verdict over all words that have a label."""
    counts: Counter[tuple[str, str]] = Counter()
    for each, own in zip(looked, captions, strict=True):
        for caption in own if each.chances is not None else ():
            pairs = zip(
                grounder.check(caption, each.chances), grounder.check_by_truth(caption, each.heard), strict=True
            )
            counts.update((said.verdict, true.verdict) for said, true in pairs if true.probability is not None)
    return {verdict: _rates(counts, verdict) for verdict in VERDICTS}


def _rates(counts: Counter[tuple[str, str]], verdict: str) -> dict[str, Any]:
    right = counts[verdict, verdict]
    said = sum(count for (own, _), count in counts.items() if own == verdict)
    true = sum(count for (_, own), count in counts.items() if own == verdict)
    return {"precision": right / said if said else None, "recall": right / true if true else None, "words": true}


def _tagging(looked: Sequence[Looked], thresholds: Mapping[str, float]) -> dict[str, Any]:
    """How well the sound tagger itself hears, all labels together: what the verdicts can be at best."""
    counts: Counter[tuple[str, str]] = Counter()
    for each in looked:
        for label, chance in (each.chances or {}).items():
            counts[str(chance >= thresholds.get(label, THRESHOLD)), str(label in each.heard)] += 1
    return _rates(counts, "True")


def _gain(looked: Sequence[Looked], grounder: Grounder, figure: str) -> dict[str, Any]:
    """Caption figures and contradicted words of the search's own choice and of the re-ranked one."""
    references = {each.clip.id: each.clip.captions for each in looked}
    before = {each.clip.id: each.captions[0][0] for each in looked}
    after = {each.clip.id: grounder.choose(each.captions, each.chances) for each in looked}
    found: dict[str, Any] = {"weight": grounder.weight, "tuned_by": figure}
    for name, said in (("before", before), ("after", after)):
        words = [
            w for e in looked for w in grounder.check_by_truth(said[e.clip.id], e.heard) if w.probability is not None
        ]
        scores = caption_metrics(references, said)
        share = sum(word.verdict == "contradicted" for word in words) / len(words) if words else None
        found[name] = {**{key: scores[key] for key in CAPTION_METRICS}, "contradicted": share}
    return found | {"num_changed": sum(before[clip] != after[clip] for clip in before)}


def as_table(found: Mapping[str, Any]) -> str:
    """The measurement for a person to read."""
    lines = [f"{'captions':12}{'verdict':14}{'precision':>10}{'recall':>10}{'words':>8}"]
    rows = [(name, verdict, rates) for name, own in found["verdicts"].items() for verdict, rates in own.items()]
    for name, verdict, rates in [*rows, ("(tagger)", "heard", found["tagging"])]:
        shown = [f"{rates[key]:10.3f}" if rates[key] is not None else f"{'-':>10}" for key in ("precision", "recall")]
        lines.append(f"{name:12}{verdict:14}{''.join(shown)}{rates['words']:8d}")
    gain = found["rerank"]
    lines += ["", f"{'re-ranking':16}{'before':>10}{'after':>10}   weight {gain['weight']:g}, by {gain['tuned_by']}"]
    lines += [f"{key:16}{gain['before'][key] or 0:10.4f}{gain['after'][key] or 0:10.4f}" for key in gain["before"]]
    counted = f"{gain['num_changed']} of {found['num_clips']} captions changed"
    return "\n".join([*lines, f"{counted}, {found['num_without_sound']} clips without sound", *found["notes"]])
