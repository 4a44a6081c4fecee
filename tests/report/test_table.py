"""Means, spreads, intervals and tests against values worked out by hand, and what must not stand in one table."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import pytest
import yaml
from fake_runs import AUDIO, TRUTH, make_comparison, make_run, right_first

from mmfusion.metrics.significance import bootstrap_interval, mean_of
from mmfusion.metrics.source_clips import by_source_clip
from mmfusion.report.page import write_page
from mmfusion.report.table import Table, make_table
from mmfusion.report.write import as_csv, as_markdown, provenance_lines, read_published
from mmfusion.types import InputError

# How many of the eight clips each run gets right.
RIGHT = {("audio", 0): 2, ("audio", 1): 4, ("both", 0): 7, ("both", 1): 8}


def tiny(folder: Path, **changes: object) -> Table:
    comparison, jobs = make_comparison(folder, **changes)
    for job in jobs:
        make_run(job, lambda job, clip: right_first(RIGHT[job.row, job.seed])(clip))
    return make_table(comparison, jobs)


def test_mean_sd_and_cost(tmp_path: Path) -> None:
    table = tiny(tmp_path)
    audio, both = (row.cells[0] for row in table.rows)
    assert audio.values == (0.25, 0.5) and both.values == (0.875, 1.0)
    assert audio.mean == 0.375 and both.mean == 0.9375
    assert audio.sd == pytest.approx(0.25 / math.sqrt(2))
    assert [row.num_parameters for row in table.rows] == [12345, 1234567]
    assert [row.training_s for row in table.rows] == [20.0, 20.0]
    assert table.num_clips == 8 and table.references == ("audio",)


def test_difference_and_p(tmp_path: Path) -> None:
    """A clip's difference is at least 0 and mostly positive: only the draws of all-equal clips speak against it."""
    table = tiny(tmp_path)
    audio, both = (row.cells[0] for row in table.rows)
    assert audio.difference is None and audio.p is None
    assert both.difference == pytest.approx(0.5625)
    # Mean over seeds of right answers differs by 0 in the first two clips, else by 1/2 or 1: p is 2 (1 + k) / 201,
    # k counting draws of nothing but those two clips, whose chance is 4^-8.
    assert both.p == pytest.approx(2 / 201)
    assert both.low is not None and both.high is not None and both.low <= both.mean <= both.high
    assert audio.low is not None and 0 <= audio.low < audio.mean


def test_equal_rows_have_p_one(tmp_path: Path) -> None:
    comparison, jobs = make_comparison(tmp_path)
    for job in jobs:
        make_run(job, lambda _, clip: right_first(4)(clip))
    cell = make_table(comparison, jobs).rows[1].cells[0]
    assert (cell.difference, cell.p, cell.sd) == (0.0, 1.0, 0.0)


def test_interval_of_a_mean_is_binomial(tmp_path: Path) -> None:
    """Half of eight clips right: a draw's share is Binomial(8, 1/2) / 8, whose 2.5 % quantiles are 1/8 and 7/8."""
    comparison, jobs = make_comparison(tmp_path, seeds=[0], num_resamples=2000)
    for job in jobs:
        make_run(job, lambda _, clip: right_first(4)(clip))
    cell = make_table(comparison, jobs).rows[0].cells[0]
    assert (cell.low, cell.high, cell.sd) == (0.125, 0.875, None)


def test_figures_of_mixtures_are_resampled_by_their_source_clips(tmp_path: Path) -> None:
    mixtures = {"data.mixture": {"num_sources": 2}, "model.heads.labels.target": "multi"}
    comparison, jobs = make_comparison(
        tmp_path, rows={"audio": {"set": {**AUDIO, **mixtures}}}, seeds=[0], reference=[]
    )
    run = make_run(jobs[0], lambda job, clip: right_first(4)(clip))
    # The four mixtures that are right share two clips, and those that are wrong two others.
    clips = [["a", "b"]] * 4 + [["c", "d"]] * 4
    path = run.folder / "predictions.test.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row, own in zip(rows, clips, strict=True):
        row["truth"]["sources"] = [{"label": clip, "clip": clip} for clip in own]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = make_table(comparison, jobs)
    (cell,) = table.rows[0].cells
    right = mean_of([1.0] * 4 + [0.0] * 4)
    expected = bootstrap_interval(by_source_clip(right, clips, 0.0, 1.0), num_samples=200)
    assert (cell.mean, cell.low, cell.high) == pytest.approx((0.5, expected.low, expected.high))
    independent = bootstrap_interval(right, num_samples=200)
    assert expected.low < independent.low and expected.high > independent.high
    assert "interval over the source clips of 8 test mixtures" in as_markdown(table, [])


def test_folds_count_each_clip_once(tmp_path: Path) -> None:
    comparison, jobs = make_comparison(tmp_path, folds={"a": {}, "b": {}}, seeds=[0])
    for job in jobs:
        truth = {f"{job.fold}{clip}": labels for clip, labels in TRUTH.items()}
        right = {"a": 8, "b": 4}[job.fold] if job.row == "both" else 4
        make_run(job, lambda _, clip, n=right, t=truth: right_first(n, t)(clip), truth)
    table = make_table(comparison, jobs)
    assert table.num_clips == 16
    assert table.rows[1].cells[0].values == (1.0, 0.5)
    assert table.rows[1].cells[0].difference == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("key", "facts"),
    [
        ("clips", {"clips": "other clips"}),
        ("split", {"split": "val"}),
        ("caption.tokenizer", {"caption": {"tokenizer": "another"}}),
        ("caption.scorer", {"caption": {"scorer": "another"}}),
    ],
)
def test_rows_that_were_scored_otherwise_are_refused(tmp_path: Path, key: str, facts: dict) -> None:
    comparison, jobs = make_comparison(tmp_path, seeds=[0])
    usual = {"caption": {"tokenizer": "one", "scorer": "one"}}
    for job in jobs:
        make_run(job, lambda _, clip: right_first(4)(clip), **{**usual, **(facts if job.row == "both" else {})})
    with pytest.raises(InputError, match=f"{key} differs from that of .*not belong in one table"):
        make_table(comparison, jobs)


@pytest.mark.parametrize("seeds", [[0, 1, 2]])
def test_a_row_without_captions_does_not_hide_two_scorers(tmp_path: Path, seeds: list[int]) -> None:
    comparison, jobs = make_comparison(tmp_path, seeds=seeds)
    for number, job in enumerate(jobs):
        facts = {} if number == 0 else {"caption": {"scorer": f"one {number % 2}"}}
        make_run(job, lambda _, clip: right_first(4)(clip), **facts)
    with pytest.raises(InputError, match=r"caption\.scorer differs from that of .*not belong in one table"):
        make_table(comparison, jobs)


def test_a_figure_that_nobody_computed_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no figure labels\.beauty"):
        tiny(tmp_path, figures=[{"name": "labels.beauty", "title": "beauty"}])


def test_a_row_without_the_head_has_an_empty_cell_and_is_tested_against_nothing(tmp_path: Path) -> None:
    other = {"model.heads": {"tagger": {"kind": "labels", "target": "single"}}}
    rows = {"audio": {"set": AUDIO}, "both": {}, "other": {"set": other}}
    comparison, jobs = make_comparison(tmp_path, rows=rows, seeds=[0], reference=["other", "audio"])
    for job in jobs:
        make_run(job, lambda job, clip: right_first({"audio": 4, "both": 7, "other": 8}[job.row])(clip))
    table = make_table(comparison, jobs)
    assert table.references == ("audio",) and [row.cells[0].values for row in table.rows] == [(0.5,), (0.875,), ()]
    text = as_markdown(table, [])
    assert "| other | - |" in text and "| both | 87.5 [" in text
    assert [row["mean"] for row in csv.DictReader(io.StringIO(as_csv(table)))] == ["0.5", "0.875", ""]
    write_page(table, jobs, [], tmp_path / "page.html")
    assert "nan" not in (tmp_path / "page.html").read_text()
    with pytest.raises(InputError, match=r"figures\.0\.name: no row has a head 'nobody'"):
        make_comparison(tmp_path, rows=rows, figures=[{"name": "nobody.accuracy", "title": "x"}])


def test_where_the_lowest_wins_the_reference_is_the_lowest(tmp_path: Path) -> None:
    figures = [{"name": "labels.accuracy", "title": "error", "significance": True, "lowest_wins": True}]
    assert tiny(tmp_path, figures=figures, reference=["both", "audio"]).references == ("audio",)


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    comparison, jobs = make_comparison(tmp_path)
    with pytest.raises(InputError, match="tiny-audio/seed0"):
        make_table(comparison, jobs)


def test_markdown(tmp_path: Path) -> None:
    table = tiny(tmp_path, notes=["A *note*."])
    text = as_markdown(table, [])
    lines = text.splitlines()
    assert lines[0] == "# Two variants & a <test>"
    assert lines[2] == "|  | accuracy (%) | parameters | training |"
    assert lines[4].startswith("| audio alone | 37.5 ± 17.7 [") and lines[4].endswith("| 12.3 k | 20 s |")
    assert "93.8 ± 8.8 [" in lines[5] and "p = 0.010" in lines[5] and "| 1.23 M |" in lines[5]
    assert "A *note*." in lines and "Reported elsewhere" not in text
    assert "paired bootstrap against audio alone" in text


def test_csv(tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(tiny(tmp_path)))))
    assert [row["row"] for row in rows] == ["audio", "both"]
    assert float(rows[0]["mean"]) == 0.375 and float(rows[0]["sd"]) == pytest.approx(0.176777)
    assert rows[0]["p"] == "" and float(rows[1]["difference"]) == 0.5625
    assert (rows[1]["runs"], rows[1]["parameters"], rows[1]["training_s"]) == ("2", "1234567", "20.0")


def test_published_numbers_stand_in_a_block_of_their_own(tmp_path: Path) -> None:
    entry = {"system": "S", "figure": "mAP", "value": 61.3, "set": "V", "citation": "A 2021", "where": "table 3"}
    path = tmp_path / "published.yaml"
    path.write_text(yaml.safe_dump([entry, {**entry, "note": "ten crops"}]))
    text = as_markdown(tiny(tmp_path), read_published(path))
    before, _, after = text.partition("## Reported elsewhere")
    assert "61.3" not in before and "Not measured here" in after
    assert "| S | mAP | 61.3 | V | A 2021, table 3 |" in after and "A 2021, table 3 (ten crops)" in after


def test_published_numbers_need_their_source(tmp_path: Path) -> None:
    path = tmp_path / "published.yaml"
    path.write_text(yaml.safe_dump([{"system": "S", "figure": "mAP", "value": 1, "citation": "A"}]))
    with pytest.raises(InputError, match=r"published\.yaml: entry 0: where is missing"):
        read_published(path)
    with pytest.raises(InputError, match="no such file"):
        read_published(tmp_path / "nothing.yaml")


def test_provenance_names_command_commit_and_machine(tmp_path: Path) -> None:
    text = "\n".join(provenance_lines(tiny(tmp_path), "python tools/compare.py x.yaml"))
    for part in ("`python tools/compare.py x.yaml`", "abc", "a processor, 2 cores", "torch 2", "4 runs", "seeds 0, 1"):
        assert part in text
