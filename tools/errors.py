"""Analyses the errors of a label head: figures of each class, confusion, and the hardest clips as a page.

Reads the predictions that tools/evaluate.py left in the run's folder. The folder that is written holds index.html with
players and spectrograms, csv files, and import files for Label Studio with the model's decisions filled in.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmfusion.entry import run_tool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="run folder (runs/<name>/seed<k>)")
    parser.add_argument("--split", default=None, help="default: the run's test split")
    parser.add_argument("--out", type=Path, default=None, help="default: reports/errors/<name>-seed<k>-<split>")
    parser.add_argument("--head", default=None, help="which label head (default: the first)")
    parser.add_argument("--number", type=int, default=20, help="hardest clips by loss, and by gradient (default 20)")
    parser.add_argument("--no_gradients", action="store_true", help="rank by loss alone, without running the model")
    parser.add_argument("--url", default=None, help="where the folder is served to Label Studio (default: local files)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    given = parser.parse_args()

    from mmfusion.report.errors import analyse_errors
    from mmfusion.report.findings import as_text
    from mmfusion.training.run import Run

    run = Run.open(given.run)
    split = given.split or run.config.data.test_split
    out = given.out or Path("reports") / "errors" / f"{run.config.name}-seed{run.config.seed}-{split}"
    found = analyse_errors(run, split, out, head=given.head, number=given.number, gradients=not given.no_gradients,
                           url=given.url, quiet=given.quiet)  # fmt: skip
    print(f"{as_text(found)}\nwritten: {out / 'index.html'}")
    return 0


if __name__ == "__main__":
    run_tool(main)
