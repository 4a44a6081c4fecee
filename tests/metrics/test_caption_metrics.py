"""Caption metrics as a whole, the score tool, and what they say about input that cannot be used."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mmfusion.data.catalog.references import read_references
from mmfusion.data.manifest import write_manifest
from mmfusion.metrics.captions import CAPTION_METRICS, caption_metrics
from mmfusion.metrics.meteor import Meteor
from mmfusion.metrics.resampled import caption_statistic
from mmfusion.metrics.scoring import format_scores, score_captions, score_labels
from mmfusion.types import Clip, InputError

SAID = {"b": "A dog barks.", "a": "A red ball bounces!", "c": "A red ball bounces", "d": ""}
TRUE = {
    "a": ["a red ball bounces", "the ball jumps up and down"],
    "b": ["a dog is barking loudly", "...", "a barking dog"],
    "c": ["rain falls on the roof"],
    "d": ["a bell swings"],
}


@pytest.fixture(scope="module")
def meteor() -> Iterator[Meteor]:
    with Meteor() as process:
        yield process


@pytest.fixture(scope="module")
def result(meteor: Meteor) -> dict:
    return caption_metrics(TRUE, SAID, meteor)


def test_figures_beside_the_scores(result) -> None:
    assert (result["num_clips"], result["num_distinct"]) == (4, 3)
    assert result["mean_length"] == (3 + 4 + 4 + 0) / 4
    assert result["vocabulary_size"] == len(["a", "dog", "barks", "red", "ball", "bounces"])
    # a dog barks, a red ball bounces (twice): 6 different words of 11, 5 different pairs of 8.
    assert (result["distinct_1"], result["distinct_2"]) == (6 / 11, 5 / 8)
    assert "share_unseen" not in result
    assert result["num_empty_candidates"] == result["num_empty_references"] == 1
    assert result["scorer"] == "pycocoevalcap 1.2" and "stanford-corenlp 3.4.1" in result["tokenizer"]
    assert list(result["per_clip"]) == list(SAID)
    json.dumps(result, allow_nan=False)


def test_captions_unseen_in_training_are_those_that_are_no_training_caption_word_for_word(meteor: Meteor) -> None:
    seen = ["a red ball bounces", "A dog -- barks", "a dog", "..."]
    assert caption_metrics(TRUE, SAID, meteor, seen)["share_unseen"] == 0.25  # the empty one
    assert caption_metrics(TRUE, SAID, meteor, ["a dog barks loudly"])["share_unseen"] == 1.0
    assert caption_metrics(TRUE, SAID, meteor, [])["share_unseen"] == 1.0


def test_captions_of_one_word_have_no_pairs(meteor: Meteor) -> None:
    result = caption_metrics({"a": ["rain"], "b": ["wind"]}, {"a": "rain", "b": "rain"}, meteor)
    assert (result["distinct_1"], result["distinct_2"]) == (0.5, 0.0)


def test_perfect_and_worthless_captions(result) -> None:
    perfect, worthless = result["per_clip"]["a"], result["per_clip"]["d"]
    assert perfect["bleu_4"] == pytest.approx(1, abs=1e-6)
    assert perfect["meteor"] == perfect["rouge_l"] == 1
    assert all(worthless[name] == pytest.approx(0, abs=1e-9) for name in CAPTION_METRICS)


def test_corpus_scores_come_back_from_what_is_kept_of_each_clip(result) -> None:
    for name in CAPTION_METRICS:
        statistic = caption_statistic(name, result["per_clip"], list(SAID))
        assert statistic.value == pytest.approx(result[name], abs=1e-12)


def test_order_of_clips_does_not_matter(result, meteor: Meteor) -> None:
    other = caption_metrics(dict(reversed(TRUE.items())), dict(sorted(SAID.items())), meteor)
    assert {name: other[name] for name in CAPTION_METRICS} == pytest.approx(
        {name: result[name] for name in CAPTION_METRICS}
    )
    for clip in SAID:
        scores = [(other["per_clip"][clip][name], result["per_clip"][clip][name]) for name in CAPTION_METRICS]
        assert [a for a, _ in scores] == pytest.approx([b for _, b in scores])


def test_repeating_every_clip_leaves_bleu_meteor_and_rouge(result, meteor: Meteor) -> None:
    """What a draw of the bootstrap rests on: METEOR of the same clips twice is METEOR of the clips."""
    said = {f"{clip}{turn}": text for clip, text in SAID.items() for turn in "12"}
    twice = caption_metrics({f"{clip}{turn}": texts for clip, texts in TRUE.items() for turn in "12"}, said, meteor)
    for name in ("bleu_1", "meteor", "rouge_l"):
        assert twice[name] == pytest.approx(result[name], abs=1e-8)


def test_unusable_input_is_told(meteor: Meteor) -> None:
    with pytest.raises(InputError, match="the references lack clip x"):
        caption_metrics(TRUE, {**SAID, "x": "a"}, meteor)
    with pytest.raises(InputError, match="the candidates lack clip a and 2 more"):
        caption_metrics(TRUE, {"b": "a dog"}, meteor)
    with pytest.raises(InputError, match="no clips"):
        caption_metrics({}, {}, meteor)
    with pytest.raises(InputError, match="clip b has no reference with a word"):
        caption_metrics({"b": ["!", "..."]}, {"b": "a dog"}, meteor)


def write(path: Path, value) -> str:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def score(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "tools" / "score.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_tool_scores_captions(root: Path, tmp_path: Path, result) -> None:
    files = ["--candidates", write(tmp_path / "c.json", SAID), "--references", write(tmp_path / "r.json", TRUE)]
    run = score(root, "captions", *files, "--json")
    assert run.returncode == 0, run.stderr
    scores = json.loads(run.stdout)
    assert {name: scores[name] for name in CAPTION_METRICS} == {name: result[name] for name in CAPTION_METRICS}
    assert scores["scorer"] == "pycocoevalcap 1.2"
    missing = score(root, "captions", "--candidates", write(tmp_path / "c2.json", {"a": "x"}), *files[2:])
    assert missing.returncode == 2 and missing.stderr.count("\n") == 1
    assert "c2.json: has no entry for clip b (3 missing in all)" in missing.stderr


def test_tool_prints_a_table_for_each_source_of_sentences(root: Path, tmp_path: Path) -> None:
    said = write(tmp_path / "c.json", {"a": "a bell rings", "b": "a bell rings", "video1": "two men run"})
    given = write(tmp_path / "r.json", {"a": ["a bell rings"], "b": ["a bell"]})
    clips = [
        Clip(id="a", media={"audio": "a.wav"}, split="test", group="a", captions=("a bell rings loudly",)),
        Clip(id="t", media={"audio": "t.wav"}, split="train", group="t", captions=("A bell rings.",)),
    ]
    write_manifest(tmp_path / "manifest.jsonl", clips)
    manifest, msrvtt = str(tmp_path / "manifest.jsonl"), write(tmp_path / "m.json", {"video1": {"0": "two men run"}})
    sources = [given, manifest, msrvtt]
    arguments = ["captions", "--candidates", said, "--training", manifest, "--references"]
    shown = score(root, *arguments, *sources)
    assert shown.returncode == 0, shown.stderr
    assert [line for line in shown.stdout.splitlines() if line in sources] == sources
    assert shown.stdout.count("cider") == shown.stdout.count("share_unseen") == 3
    run = score(root, *arguments, given, "--references", manifest, msrvtt, "--json")
    tables = json.loads(run.stdout)
    assert [tables[name]["num_clips"] for name in sources] == [2, 1, 1]
    assert [tables[name]["share_unseen"] for name in sources] == [0.0, 0.0, 1.0]
    assert tables[given]["bleu_1"] < tables[msrvtt]["bleu_1"] == pytest.approx(1, abs=1e-6)
    nobody = score(root, *arguments, manifest, msrvtt)
    assert nobody.returncode == 2 and "m.json: has no entry for clip b (1 missing in all)" in nobody.stderr
    assert "(splits here: test, train)" in score(root, *arguments, *sources, "--split", "val").stderr


PREDICTIONS = [
    {"id": "1", "labels": {"bell": 0.9, "dog": 0.2}, "truth": {"labels": ["bell"]}},
    {"id": "2", "labels": {"bell": 0.3, "dog": 0.8}, "truth": {"labels": ["dog"]}},
    {"id": "3", "labels": {"bell": 0.7, "dog": 0.6}, "truth": {"relevances": {"bell": 0.1}}},
    {"id": "4", "labels": {"bell": 0.7, "dog": 0.6}, "truth": {"labels": None}},
]


def lines(rows) -> str:
    return "\n".join(json.dumps(row) for row in rows) + "\n"


def test_tool_scores_labels(root: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", lines(PREDICTIONS))
    run = score(root, "labels", "--predictions", path, "--json")
    assert run.returncode == 0, run.stderr
    scores = json.loads(run.stdout)
    table = format_scores(scores)
    assert "bell" in table and "average_precision" in table and "1.0000" in table
    assert scores["num_known"] == 5 and scores["num_clips"] == 3 and scores["num_unlabelled"] == 1
    assert scores["map"] == 1.0 and scores["accuracy"] == 0.8


def test_tool_answers_help_at_once(root: Path) -> None:
    start = time.perf_counter()
    run = score(root, "--help")
    assert run.returncode == 0 and "captions" in run.stdout and "labels" in run.stdout
    assert time.perf_counter() - start < 5  # a second on an idle machine


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no predictions"),
        ([{"labels": {"a": 1}}], ":1: id: must be a text"),
        ([{"id": "1", "labels": {"a": 1}}] * 2, ":2: id: must be a text that no other line has"),
        ([{"id": "1", "labels": []}], ":1: labels: must be an object"),
        ([{"id": "1", "labels": {"a": "x"}}], ":1: labels: every probability"),
        ([{"id": "1", "labels": {"a": 1}}, {"id": "2", "labels": {"b": 1}}], ":2: labels: not the same classes"),
        ([{"id": "1", "labels": {"a": 1}, "truth": {"labels": ["b"]}}], ":1: truth: class b is not among"),
        ([{"id": "1", "labels": {"a": 1}, "truth": ["a"]}], ":1: truth: must be an object"),
        ([{"id": "1", "labels": {"a": 1}, "truth": {"labels": "a"}}], ":1: truth: labels must be a list"),
        ([{"id": "1", "labels": {"a": 1}}], "nothing to score"),
        ([{"id": "1", "labels": {"a": float("nan")}, "truth": {"labels": []}}], "finite"),
    ],
)
def test_broken_predictions_are_told(tmp_path: Path, rows, message: str) -> None:
    with pytest.raises(InputError) as caught:
        score_labels(write(tmp_path / "p.jsonl", lines(rows)))
    assert message in str(caught.value) and "p.jsonl" in str(caught.value)


@pytest.mark.parametrize(
    ("candidates", "references", "message"),
    [
        ("{", {"a": ["x"]}, "c.json: not valid JSON"),
        ({"a": "x"}, "{", "r.json: not valid JSON"),
        ([], {"a": ["x"]}, "c.json: must be a JSON object"),
        ({"a": "x"}, {}, "r.json: must be a JSON object"),
        ('{"a": "x", "a": "y"}', {"a": ["x"]}, "c.json: a is given twice"),
        ({"a": "x"}, '{"a": ["x"], "a": ["y"]}', "r.json: not valid JSON: key 'a' stands twice"),
        ({"a": ["x"]}, {"a": ["x"]}, "c.json: clip a: must be one caption"),
        ({"a": "x"}, {"a": "x"}, "r.json: clip a: must be a list"),
        ({"a": "x"}, {"a": []}, "r.json: clip a: must be a list"),
        ({"a": "x", "b": "y"}, {"a": ["x"]}, "r.json: has no entry for clip b"),
    ],
)
def test_broken_caption_files_are_told(tmp_path: Path, candidates, references, message: str) -> None:
    with pytest.raises(InputError) as caught:
        path = write(tmp_path / "r.json", references)
        score_captions(write(tmp_path / "c.json", candidates), {path: read_references(path)})
    assert message in str(caught.value)
    with pytest.raises(InputError, match=r"none\.json: cannot be read"):
        score_captions(tmp_path / "none.json", {"r": {"a": ["x"]}})


def test_table_shows_what_is_undefined() -> None:
    table = format_scores({"map": 0.5, "d_prime": None, "without_positives": ["a", "b"], "num_clips": np.int64(3)})
    assert table.splitlines()[0].split() == ["map", "0.5000"]
    assert table.splitlines()[1].split() == ["d_prime", "-"]
    assert "a, b" in table
