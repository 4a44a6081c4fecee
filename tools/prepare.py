"""Prepares a data set: what lies under --root becomes manifest.jsonl, and rendered media, under --out."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mmfusion.entry import run_tool


def _arguments(known: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"data sets:\n{known}\n\nexample: tools/prepare.py mosi --root DATA/mosi --out data/mosi seed=1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="which data set (see below)")
    parser.add_argument("settings", metavar="key=value", nargs="*", help="settings of its reader (docs/data.md)")
    parser.add_argument("--root", type=Path, help="folder in which the set lies; not needed for synthetic")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that render media")
    return parser.parse_intermixed_args()


def main() -> None:
    from mmfusion.data.catalog.registry import READERS, prepare_set, settings

    arguments = _arguments("\n".join(f"  {name:10} {about}" for name, (_, _, about) in READERS.items()))
    config = settings(arguments.name, arguments.settings)
    prepared = prepare_set(arguments.name, arguments.root, arguments.out, config, max(1, arguments.workers))
    print(prepared.summary())


if __name__ == "__main__":
    run_tool(main)
