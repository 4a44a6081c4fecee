"""Rows x folds x seeds, settings that replace and remove, parts, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_runs import AUDIO, make_comparison, make_run, right_first

from mmfusion.data.catalog.registry import settings
from mmfusion.report.comparison import jobs_of, load_comparison
from mmfusion.report.execute import execute
from mmfusion.report.write import read_published
from mmfusion.types import InputError

ROOT = Path(__file__).resolve().parents[2]


def test_rows_times_folds_times_seeds(tmp_path: Path) -> None:
    _, jobs = make_comparison(tmp_path, folds={"a": {"data.test_split": "x"}, "b": {}}, seeds=[3, 4])
    assert [(job.row, job.fold, job.seed) for job in jobs] == [
        (row, fold, seed) for row in ("audio", "both") for fold in "ab" for seed in (3, 4)
    ]
    assert jobs[0].config.data.test_split == "x" and jobs[2].config.data.test_split == "test"
    assert jobs[1].config.folder == tmp_path / "runs" / "tiny-audio+a" / "seed4"
    assert len({job.config.folder for job in jobs}) == len(jobs)


def test_settings_of_a_row_replace_and_remove(tmp_path: Path) -> None:
    changes = {**AUDIO, "training.clip_norm": None, "model.recurrent": None, "training.optimiser.lr": 0.5}
    _, jobs = make_comparison(tmp_path, rows={"audio": {"set": changes}, "both": {}}, seeds=[0])
    audio, both = (job.config for job in jobs)
    assert list(audio.model.encoders) == ["audio"] and list(audio.data.inputs) == ["audio"]
    assert audio.model.fusion.depth == "none" and audio.training.clip_norm is None and audio.model.recurrent is None
    assert audio.training.optimiser.lr == 0.5
    assert list(both.model.encoders) == ["audio", "video"] and both.model.recurrent is not None


def test_a_row_wins_over_its_fold(tmp_path: Path) -> None:
    rows = {"audio": {"set": {**AUDIO, "training.epochs": 2}}, "both": {}}
    _, jobs = make_comparison(tmp_path, rows=rows, folds={"a": {"training.epochs": 1}}, seeds=[0])
    assert [job.config.training.epochs for job in jobs] == [2, 1]


def test_blocks_of_a_fold_are_not_shared_between_rows(tmp_path: Path) -> None:
    folds = {"a": {"training.optimiser": {"lr": 0.25}}}
    rows = {"both": {"set": {"training.optimiser.lr": 0.5}}, "audio": {"set": AUDIO}}
    _, jobs = make_comparison(tmp_path, rows=rows, folds=folds, seeds=[0])
    assert [job.config.training.optimiser.lr for job in jobs] == [0.5, 0.25]


def test_parts_come_from_the_same_fold_and_seed(tmp_path: Path) -> None:
    rows = {"audio": {"set": AUDIO}, "both": {"parts": {"audio": "audio"}}}
    _, jobs = make_comparison(tmp_path, rows=rows, folds={"a": {}, "b": {}}, seeds=[0, 1])
    for job in jobs[4:]:
        (needed,) = job.needs
        assert needed == tmp_path / "runs" / f"tiny-audio+{job.fold}" / f"seed{job.seed}"
        assert job.config.training.parts_from == {"audio": str(needed)}
    assert all(job.needs == () for job in jobs[:4])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": ["nobody"]}, "reference: there is no row 'nobody'"),
        ({"rows": {"both": {"parts": {"audio": "nobody"}}}, "reference": []}, r"rows\.both\.parts\.audio: 'nobody'"),
        ({"rows": {"both": {"set": {"model.fusion.dept": 1}}}, "reference": []}, r"rows\.both .*dept"),
        ({"rows": {"both": {"set": {"name.more": 1}}}, "reference": []}, r"rows\.both: name\.more cannot be set"),
        ({"rows": {"both": {"config": "nothing.yaml"}}, "reference": []}, r"nothing\.yaml: no such file"),
        ({"figures": []}, "figures"),
        ({"titel": "x"}, "titel"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_comparison(tmp_path, **changes)


def test_overrides(tmp_path: Path) -> None:
    make_comparison(tmp_path)
    path = tmp_path / "comparison.yaml"
    comparison = load_comparison(path, ("seeds=[7]", "rows.both.set={training.epochs: 1}"))
    assert [(job.seed, job.config.training.epochs) for job in jobs_of(comparison, path)] == [(7, 10), (7, 1)]


def test_finished_runs_are_left_alone_unless_they_had_other_settings(tmp_path: Path) -> None:
    comparison, jobs = make_comparison(tmp_path, seeds=[0])
    for job in jobs:
        make_run(job, lambda _, clip: right_first(4)(clip))
    execute(comparison, jobs)
    comparison, jobs = make_comparison(tmp_path, seeds=[0], rows={"audio": {"set": {**AUDIO, "training.epochs": 1}}})
    with pytest.raises(InputError, match=r"trained with training\.epochs = 10, now asked for 1"):
        execute(comparison, jobs)


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "compare").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_comparison_asks_for_runs_that_can_be_made(path: Path) -> None:
    comparison = load_comparison(path)
    jobs = jobs_of(comparison, path)
    assert len(jobs) >= len(comparison.rows)
    for wanted in comparison.prepare:
        settings(wanted.name, wanted.options)
    if comparison.published:
        assert read_published(path.parent / comparison.published)
