"""Measures what the documents say about speed: two ways of doing the same, timed in turns in one process, as a ratio.

The exit status is 1 when mixtures are made more slowly than 1,000 a second a core.
"""

from __future__ import annotations

import argparse

from mmfusion.entry import run_tool


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()

    import torch

    from mmfusion.report.bench import bench

    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    missed = False
    for line in bench():
        print(line, flush=True)
        missed |= "FAIL" in line
    return int(missed)


if __name__ == "__main__":
    run_tool(main)
