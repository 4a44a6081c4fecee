"""A trained run ranked anew by what is heard, as a row of a comparison."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_run import config_of, write_set

from mmfusion.data.manifest import read_manifest
from mmfusion.evaluate import evaluate, read_rows
from mmfusion.predictor import Predictor
from mmfusion.report import reranked
from mmfusion.report.comparison import Reranked, jobs_of, load_comparison
from mmfusion.report.grounding import Grounder, look
from mmfusion.report.reranked import evaluate_reranked, reranked_done
from mmfusion.training.loop import train
from mmfusion.training.run import Run
from mmfusion.types import InputError

SHORT = {"training__epochs": 8, "search": {"kind": "beam", "beam_size": 4, "max_words": 5}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("reranked")
    made = train(config_of(write_set(folder / "set"), folder, **SHORT), quiet=True)
    evaluate(made, "test", quiet=True)
    return made


# Hears a bell and rain in everything and never a drum, so that the search's choice and the ear's differ.
HEARS = {"bell": 0.0, "drum": 2.0, "rain": 0.0}


def tuned_to(weight: float) -> Callable[..., None]:
    def tune(run: Run, grounder: Grounder, looked: object, figure: str, into: Run) -> None:
        grounder.weight, grounder.thresholds = weight, HEARS

    return tune


def ranked(run: Run, tmp_path: Path, weight: float, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(reranked, "tune", tuned_to(weight))
    name = f"ranked-{weight:g}"
    config = config_of(Path(run.config.data.manifest), tmp_path, name=name, **SHORT)
    assert not reranked_done(config.folder, Reranked(run.folder), "test")
    made = evaluate_reranked(Reranked(run.folder), config, "test")
    assert reranked_done(made.folder, Reranked(run.folder), "test")
    assert not reranked_done(made.folder, Reranked(run.folder, tmp_path), "test")
    return made


def test_weight_zero_leaves_the_searchs_choice(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ranked(run, tmp_path, 0.0, monkeypatch)
    assert read_rows(made.folder / "predictions.test.jsonl") == read_rows(run.folder / "predictions.test.jsonl")
    ours, theirs = (each.read_json("metrics.test.json") for each in (made, run))
    assert ours == theirs


def test_a_great_weight_picks_what_is_heard(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ranked(run, tmp_path, 1e6, monkeypatch)
    grounder = Grounder(run)
    grounder.thresholds = HEARS
    said = {row["id"]: row["caption"] for row in read_rows(made.folder / "predictions.test.jsonl")}
    for each in look(Predictor(run), grounder, read_manifest(run.config.data.manifest), "test"):
        choices = grounder.candidates(each.captions, each.chances)
        best = max(choice.agreement for choice in choices)
        assert said[each.clip.id] == next(choice.caption for choice in choices if choice.agreement == best)
    facts, trained = (each.read_json("provenance.json") for each in (made, run))
    assert facts["num_parameters"] == trained["num_parameters"]
    before = {row["id"]: row["caption"] for row in read_rows(run.folder / "predictions.test.jsonl")}
    assert said != before


COMPARISON = """
name: c
title: C
config: {base}
rows:
  plain: {{}}
  ear: {{set: {{training.epochs: 1}}}}
  ranked: {ranked}
figures: [{{name: caption.cider, title: CIDEr}}]
"""


def comparison(tmp_path: Path, ranked: str):
    from mmfusion.config import save

    save(config_of(write_set(tmp_path / "set"), tmp_path, **SHORT), tmp_path / "base.yaml")
    path = tmp_path / "c.yaml"
    path.write_text(COMPARISON.format(base="base.yaml", ranked=ranked))
    return jobs_of(load_comparison(path), path)


def test_a_row_without_its_file_is_left_out_and_said_so(tmp_path: Path) -> None:
    jobs = comparison(tmp_path, f"{{needs_file: {tmp_path / 'vectors.txt'}, title: vectors}}")
    assert [job.row for job in jobs] == ["plain", "ear"]
    assert load_comparison(tmp_path / "c.yaml").notes == ("Left out: vectors (no file vectors.txt).",)
    (tmp_path / "vectors.txt").write_text("a 1\n")
    path = tmp_path / "c.yaml"
    assert [job.row for job in jobs_of(load_comparison(path), path)] == ["plain", "ear", "ranked"]


def test_a_row_that_ranks_needs_both_runs(tmp_path: Path) -> None:
    plain, ear, ranked = comparison(tmp_path, "{rerank: plain, tagger: ear}")
    assert ranked.needs == (plain.config.folder, ear.config.folder)
    assert ranked.instead == Reranked(plain.config.folder, ear.config.folder)
    assert ranked.config.training == plain.config.training


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{rerank: none}", r"rows\.ranked\.rerank: 'none' is not a row with a model"),
        ("{rerank: ranked}", r"rows\.ranked\.rerank: 'ranked' is not a row with a model"),
        ("{tagger: ear}", r"rows\.ranked\.tagger: only a row with rerank"),
        ("{rerank: plain, set: {seed: 3}}", r"rows\.ranked: has the settings of the row that it ranks"),
        ("{rerank: plain, start: ear}", r"rows\.ranked: start and rerank exclude"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        comparison(tmp_path, row)
