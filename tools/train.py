"""Trains one model into runs/<name>/seed<k>/; the same command takes up an interrupted run."""

from __future__ import annotations

import argparse

from mmfusion.entry import first_process, run_tool


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Example: tools/train.py configs/synthetic/deep.yaml seed=1 training.optimiser.lr=3e-4. "
        "Several processes: accelerate launch --num_processes 8 tools/train.py CONFIG",
    )
    parser.add_argument("config", help="YAML file of the run (configs/*.yaml)")
    parser.add_argument("overrides", nargs="*", metavar="a.b=value", help="settings that replace the file's")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    arguments = parser.parse_args()

    from mmfusion.config import load
    from mmfusion.training.loop import train
    from mmfusion.training.run import RunConfig

    run = train(load(RunConfig, arguments.config, arguments.overrides), quiet=arguments.quiet)
    if first_process():
        print(f"trained: {run.folder}")
    return 0


if __name__ == "__main__":
    run_tool(main)
