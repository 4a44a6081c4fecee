"""Separates mixtures into their sources, written as wav files to OUT/<name of the mixture>/source<k>.wav.

With --classes, to OUT/<name of the mixture>/<class>.wav; with --rest too, what else is heard to rest.wav there.

Any media file with sound, of any length. A file that cannot be read is reported with its reason, the others are still
done, and the exit status is 2. What a file holds but cannot be read in part is a warning on standard error and in
OUT/<name of the mixture>/separated.json.
"""

from __future__ import annotations

import argparse
import json
import sys

from mmfusion.entry import run_tool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="run folder (runs/<name>/seed<k>) with a separation head")
    parser.add_argument("mixtures", nargs="+", metavar="MIXTURE", help="sound or video files")
    parser.add_argument("-o", "--out", required=True, help="folder for the sources")
    parser.add_argument("--window", type=float, metavar="SECONDS", help="length of a window (default: the training's)")
    parser.add_argument("--overlap", type=float, metavar="SECONDS", help="of two windows (default: a quarter of one)")
    parser.add_argument("--head", metavar="NAME", help="the separation head, where the run has several")
    parser.add_argument("--classes", nargs="+", action="extend", default=[], metavar="CLASS",
                        help="the classes that the files have, one file each (heads with a mask a class)")  # fmt: skip
    parser.add_argument("--rest", action="store_true", help="with --classes: other things may be heard, in rest.wav")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    given = parser.parse_args()

    from mmfusion.separate import KnownClasses, Windows, as_text, separate_files
    from mmfusion.training.run import Run

    if given.rest and not given.classes:
        parser.error("--rest is for --classes")
    known = KnownClasses(tuple(given.classes), given.rest) if given.classes else None
    run, failed = Run.open(given.run), False
    windows = Windows.of(run, given.window, given.overlap)
    for found in separate_files(run, given.mixtures, given.out, windows, given.head, known):
        failed |= "error" in found
        for warning in found.get("warnings", []):
            print(f"warning: {found['path']}: {warning}", file=sys.stderr)
        print(json.dumps(found) if given.json else as_text(found), flush=True)
    return 2 if failed else 0


if __name__ == "__main__":
    run_tool(main)
