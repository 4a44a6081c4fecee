"""A trained tagger of sound as an ONNX file: waveform in, class probabilities out; the spectrogram is in the graph."""

from __future__ import annotations

import argparse
import json

from mmfusion.entry import run_tool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="run folder (runs/<name>/seed<k>)")
    parser.add_argument("-o", "--output", required=True, metavar="FILE.onnx")
    parser.add_argument("--check", type=int, default=0, metavar="N", help="compare with the run on N test clips")
    parser.add_argument("--json", action="store_true", help="print the file's metadata as JSON")
    arguments = parser.parse_args()

    from mmfusion.export import check_export, export_onnx
    from mmfusion.training.run import Run

    run = Run.open(arguments.run)
    made = export_onnx(run, arguments.output)
    found = {"path": str(made.path), "num_bytes": made.num_bytes, **made.metadata}
    if arguments.check:
        found["largest_difference"], found["num_checked"] = check_export(run, made.path, arguments.check)
    if arguments.json:
        print(json.dumps(found))
    else:
        print(f"written: {made.path} ({made.num_bytes / 1e6:.1f} MB, {len(made.metadata['labels'])} classes, "
              f"{made.metadata['sample_rate_hz']} Hz)")  # fmt: skip
        if arguments.check:
            print(f"checked: {found['num_checked']} clips, largest difference {found['largest_difference']:.1e}")
    return 0


if __name__ == "__main__":
    run_tool(main)
