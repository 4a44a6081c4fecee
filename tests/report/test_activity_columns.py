"""Figures of single seconds as columns of a table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmfusion.config import to_tree
from mmfusion.data.cache import build_cache
from mmfusion.data.manifest import read_manifest
from mmfusion.evaluate import evaluate
from mmfusion.report.baseline_runs import make_baseline
from mmfusion.report.comparison import Baseline, Job, jobs_of, load_comparison
from mmfusion.report.table import make_table
from mmfusion.report.write import as_markdown
from mmfusion.training.loop import train
from mmfusion.types import InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from tiny_sounds import tagger_of, write_sounds

F1, ERROR_RATE = "activity.segment_based.f1_micro", "activity.event_based.error_rate"
ROWS = {
    "seconds": {},
    "clips": {"set": {"model.heads.labels.per_second": False}},
    "knn": {"baseline": "knn"},
}


def jobs_in(folder: Path, rows: dict[str, Any] = ROWS, significance: bool = False) -> tuple[Any, list[Job]]:
    config = tagger_of(folder / "set" / "manifest.jsonl", folder, training__epochs=2)
    (folder / "run.yaml").write_text(yaml.safe_dump(to_tree(config)))
    figures = [{"name": "labels.map", "title": "mAP", "significance": True},
               {"name": F1, "title": "segment F1", "significance": significance},
               {"name": ERROR_RATE, "title": "event ER", "scale": 1, "lowest_wins": True}]  # fmt: skip
    tree = {"name": "tiny", "title": "Tiny", "config": "run.yaml", "rows": rows, "figures": figures,
            "reference": ["seconds"] if "seconds" in rows else [], "num_resamples": 100}  # fmt: skip
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    comparison = load_comparison(folder / "tiny.yaml")
    return comparison, jobs_of(comparison, folder / "tiny.yaml")


def test_rows_that_hear_seconds_have_their_figures(tmp_path: Path) -> None:
    manifest = read_manifest(write_sounds(tmp_path / "set"))
    comparison, jobs = jobs_in(tmp_path)
    for job in jobs:
        build_cache(manifest, job.config.data, progress=False)
        if isinstance(job.instead, Baseline):
            make_baseline(job.config, job.instead, "test")
        else:
            evaluate(train(job.config, quiet=True), quiet=True)
    table = make_table(comparison, jobs)
    cells = {row.key: row.cells for row in table.rows}
    run = jobs[0].config.folder / "metrics.test.json"
    own = yaml.safe_load(run.read_text())["activity"]
    assert cells["seconds"][1].values == (own["segment_based"]["f1_micro"],)
    assert cells["seconds"][2].values == (own["event_based"]["error_rate"],)
    for row in ("clips", "knn"):
        assert cells[row][0].values and not cells[row][1].values and not cells[row][2].values
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in as_markdown(table, []).splitlines()}
    assert lines["knn"].count(" - |") >= 2


def test_columns_that_no_row_can_fill_are_named(tmp_path: Path) -> None:
    write_sounds(tmp_path / "set")
    without = {name: row for name, row in ROWS.items() if name != "seconds"}
    with pytest.raises(InputError, match=r"figures\.1\.name: activity is that of a label head with per_second: true"):
        jobs_in(tmp_path, without)
    with pytest.raises(InputError, match=r"figures\.1\.name: figures of single seconds cannot be resampled"):
        jobs_in(tmp_path, significance=True)
