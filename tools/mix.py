"""Makes mixtures with their sources: what lies in a manifest's clips of one class, cut, set off and summed at random.

Under --out_path, a folder for each split, and a manifest.jsonl of the mixtures. The same command goes on where it was
cut off.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mmfusion.entry import run_tool


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", "--num_sources", type=int, default=2, help="sources a mixture, 2 to 100 (default 2)")
    parser.add_argument("-t", "--duration", type=float, default=10.0, metavar="SECONDS", help="length (default 10)")
    parser.add_argument("-o", "--out_path", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--selected_classes", nargs="+", default=[], metavar="CLASS", help="to draw from (default: all)"
    )
    parser.add_argument("--manifest", type=Path, help="the sources (default: the project's own synthetic set)")
    parser.add_argument("--count", type=int, default=10, help="mixtures a split (default 10)")
    parser.add_argument("--split", nargs="+", default=[], help="whose clips are mixed (default: every split)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (default 0)")
    low_high = {"nargs": 2, "type": float, "metavar": ("LO", "HI")}
    parser.add_argument("--snr_db", default=(-5.0, 5.0), help="against the first source (default -5 5)", **low_high)
    parser.add_argument("--level_db", default=(-25.0, -25.0), help="of the mixture (default -25 -25)", **low_high)
    parser.add_argument("--onset_s", help="begin of the sources (default: wherever they fit)", **low_high)
    parser.add_argument("--min_active", type=float, default=0.05, help="least share of a crop heard (default 0.05)")
    parser.add_argument("--activity_floor_db", type=float, default=40.0, help="silence below the loudest (default 40)")
    parser.add_argument("--impulse_response", nargs="+", type=Path, default=[], metavar="FILE",
                        help="rooms, of which each source draws one; with --from, where they lie now")  # fmt: skip
    parser.add_argument("--sample_rate_hz", type=int, default=16000, help="of the files (default 16000)")
    parser.add_argument("--with_video", nargs="?", type=int, const=0, metavar="SOURCE",
                        help="write films too, with the picture of this source (default 0, the first)")  # fmt: skip
    parser.add_argument("--from", dest="table", type=Path, metavar="FILE.csv", help="make this one mixture again")
    parser.add_argument("--cache", type=Path, default=Path("data/cache"), help="decoded media (default data/cache)")
    return parser.parse_args()


def main() -> None:
    given = parse()

    from mmfusion.data.mixtures.again import remix
    from mmfusion.data.mixtures.make import make_mixtures, order_of

    if given.table is not None:
        made, warnings = remix(given.table, given.out_path, str(given.cache), given.manifest, given.impulse_response)
        print(made)
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)
    else:
        print(make_mixtures(order_of(given)).summary())


if __name__ == "__main__":
    run_tool(main)
