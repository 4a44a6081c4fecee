"""Scores captions or label predictions that any system wrote to files."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from mmfusion.entry import run_tool


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    captions = kinds.add_parser("captions", help="BLEU-1..4, METEOR 1.5, ROUGE_L, CIDEr, and how varied they are")
    captions.add_argument("--candidates", required=True, metavar="C.json", help="{clip: caption}")
    form = "{clip: [caption, ...]}, a manifest.jsonl, or the file of MSVD, MSR-VTT, AudioCaps or Clotho"
    several = f"{form}; several give a table each, and captions for the clips of all of them are needed"
    captions.add_argument("--references", required=True, nargs="+", action="extend", metavar="R", help=several)
    captions.add_argument("--split", default="test", help="of the manifests among the references (default: test)")
    captions.add_argument("--training", metavar="R", help="training captions, to say which candidates are none of them")
    labels = kinds.add_parser("labels", help="mAP, ROC-AUC, d-prime, F1, accuracy, per class")
    truth = "one object a line: id, labels {class: probability}, truth {labels: [class, ...]}"
    labels.add_argument("--predictions", required=True, metavar="P.jsonl", help=truth)
    labels.add_argument("--target", choices=("multi", "single"), default="multi", help="several classes a clip, or one")
    for kind in (captions, labels):
        kind.add_argument("--json", action="store_true", help="all figures, per clip or class, as one JSON object")
    return parser.parse_args(arguments)


def score(options: argparse.Namespace) -> dict[str, Any]:
    """The figures, by the file that they are scored against."""
    from mmfusion.metrics.scoring import score_captions, score_labels

    if options.kind == "labels":
        return {options.predictions: score_labels(options.predictions, options.target)}
    from mmfusion.data.catalog.references import read_references

    sources = {path: read_references(path, options.split) for path in options.references}
    training = read_references(options.training, "train").values() if options.training else None
    seen = None if training is None else {text for texts in training for text in texts}
    return score_captions(options.candidates, sources, seen)


def main() -> None:
    options = parse()
    tables = score(options)
    if options.json:
        json.dump(tables if len(tables) > 1 else next(iter(tables.values())), sys.stdout, indent=1, ensure_ascii=False)
        print()
        return
    from mmfusion.metrics.scoring import format_tables

    print(format_tables(tables))


if __name__ == "__main__":
    run_tool(main)
