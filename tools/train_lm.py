"""Trains a language model on sentences into runs/<name>/seed<k>/; the same command takes up an interrupted run."""

from __future__ import annotations

import argparse

from mmfusion.entry import run_tool


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Example: tools/train_lm.py configs/lm/msvd_text.yaml seed=1 model.tied=true. "
        "Prints and keeps (metrics.json) the perplexity on a held-out part of every source.",
    )
    parser.add_argument("config", help="YAML file of the language model (configs/lm/*.yaml)")
    parser.add_argument("overrides", nargs="*", metavar="a.b=value", help="settings that replace the file's")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    arguments = parser.parse_intermixed_args()

    from mmfusion.config import load
    from mmfusion.training.language import LmRunConfig, perplexity_table, train_lm

    folder = train_lm(load(LmRunConfig, arguments.config, arguments.overrides), quiet=arguments.quiet)
    print(perplexity_table(folder))
    print(f"trained: {folder}")
    return 0


if __name__ == "__main__":
    run_tool(main)
