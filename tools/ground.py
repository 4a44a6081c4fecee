"""Tunes and measures grounding: are the words of a run's captions heard, and does re-ranking by it help.

Leaves grounding.json (thresholds and weight, tuned on validation; `predict.py --ground` reads them) and
grounding.<split>.json in the run's folder.
"""

from __future__ import annotations

import argparse
import json

from mmfusion.entry import run_tool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="run folder (runs/<name>/seed<k>) with a caption head")
    parser.add_argument("--split", default=None, help="default: the run's test split")
    parser.add_argument("--tagger", metavar="RUN", help="run whose label head hears (default: this one, sound alone)")
    parser.add_argument("--ontology", metavar="FILE", help="AudioSet's ontology.json, for words that are no labels")
    parser.add_argument("--figure", default="cider", help="caption figure that tunes the weight (default cider)")
    parser.add_argument("--json", action="store_true", help="all figures as one JSON object")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    asked = parser.parse_args()

    from mmfusion.report.grounding import as_table, measure_grounding
    from mmfusion.training.run import Run

    run = Run.open(asked.run)
    tagger = Run.open(asked.tagger) if asked.tagger else None
    split = asked.split or run.config.data.test_split
    found = measure_grounding(run, split, tagger, asked.ontology, asked.figure, asked.quiet)
    print(json.dumps(found, indent=1) if asked.json else as_table(found))


if __name__ == "__main__":
    run_tool(main)
