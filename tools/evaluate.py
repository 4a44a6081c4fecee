"""Predicts and scores a split of a trained run: predictions.<split>.jsonl, then metrics.<split>.json from it."""

from __future__ import annotations

import argparse
import json

from mmfusion.entry import first_process, run_tool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="run folder (runs/<name>/seed<k>)")
    parser.add_argument("--split", default=None, help="default: the run's test split")
    parser.add_argument("--json", action="store_true", help="print the whole metrics file")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    arguments = parser.parse_args()

    from mmfusion.evaluate import evaluate
    from mmfusion.training.run import Run
    from mmfusion.training.validate import flatten

    run = Run.open(arguments.run)
    split = arguments.split or run.config.data.test_split
    metrics = evaluate(run, split, quiet=arguments.quiet)
    if not first_process():
        return 0
    if arguments.json:
        print(json.dumps(metrics, indent=1))
    else:
        for name, value in flatten(metrics).items():
            print(f"{name:32} {value:10.4f}")
        print(f"written: {run.folder}/predictions.{split}.jsonl, metrics.{split}.json")
    return 0


if __name__ == "__main__":
    run_tool(main)
