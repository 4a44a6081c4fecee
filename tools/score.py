"""Scores captions, label predictions, separated sources or sound events that any system wrote to files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmfusion.entry import run_tool


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    captions = kinds.add_parser("captions", help="BLEU-1..4, METEOR 1.5, ROUGE_L, CIDEr, and how varied they are")
    captions.add_argument("--candidates", required=True, metavar="C.json", help="{clip: caption}")
    form = "{clip: [caption, ...]}, a manifest.jsonl, or the file of MSVD, MSR-VTT, AudioCaps or Clotho"
    several = f"{form}; several give a table each, and captions for the clips of all of them are needed"
    captions.add_argument("--references", required=True, nargs="+", action="extend", metavar="R", help=several)
    captions.add_argument("--split", default="test", help="of the manifests among the references (default: test)")
    captions.add_argument("--training", metavar="R", help="training captions, to say which candidates are none of them")
    labels = kinds.add_parser("labels", help="mAP, ROC-AUC, d-prime, EER, F1, accuracy, per class")
    truth = "one object a line: id, labels {class: probability}, truth {labels: [class, ...]}"
    labels.add_argument("--predictions", required=True, metavar="P.jsonl", help=truth)
    labels.add_argument("--target", choices=("multi", "single"), default="multi", help="several classes a clip, or one")
    separation = kinds.add_parser("separation", help="SI-SDR, SI-SDRi, SNR, SDR, SIR, SAR with the permutation solved")
    chosen = "the figure that the permutation is best for (default: si_sdr); none keeps the order of the names"
    separation.add_argument("--permute-by", choices=("si_sdr", "sdr", "sir", "none"), default="si_sdr", help=chosen)
    events = kinds.add_parser("events", help="segment-, event- and intersection-based F1 and error rates")
    events.add_argument("--lengths", metavar="FILE", help="file and its seconds a line, to count silence at the end")
    for kind, what in ((separation, "folder of wav files, by name"), (events, "[file,] onset, offset, label by tabs")):
        kind.add_argument("--references", required=True, metavar="PATH", help=f"the truth: {what}")
        kind.add_argument("--estimates", required=True, metavar="PATH", help="what to score, of the same form")
    for kind in (captions, labels, separation, events):
        kind.add_argument("--json", action="store_true", help="all figures as one JSON object")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    from mmfusion.metrics import scoring
    from mmfusion.metrics import scoring_sound as sound

    if options.kind == "captions":
        from mmfusion.data.catalog.references import read_references

        sources = {path: read_references(path, options.split) for path in options.references}
        training = read_references(options.training, "train").values() if options.training else None
        seen = None if training is None else {text for texts in training for text in texts}
        tables = scoring.score_captions(options.candidates, sources, seen)
    elif options.kind == "labels":
        tables = {options.predictions: scoring.score_labels(options.predictions, options.target)}
    elif options.kind == "separation":
        tables = {options.references: sound.score_separation(options.references, options.estimates, options.permute_by)}
    else:
        tables = sound.score_events(options.references, options.estimates, options.lengths)
    print(scoring.format_tables(tables, options.json))


if __name__ == "__main__":
    run_tool(main)
