"""Labels and a caption for any media files.

A file that cannot be read is reported with its reason, the others are still done, and the exit status is 2.
"""

from __future__ import annotations

import argparse
import json

from mmfusion.entry import run_tool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="run folder (runs/<name>/seed<k>)")
    parser.add_argument("files", nargs="+", metavar="FILE", help="video, sound or picture files")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--top", type=int, default=5, help="labels to print for a person (default 5)")
    arguments = parser.parse_args()

    from mmfusion.predict import as_text, predict_files
    from mmfusion.training.run import Run

    failed = False
    for found in predict_files(Run.open(arguments.run), arguments.files):
        failed |= "error" in found
        print(json.dumps(found) if arguments.json else as_text(found, arguments.top), flush=True)
    return 2 if failed else 0


if __name__ == "__main__":
    run_tool(main)
