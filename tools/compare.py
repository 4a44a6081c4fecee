"""Trains the missing rows of a comparison, evaluates them, and writes table and page to reports/<name>/."""

from __future__ import annotations

import argparse

from mmfusion.entry import run_tool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("comparison", help="YAML file of the comparison (configs/compare/*.yaml)")
    parser.add_argument("overrides", nargs="*", metavar="a.b=value", help="settings that replace the file's")
    parser.add_argument("--publish", action="store_true", help="write the table to docs/results/<name>.md as well")
    parser.add_argument(
        "--picture", default=None, help="SVG file for the table's bars and one clip with every row's answer"
    )
    arguments = parser.parse_args()

    from mmfusion.report.compare import compare

    print(compare(arguments.comparison, tuple(arguments.overrides), arguments.publish, arguments.picture))
    return 0


if __name__ == "__main__":
    run_tool(main)
