"""Scores captions, label predictions, separated sources or sound events that any system wrote to files."""

from __future__ import annotations

import argparse

from mmfusion.entry import run_tool


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    captions = kinds.add_parser("captions", help="BLEU-1..4, METEOR 1.5, ROUGE_L, CIDEr, and how varied they are")
    captions.add_argument("--candidates", required=True, metavar="C.json", help="{clip: caption}")
    several = "{clip: [caption, ...]}, manifest.jsonl, or a set's own file (docs/metrics.md); several give a table each"
    captions.add_argument("--references", required=True, nargs="+", action="extend", metavar="R", help=several)
    captions.add_argument("--split", default="test", help="of the manifests among the references (default: test)")
    captions.add_argument("--training", metavar="R", help="training captions, to say which candidates are none of them")
    labels = kinds.add_parser("labels", help="mAP, ROC-AUC, d-prime, EER, F1, accuracy, per class")
    labels.add_argument("--predictions", required=True, metavar="P.jsonl", help="a line a clip (docs/metrics.md)")
    labels.add_argument("--target", choices=("multi", "single"), default="multi", help="several classes a clip, or one")
    separation = kinds.add_parser("separation", help="SI-SDR, SI-SDRi, SNR, SDR, SIR, SAR with the permutation solved")
    chosen = "the figure that the permutation is best for (default: si_sdr); none keeps the order of the names"
    separation.add_argument("--permute-by", choices=("si_sdr", "sdr", "sir", "none"), default="si_sdr", help=chosen)
    separation.add_argument("--mixture", metavar="WAV", help="what was separated (default: the sum of the references)")
    events = kinds.add_parser("events", help="segment-, event- and intersection-based F1 and error rates")
    for name, default, what in (("--resolution", 1.0, "of a segment"), ("--collar", 0.2, "that edges may be off")):
        events.add_argument(name, type=float, default=default, metavar="SECONDS", help=f"{what} (default: {default})")
    events.add_argument("--lengths", metavar="FILE", help="file and its seconds a line, to count silence at the end")
    for kind, what in ((separation, "folder of wav files, by name"), (events, "[file,] onset, offset, label by tabs")):
        kind.add_argument("--references", required=True, metavar="PATH", help=f"the truth: {what}")
        kind.add_argument("--estimates", required=True, metavar="PATH", help="what to score, of the same form")
    for kind in kinds.choices.values():
        kind.add_argument("--json", action="store_true", help="all figures as one JSON object")
    return parser.parse_args()


def main() -> None:
    args = parse()
    from mmfusion.metrics import scoring, scoring_sound

    if args.kind == "captions":
        from mmfusion.data.catalog.references import read_references

        sources = {path: read_references(path, args.split) for path in args.references}
        training = read_references(args.training, "train").values() if args.training else ()
        seen = {text for texts in training for text in texts} if args.training else None
        tables = scoring.score_captions(args.candidates, sources, seen)
    elif args.kind == "labels":
        tables = {args.predictions: scoring.score_labels(args.predictions, args.target)}
    elif args.kind == "separation":
        found = scoring_sound.score_separation(args.references, args.estimates, args.permute_by, args.mixture)
        tables = {args.references: found}
    else:
        tables = scoring_sound.score_events(args.references, args.estimates, args.lengths, args.resolution, args.collar)
    print(scoring.format_tables(tables, args.json))


if __name__ == "__main__":
    run_tool(main)
