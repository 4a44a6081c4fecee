"""Captions that no model made: what is chosen, and rows of a comparison that train nothing."""

from __future__ import annotations

import csv
import functools
import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from mmfusion import evaluate
from mmfusion.data.features import write_features
from mmfusion.data.inputs import WaveformInput
from mmfusion.data.manifest import write_manifest
from mmfusion.metrics.captions import caption_metrics
from mmfusion.metrics.meteor import Meteor
from mmfusion.report import execute as execute_module
from mmfusion.report.baseline_runs import baseline_done, make_baseline, mean_features
from mmfusion.report.baselines import caption_vectors, constant_caption, human, nearest_neighbour_consensus
from mmfusion.report.comparison import ComparisonConfig, Job, jobs_of, load_comparison
from mmfusion.report.execute import make_ready
from mmfusion.report.page import write_page
from mmfusion.report.table import make_table
from mmfusion.report.write import as_csv, as_markdown, read_published
from mmfusion.training.run import Run
from mmfusion.types import Clip, InputError

TRAINING = {
    "t0": ["A dog runs in a field.", "a dog runs", "the dog is running in a field"],
    "t1": ["a dog runs in the park", "a brown dog runs", "a puppy plays"],
    "t2": ["a man plays a guitar", "a man is playing the guitar", "someone plays guitar"],
    "t3": ["a woman slices an onion", "a cook cuts an onion"],
}
# Two features: dogs lie right, guitars up, onions left.
NEAR = {"t0": (2.0, 0.1), "t1": (1.8, -0.1), "t2": (0.0, 2.0), "t3": (-2.0, 0.0)}
TEST = {
    "c0": (["a dog is running", "a dog runs in a field", "dogs"], (3.0, 0.0)),
    "c1": (["a boy plays the guitar", "a man plays a guitar", "music"], (0.1, 3.0)),
    "c2": (["a person cuts an onion", "an onion is sliced"], (-3.0, 0.2)),
}


def arrays(vectors: dict[str, tuple[float, float]]) -> dict[str, np.ndarray]:
    return {clip: np.array(vector) for clip, vector in vectors.items()}


def test_likeness_of_captions_is_ciders() -> None:
    """Worked out by hand from equation 1 for three clips of one caption: idf is log 3 of all but `a`, log 1.5."""
    vectors = caption_vectors(["a dog", "a dog runs", "rain"], np.array([0, 1, 2])).toarray()
    likeness = vectors @ vectors.T
    a = dog = np.log(1.5)
    runs = np.log(3)
    words = (a * a + dog * dog) / np.hypot(a, dog) / np.linalg.norm([a, dog, runs])
    pairs = a * a / a / np.hypot(a, runs)  # "a dog" is in two clips, "dog runs" in one
    assert likeness[0, 1] == pytest.approx((words + pairs) / 4)
    assert likeness.diagonal() == pytest.approx([2 / 4, 3 / 4, 1 / 4])  # orders that a caption is long enough for
    assert likeness[0, 2] == likeness[1, 2] == 0


def test_constant_is_the_caption_that_is_most_like_the_training_clips() -> None:
    texts = [text for own in TRAINING.values() for text in own]
    owners = np.repeat(np.arange(4), [len(own) for own in TRAINING.values()])
    vectors = caption_vectors(texts, owners).toarray()
    score = np.mean([(vectors @ vectors[owners == clip].T).mean(axis=1) for clip in range(4)], axis=0)
    assert constant_caption(TEST, TRAINING) == dict.fromkeys(TEST, texts[score.argmax()])
    assert texts[score.argmax()] == "A dog runs in a field."
    assert constant_caption(TEST, {"t": ["one", "one", "two"]}) == dict.fromkeys(TEST, "one")
    assert constant_caption(["x"], {}, "as given") == {"x": "as given"}
    with pytest.raises(InputError, match="training clips have none"):
        constant_caption(["x"], {"t": []})


def test_nearest_neighbours_agree_on_a_caption() -> None:
    test = arrays({clip: vector for clip, (_, vector) in TEST.items()})
    said = nearest_neighbour_consensus(test, arrays(NEAR), TRAINING, num_neighbours=2)
    assert said["c0"] in TRAINING["t0"] + TRAINING["t1"] and said["c0"] != "a puppy plays"
    one = nearest_neighbour_consensus(test, arrays(NEAR), TRAINING, num_neighbours=1)
    assert one["c1"] in TRAINING["t2"] and one["c1"] != "someone plays guitar" and one["c2"] in TRAINING["t3"]
    # Scale and offset of a feature mean nothing, and neither does a feature that no clip has.
    moved = [
        {clip: np.array([9 * x + 4, 0.1 * y - 7, np.nan]) for clip, (x, y) in side.items()} for side in (test, NEAR)
    ]
    assert nearest_neighbour_consensus(*moved, TRAINING, num_neighbours=1) == one
    # More neighbours than there are clips with captions are all of them.
    everyone = nearest_neighbour_consensus(test, arrays(NEAR), {**TRAINING, "t3": []}, num_neighbours=99)
    assert len(set(everyone.values())) == 1


def test_human_is_a_reference_that_is_left_out_of_its_own_references() -> None:
    references = {clip: texts for clip, (texts, _) in TEST.items()}
    said, left = human(references, seed=3)
    for clip, texts in references.items():
        assert sorted([said[clip], *left[clip]]) == sorted(texts)
    assert human({"c1": references["c1"]}, seed=3)[0]["c1"] == said["c1"]
    many = {str(n): ["x", "y"] for n in range(200)}
    shares = [list(human(many, seed)[0].values()).count("x") / 200 for seed in (0, 1)]
    assert all(0.4 < share < 0.6 for share in shares) and human(many, 0)[0] != human(many, 1)[0]
    with pytest.raises(InputError, match="clip c has 1 reference"):
        human({"c": ["x"]}, 0)


RUN = {
    "name": "start",
    "data": {"max_duration_s": 10, "inputs": {"seen": {"kind": "features"}}},
    "model": {"encoders": {"seen": {"kind": "precomputed"}}, "heads": {"caption": {"kind": "caption"}},
              "fusion": {"depth": "none"}},
}  # fmt: skip
ROWS = {
    "constant": {"baseline": "constant", "says": "a dog runs"},
    "nearest": {"baseline": "nearest", "neighbours": 1},
    "human": {"title": "people", "baseline": "human"},
}
FIGURES = [{"name": "caption.cider", "title": "CIDEr", "significance": True},
           {"name": "caption.share_unseen", "title": "unseen"}]  # fmt: skip


def make_comparison(folder: Path, **changes: object) -> tuple[ComparisonConfig, list[Job]]:
    """A set of seven clips with one feature stream, and a comparison of the three baselines on it."""
    train = {clip: (TRAINING[clip], vector) for clip, vector in NEAR.items()}
    clips = []
    for split, part in (("train", train), ("test", TEST)):
        for clip, (captions, vector) in part.items():
            file = f"{clip}.npz"
            write_features(folder / file, np.array([vector, vector], np.float32), 1.0)
            clips.append(Clip(id=clip, media={"seen": file}, split=split, group=clip, captions=tuple(captions)))
    write_manifest(folder / "manifest.jsonl", clips)
    data = {**RUN["data"], "manifest": str(folder / "manifest.jsonl"), "cache": str(folder / "cache")}
    (folder / "run.yaml").write_text(yaml.safe_dump({**RUN, "data": data, "runs": str(folder / "runs")}))
    tree = {"name": "tiny", "title": "Baselines", "config": "run.yaml", "rows": ROWS, "seeds": [0, 1],
            "figures": FIGURES, "reference": ["nearest"], "num_resamples": 100, "workers": 1, **changes}  # fmt: skip
    (folder / "comparison.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    comparison = load_comparison(folder / "comparison.yaml")
    return comparison, jobs_of(comparison, folder / "comparison.yaml")


@pytest.fixture(scope="module")
def meteor() -> Iterator[Meteor]:
    with Meteor(deadline_s=250) as process:
        yield process


@pytest.fixture
def made(tmp_path: Path, meteor: Meteor, monkeypatch) -> tuple[ComparisonConfig, list[Job]]:
    """The comparison with all its runs, scored by one METEOR process."""
    monkeypatch.setattr(evaluate, "caption_metrics", functools.partial(caption_metrics, meteor=meteor))
    comparison, jobs = make_comparison(tmp_path)
    make_ready(comparison, jobs)
    for job in jobs:
        assert job.instead and not baseline_done(job.config, job.instead, "test")
        make_baseline(job.config, job.instead, "test")
    return comparison, jobs


def test_rows_of_baselines_stand_in_table_and_page(made, tmp_path: Path, monkeypatch) -> None:
    comparison, jobs = made
    assert [(job.row, job.seed) for job in jobs] == [("constant", 0), ("nearest", 0), ("human", 0), ("human", 1)]
    monkeypatch.setattr(execute_module, "ProcessPoolExecutor", None)  # nothing is left to do
    execute_module.execute(comparison, jobs)
    table = make_table(comparison, jobs)
    constant, nearest, people = table.rows
    assert [row.num_parameters for row in table.rows] == [0, 0, 0] and nearest.training_s == 0
    assert (constant.num_runs, people.num_runs) == (1, 2)
    assert people.title == "people (one reference against the others)"
    assert constant.cells[1].mean == nearest.cells[1].mean == 0 < people.cells[1].mean
    assert nearest.cells[0].mean > constant.cells[0].mean
    text = as_markdown(table, [])
    assert "| people (one reference against the others) |" in text and "its references lack that one" in text
    assert len(list(csv.DictReader(io.StringIO(as_csv(table))))) == 6
    write_page(table, jobs, [], tmp_path / "index.html")
    assert "people (one reference against the others)" in (tmp_path / "index.html").read_text()


def test_a_human_rows_references_lack_what_is_said(made) -> None:
    _, jobs = made
    said = {}
    for job in jobs:
        rows = [json.loads(line) for line in (job.config.folder / "predictions.test.jsonl").read_text().splitlines()]
        for row in rows:
            texts = TEST[row["id"]][0]
            left = (
                sorted([*row["truth"]["captions"], row["caption"]]) if job.row == "human" else row["truth"]["captions"]
            )
            assert left == (sorted(texts) if job.row == "human" else texts)
        said[job.row, job.seed] = [row["caption"] for row in rows]
    assert set(said["constant", 0]) == {"a dog runs"}
    metrics = [Run.open(job.config.folder).read_json("metrics.test.json") for job in jobs]
    assert len({(m["clips"], m["manifest"], m["num_clips"]) for m in metrics}) == 1


def test_a_baseline_is_made_again_when_it_is_another_one(made, tmp_path: Path) -> None:
    _, jobs = made
    constant, nearest = jobs[:2]
    assert baseline_done(constant.config, constant.instead, "test")
    assert not baseline_done(constant.config, constant.instead, "val")
    assert not baseline_done(constant.config, nearest.instead, "test")
    rows = {
        **ROWS,
        "constant": {"baseline": "constant"},
        "nearest": {**ROWS["nearest"], "set": {"vocabulary.min_count": 2}},
    }
    _, changed = make_comparison(tmp_path, rows=rows)
    assert [baseline_done(job.config, job.instead, "test") for job in changed] == [False, False, True, True]
    (tmp_path / "manifest.jsonl").write_text((tmp_path / "manifest.jsonl").read_text() + "\n")
    assert not baseline_done(constant.config, constant.instead, "test")


def test_a_trained_run_is_not_overwritten(tmp_path: Path) -> None:
    _, jobs = make_comparison(tmp_path)
    run = Run.create(jobs[0].config)
    run.weights.touch()
    with pytest.raises(InputError, match="holds a trained run"):
        make_baseline(jobs[0].config, jobs[0].instead, "test")


def test_nearness_needs_features() -> None:
    cache = SimpleNamespace(inputs={"audio": WaveformInput()}, manifest=SimpleNamespace(path="manifest.jsonl"))
    with pytest.raises(InputError, match=r"manifest\.jsonl: a nearest row compares features"):
        mean_features(cache, [])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"a": {"baseline": "nearest", "says": "x"}}, r"rows\.a\.says: only a row with baseline: constant"),
        ({"a": {"neighbours": 3}}, r"rows\.a\.neighbours: only a row with baseline: nearest"),
        ({"a": {"baseline": "human"}, "b": {"parts": {"seen": "a"}}}, r"rows\.b\.parts\.seen: 'a' is not a row"),
        (
            {"b": {}, "a": {"baseline": "human", "parts": {"seen": "b"}}},
            r"rows\.a: parts and baseline exclude",
        ),
        ({"a": {"baseline": "random"}}, "baseline"),
        (
            {"a": {"baseline": "human", "set": {"model.heads": {"caption": {"kind": "labels", "target": "multi"}}}}},
            r"figures\.0\.name: row a says captions only",
        ),
    ],
)
def test_mistakes_are_named(tmp_path: Path, rows: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_comparison(tmp_path, rows=rows, reference=[])


def test_published_captions_are_readable(root: Path) -> None:
    entries = read_published(root / "data" / "published" / "venugopalan2016.yaml")
    assert len(entries) == 14 and all("not checked against the paper" in entry["note"] for entry in entries)
    best = [entry["value"] for entry in entries if entry["system"] == "ensemble"]
    assert best == [31.4, 42.1]
