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
    captions = kinds.add_parser("captions", help="BLEU-1..4, METEOR 1.5, ROUGE_L, CIDEr")
    captions.add_argument("--candidates", required=True, metavar="C.json", help="{clip: caption}")
    captions.add_argument("--references", required=True, metavar="R.json", help="{clip: [caption, ...]}")
    labels = kinds.add_parser("labels", help="mAP, ROC-AUC, d-prime, F1, accuracy, per class")
    labels.add_argument(
        "--predictions",
        required=True,
        metavar="P.jsonl",
        help="one object a line: id, labels {class: probability}, truth {labels: [class, ...]}",
    )
    labels.add_argument("--target", choices=("multi", "single"), default="multi", help="several classes a clip, or one")
    for kind in (captions, labels):
        kind.add_argument("--json", action="store_true", help="all figures, per clip or class, as one JSON object")
    return parser.parse_args(arguments)


def score(options: argparse.Namespace) -> dict[str, Any]:
    from mmfusion.metrics.scoring import score_captions, score_labels

    if options.kind == "captions":
        return score_captions(options.candidates, options.references)
    return score_labels(options.predictions, options.target)


def main() -> None:
    options = parse()
    result = score(options)
    if options.json:
        json.dump(result, sys.stdout, indent=1, ensure_ascii=False)
        print()
        return
    from mmfusion.metrics.scoring import format_scores

    print(format_scores(result))


if __name__ == "__main__":
    run_tool(main)
