"""What a perfect system could reach on the synthetic set with one modality alone, computed from the truth.

    python -m mmfusion.data.scenes.oracle MANIFEST [--split test] [--captions FOLDER]

The perfect audio-only system knows every class that is heard, and nothing else but how often the others are there: a
class that it does not hear gets the share of training clips with as many heard classes in which it is there unheard.
The perfect video-only system likewise with what is seen. Scores are mean average precision over classes, computed
as sklearn's `average_precision_score` does it: sum over thresholds of (R_n - R_(n-1)) P_n, equal scores together.

With `--captions`, the most probable captions of both systems, and of one that knows both, are written as JSON files
({clip: caption}, references {clip: [caption, ...]}) for `tools/score.py captions`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mmfusion.data.manifest import Manifest, read_manifest
from mmfusion.data.scenes.grammar import plain_caption
from mmfusion.types import Clip, InputError, Source

KNOWS: dict[str, Callable[[Source], bool]] = {
    "audio": lambda source: source.heard,
    "video": lambda source: source.seen,
    "both": lambda source: source.seen or source.heard,
}


@dataclass(frozen=True)
class Bound:
    """What one perfect system can reach on a split: mAP, the share of events and of whole clips that it can name."""

    mean_average_precision: float
    events_known: float
    clips_known: float


def bound(manifest: Manifest, system: str, split: str = "test") -> Bound:
    """The bound of the system "audio", "video" or "both" on a split, with priors from the split `train`."""
    clips, names = manifest.split(split), manifest.label_names()
    scores = oracle_scores(clips, manifest.split("train"), names, KNOWS[system])
    truth = np.array([[name in (clip.labels or ()) for name in names] for clip in clips])
    precisions = [average_precision(t, s) for t, s in zip(truth.T, scores.T, strict=True) if t.any()]
    known = [[KNOWS[system](source) for source in clip.sources] for clip in clips]
    return Bound(
        float(np.mean(precisions)),
        float(np.mean([k for clip in known for k in clip])),
        float(np.mean([all(clip) for clip in known])),
    )


def oracle_scores(
    clips: Sequence[Clip], training: Sequence[Clip], names: Sequence[str], knows: Callable[[Source], bool]
) -> np.ndarray:
    """(clips, classes) in [0, 1]: 1 for a known class, else the prior given how many classes are known in the clip."""
    hidden: dict[int, list[np.ndarray]] = {}
    for clip in training:
        known = _known(clip, knows)
        row = np.array([np.nan if name in known else float(name in (clip.labels or ())) for name in names])
        hidden.setdefault(len(known), []).append(row)
    priors = {count: _mean_of_known(np.stack(rows)) for count, rows in hidden.items()}
    scores = np.zeros((len(clips), len(names)))
    for i, clip in enumerate(clips):
        known = _known(clip, knows)
        prior = priors.get(len(known), np.zeros(len(names)))
        scores[i] = [1.0 if name in known else prior[j] for j, name in enumerate(names)]
    return scores


def _known(clip: Clip, knows: Callable[[Source], bool]) -> set[str]:
    return {source.label for source in clip.sources if knows(source)}


def _mean_of_known(rows: np.ndarray) -> np.ndarray:
    given = ~np.isnan(rows)
    return np.where(given, rows, 0).sum(0) / np.maximum(given.sum(0), 1)


def average_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    """Area under the precision-recall steps of one class; clips with equal scores pass the threshold together."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order])
    last_of_equals = np.append(np.diff(scores[order]) != 0, True)
    hits, ranks = hits[last_of_equals], np.flatnonzero(last_of_equals) + 1
    return float((np.diff(hits, prepend=0) * hits / ranks).sum() / hits[-1])


def guess_caption(clip: Clip, system: str) -> str:
    """The most probable caption for a system: what one modality knows is taken to be both seen and heard.

    Of a clip in which it knows nothing, it says that a silent ball bounces, or that a ball thuds off screen.
    """
    known = [source for source in clip.sources if KNOWS[system](source)]
    if not known:
        known = [Source("ball", 0.0, 1.0, seen=system == "audio", heard=system == "video")]
    elif system != "both":
        known = [replace(source, seen=True, heard=True) for source in known]
    return plain_caption(known)


def write_captions(manifest: Manifest, split: str, folder: Path) -> None:
    """Writes `references.json` and one `<system>.json` of candidates into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = manifest.split(split)
    (folder / "references.json").write_text(json.dumps({clip.id: list(clip.captions) for clip in clips}, indent=1))
    for system in KNOWS:
        said = {clip.id: guess_caption(clip, system) for clip in clips}
        (folder / f"{system}.json").write_text(json.dumps(said, indent=1))


def describe(manifest: Manifest, split: str) -> str:
    """The bounds of all three systems as a Markdown table."""
    lines = [
        "| a perfect system that knows | mAP | events it can name | clips in which it can name all |",
        "|---|---|---|---|",
    ]
    for system, title in (("audio", "only what is heard"), ("video", "only what is seen"), ("both", "both")):
        reached = bound(manifest, system, split)
        lines.append(
            f"| {title} | {reached.mean_average_precision:.3f} "
            f"| {reached.events_known:.1%} | {reached.clips_known:.1%} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Prints the table; 2 when the manifest cannot be used."""
    parser = argparse.ArgumentParser(description="what one modality alone can reach on the synthetic set")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--captions", type=Path, metavar="FOLDER", help="also write the captions of the systems here")
    args = parser.parse_args()
    try:
        manifest = read_manifest(args.manifest)
        print(describe(manifest, args.split))
        if args.captions:
            write_captions(manifest, args.split, args.captions)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
