"""Random search: draws within their ranges, the same for ever, each a row; and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_runs import make_comparison, make_run, right_first

from mmfusion.config import validate
from mmfusion.report.comparison import jobs_of, load_comparison
from mmfusion.report.execute import execute
from mmfusion.report.search import RandomSearchConfig, draw
from mmfusion.report.table import make_table
from mmfusion.report.write import as_markdown
from mmfusion.types import InputError

ROOT = Path(__file__).resolve().parents[2]
RANGES: dict[str, Any] = {
    "training.optimiser.lr": {"kind": "loguniform", "low": 1e-4, "high": 1e-1},
    "training.optimiser.weight_decay": {"kind": "uniform", "low": 0.1, "high": 0.3},
    "model.recurrent.size": {"kind": "int", "low": 4, "high": 6},
    "training.precision": {"kind": "choice", "values": ["fp32", "bf16"]},
}


def search_of(**changes: Any) -> RandomSearchConfig:
    tree = {"row": "both", "num_draws": 4, "ranges": RANGES, **changes}
    return validate(RandomSearchConfig, tree, "test")


def test_draws_lie_in_their_ranges_and_fill_them() -> None:
    drawn = [draw(search_of(), number) for number in range(400)]
    rates = [settings["training.optimiser.lr"] for settings in drawn]
    assert 1e-4 <= min(rates) < 2e-4 and 5e-2 < max(rates) <= 1e-1
    assert 0.25 < sum(rate < 1e-3 for rate in rates) / 400 < 0.42  # a third of the magnitudes
    decays = [settings["training.optimiser.weight_decay"] for settings in drawn]
    assert 0.1 <= min(decays) < 0.11 and 0.29 < max(decays) <= 0.3
    assert {settings["model.recurrent.size"] for settings in drawn} == {4, 5, 6}
    assert {settings["training.precision"] for settings in drawn} == {"fp32", "bf16"}


def test_a_draw_depends_on_seed_number_and_name_alone() -> None:
    first = [draw(search_of(), number) for number in range(3)]
    assert [draw(search_of(num_draws=50), number) for number in range(3)] == first
    fewer = {name: RANGES[name] for name in list(RANGES)[1:]}
    for number, settings in enumerate(first):
        assert draw(search_of(ranges=fewer), number) == {name: settings[name] for name in fewer}
    assert draw(search_of(seed=1), 0) != first[0] and first[0] != first[1]


def make_search(folder: Path, **changes: Any) -> Any:
    search = {"row": "both", "num_draws": 3, "ranges": RANGES} | changes.pop("search", {})
    return make_comparison(folder, seeds=[0], split="val", search=search, **changes)


def test_every_draw_is_a_row_with_what_was_drawn(tmp_path: Path) -> None:
    comparison, jobs = make_search(tmp_path)
    assert list(comparison.rows) == ["audio", "both", "both-draw000", "both-draw001", "both-draw002"]
    for number, job in enumerate(jobs[2:]):
        drawn = draw(comparison.search, number)
        assert job.config.training.optimiser.lr == drawn["training.optimiser.lr"]
        assert job.config.model.recurrent.size == drawn["model.recurrent.size"]
        assert job.config.training.precision == drawn["training.precision"]
        title = comparison.rows[job.row].title
        assert title.startswith(f"draw {number}: lr ") and f"size {drawn['model.recurrent.size']}" in title


def test_a_search_goes_on_where_it_was_and_ranks_its_draws(tmp_path: Path) -> None:
    comparison, jobs = make_search(tmp_path, search={"num_draws": 2})
    right = {"audio": 3, "both": 2, "both-draw000": 4, "both-draw001": 7, "both-draw002": 6}
    for job in jobs:
        make_run(job, lambda job, clip: right_first(right[job.row])(clip), scored="val")
    execute(comparison, jobs)  # all of it is there
    comparison, jobs = make_search(tmp_path)
    assert not (jobs[-1].config.folder / "weights.safetensors").exists()
    make_run(jobs[-1], lambda job, clip: right_first(right[job.row])(clip), scored="val")
    execute(comparison, jobs)
    table = make_table(comparison, jobs)
    assert [row.key for row in table.rows] == ["audio", "both", "both-draw001", "both-draw002", "both-draw000"]
    lines = as_markdown(table, []).splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith("| draw")] == ["| draw 1", "| draw 2", "| draw 0"]


def test_the_search_that_is_shipped_makes_its_draws() -> None:
    path = ROOT / "configs" / "compare" / "esc10_separation_search.yaml"
    comparison = load_comparison(path)
    search = comparison.search
    assert search is not None and comparison.split == "val"
    jobs = {job.row: job.config for job in jobs_of(comparison, path) if job.row.startswith("class-unet")}
    assert len(jobs) == search.num_draws + 1 == 13
    told = set()
    for number in range(search.num_draws):
        config, drawn = jobs[f"class-unet-draw{number:03d}"], draw(search, number)
        encoder: Any = config.model.encoders["audio"]
        assert drawn == {
            "training.optimiser.lr": config.training.optimiser.lr,
            "model.encoders.audio.channels": list(encoder.channels),
            "model.encoders.audio.maps": encoder.maps,
            "model.encoders.audio.dropout": encoder.dropout,
        }
        assert 3e-4 <= config.training.optimiser.lr <= 3e-3 and config.training.epochs == 5
        told.add((encoder.maps, encoder.channels, drawn["training.optimiser.lr"]))
    assert len(told) == len({rate for *_, rate in told}) == 12
    assert {maps for maps, *_ in told} == {8, 16, 24} and len({channels for _, channels, _ in told}) == 3
    # Another draw of the same number would be refused by the run that a first call left behind.
    assert draw(search, 0)["training.optimiser.lr"] == 0.0005512


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": {"row": "nobody"}}, r"search\.row: there is no row 'nobody' that trains on its own"),
        ({"search": {"num_draws": 0}}, r"search\.num_draws"),
        ({"search": {"ranges": {"training.epochs": {"kind": "int", "low": 3, "high": 3}}}}, "low must be below high"),
        ({"search": {"ranges": {"training.epochs": {"kind": "in", "low": 3, "high": 4}}}}, r"search\.ranges"),
        ({"search": {"ranges": {"training.epoch": {"kind": "int", "low": 3, "high": 4}}}}, r"both-draw000 .*epoch"),
        ({"split": "test"}, "search: chooses between its draws, so split must not be the test split"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        search = {"row": "both", "num_draws": 2, "ranges": RANGES} | changes.pop("search", {})
        make_comparison(tmp_path, seeds=[0], **{"split": "val", "search": search, **changes})
