"""Labels, events and a caption for any media files, or for features that were computed before.

A file that cannot be read is reported with its reason, the others are still done, and the exit status is 2.
"""

from __future__ import annotations

import argparse
import json

from mmfusion.entry import run_tool


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="run folder (runs/<name>/seed<k>)")
    parser.add_argument("files", nargs="*", metavar="FILE", help="video, sound or picture files")
    parser.add_argument("--features", action="append", default=[], metavar="NAME=FILE.npz", help="input from a file")
    parser.add_argument(
        "--window",
        type=float,
        metavar="SECONDS",
        help="cut the whole file (0: the run's windows, or data.max_duration_s)",
    )
    parser.add_argument(
        "--hop", type=float, metavar="SECONDS", help="windows begin this far apart (default: no overlap)"
    )
    parser.add_argument("--aggregate", choices=("mean", "max", "han2016"), help="how windows become one answer")
    parser.add_argument("--events", action="store_true", help="what is heard from when to when (per_second heads)")
    parser.add_argument("--srt", metavar="FILE", help="write the windows' captions as SubRip subtitles")
    parser.add_argument("--vtt", metavar="FILE", help="write the windows' captions as WebVTT subtitles")
    parser.add_argument("--ground", action="store_true", help="say which words of the caption are heard")
    parser.add_argument(
        "--rerank", action="store_true", help="choose the caption by what is heard (see tools/ground.py)"
    )
    parser.add_argument("--tagger", metavar="RUN", help="run whose label head hears (default: this one, sound alone)")
    parser.add_argument("--ontology", metavar="FILE", help="AudioSet's ontology.json, for words that are no labels")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--top", type=int, default=5, help="labels to print for a person (default 5)")
    return parser.parse_args()


def main() -> int:
    given = parse()

    from mmfusion.predict import as_text, predict_files
    from mmfusion.report.asking import asked_for
    from mmfusion.report.subtitles import write_captions
    from mmfusion.training.run import Run

    run, failed = Run.open(given.run), False
    for found in predict_files(run, given.files, asked_for(run, given)):
        failed |= "error" in found
        print(json.dumps(found) if given.json else as_text(found, given.top, given.events), flush=True)
        write_captions(found, given.srt, given.vtt)
    return 2 if failed else 0


if __name__ == "__main__":
    run_tool(main)
