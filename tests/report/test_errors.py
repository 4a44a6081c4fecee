"""Error analysis: counts checked by hand, losses and gradients by their formulas, and a folder whose links hold."""

from __future__ import annotations

import csv
import json
import math
import sys
import wave
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from fake_runs import CLASSES, TRUTH, make_comparison, make_run
from hypothesis import given, settings
from hypothesis import strategies as st
from test_page import Elements, make_media

from mmfusion.config import validate
from mmfusion.data.manifest import read_manifest, write_manifest
from mmfusion.data.media import write_sound
from mmfusion.evaluate import evaluate, in_float32, load_model, write_rows
from mmfusion.metrics.labels import label_table
from mmfusion.report.clip_losses import clip_losses
from mmfusion.report.confusion import NOTHING, confusions
from mmfusion.report.errors import analyse_errors
from mmfusion.report.findings import as_text, find_errors
from mmfusion.report.hard_media import file_name
from mmfusion.report.hardest import gradient_norms
from mmfusion.training.loop import train
from mmfusion.training.run import Run, RunConfig
from mmfusion.training.setup import open_material
from mmfusion.types import Clip, InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from tiny_run import LABELS, config_of, write_set


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), num=st.integers(1, 30), classes=st.integers(2, 6))
def test_a_confusion_matrix_counts_every_known_clip_once(seed: int, num: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    label = rng.integers(classes, size=num)
    known = np.repeat(rng.random((num, 1)) < 0.8, classes, axis=1)
    scores = rng.random((num, classes))
    names = [f"k{place}" for place in range(classes)]
    (matrix,) = confusions(label_table(np.eye(classes)[label], scores, known, "single"), names, single=True)
    there = known[:, 0]
    assert matrix.counts.sum() == there.sum()
    assert matrix.counts.sum(axis=1).tolist() == np.bincount(label[there], minlength=classes).tolist()
    assert matrix.shares.sum(axis=1) == pytest.approx((matrix.totals > 0).astype(float))
    assert matrix.counts.trace() == (scores.argmax(axis=1) == label)[there].sum()
    assert all(row != column and count for row, column, count, _ in matrix.worst(99))


def test_false_alarms_are_counted_beside_what_was_missed_and_what_was_there() -> None:
    reference = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]], float)
    scores = np.array([[0.1, 0.9, 0.2], [0.2, 0.9, 0.7], [0.6, 0.1, 0.1], [0.9, 0.0, 0.9]])
    known = np.ones((4, 3), bool)
    known[3, 0] = False  # what may be true is no false alarm
    missed, true = confusions(label_table(reference, scores, known), ["a", "b", "c"], single=False)
    assert missed.totals.tolist() == [2, 0, 0]
    assert missed.counts.tolist() == [[0, 1, 1], [0, 0, 0], [0, 0, 0]]
    assert true.rows == ("a", "b", "c", NOTHING) and true.totals.tolist() == [2, 1, 1, 1]
    assert true.counts.tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert missed.shares[0].tolist() == [0, 0.5, 0.5]
    assert "No confusion matrix" in missed.meaning


def test_losses_by_hand() -> None:
    reference = np.array([[1.0, 0.0], [0.0, 0.9], [0.0, 1.0], [0.0, 0.0]])
    chances = np.array([[0.25, 0.75], [0.5, 0.25], [1.0, 0.0], [0.3, 0.3]])
    known = np.array([[True, True], [True, True], [True, False], [False, False]])
    single = clip_losses(reference, chances, known, "single")
    assert single[:2] == pytest.approx([math.log(4), math.log(4)]) and np.isnan(single[2:]).all()
    multi = clip_losses(reference, chances, known, "multi")
    assert multi[:2] == pytest.approx([math.log(4), (math.log(2) + math.log(4)) / 2])
    assert multi[2] == pytest.approx(-math.log(1e-9)) and np.isnan(multi[3])
    relevance = clip_losses(reference, chances, known, "relevance")
    assert relevance[:3] == pytest.approx([0.5625, (0.25 + 0.65**2) / 2, 1.0])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A label head on features, trained and evaluated, with more than one label a clip."""
    folder = tmp_path_factory.mktemp("tiny")
    manifest = write_set(folder / "set")
    run = train(config_of(manifest, folder, model__heads={"labels": {"kind": "labels"}}), quiet=True)
    evaluate(run, quiet=True)
    return run


def test_gradients_are_those_of_a_linear_head(trained: Run) -> None:
    """d loss / d logits = (p - y) / C, so with the bias the norm is |p - y| sqrt(|h|^2 + 1) / C."""
    norms = gradient_norms(trained, "test", "labels")
    material = open_material(trained, in_float32(), quiet=True)
    model, clips = load_model(trained, material), material.clips("test")
    (batch,) = material.loader(clips, [list(range(len(clips)))], trained.config, training=False)
    (head,) = model.heads["labels"].members.children()  # type: ignore[union-attr, operator]
    with torch.no_grad():
        fused = model.fusion(model.encode(batch))
        pooled = head.pool(next(iter(fused.values())))  # type: ignore[operator]
        distance = (model.decide(fused, batch)["labels"].logits.sigmoid() - batch.targets.labels).norm(dim=1)
    expected = distance * (pooled.square().sum(dim=1) + 1).sqrt() / len(LABELS)
    assert list(norms) == [clip.id for clip in clips]
    assert list(norms.values()) == pytest.approx(expected.tolist(), rel=1e-4)
    found = find_errors(trained, "test")
    assert {one.clip: one.gradient for one in found.clips} == pytest.approx(norms)


def test_a_folder_of_features_alone(trained: Run, tmp_path: Path) -> None:
    found = analyse_errors(trained, "test", tmp_path / "out", number=3)
    per_class = trained.read_json("metrics.test.json")["labels"]["per_class"]
    assert found.figures["per_class"] == per_class and len(found.clips) == 11
    page = Elements((tmp_path / "out" / "index.html").read_text())
    assert_links_hold(page, tmp_path / "out")
    assert "features only" in (tmp_path / "out" / "index.html").read_text()
    assert not list((tmp_path / "out").glob("label_studio*"))
    with (tmp_path / "out" / "clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["loss"]) for row in rows]
    assert losses == sorted(losses, reverse=True) and len(rows) == 11
    assert as_text(found).startswith("11 clips, 3 classes, macro F1 ")


def assert_links_hold(page: Elements, folder: Path) -> None:
    """Everything that the page refers to is on the page, in the page, or in its folder."""
    anchors = {attributes["id"] for _, attributes in page.found if attributes.get("id")}
    for _, attributes in page.found:
        for key in ("src", "href"):
            target = attributes.get(key) or "data:"
            if target.startswith("#"):
                assert target[1:] in anchors
            elif not target.startswith("data:"):
                assert (folder / target).is_file(), target
    assert all(image["alt"] for image in page.all("img"))


def fake(folder: Path) -> Run:
    """Eight clips with sound and pictures, of which three are taken for the other class."""
    make_media(folder)
    _, jobs = make_comparison(folder, rows={"both": {}}, seeds=[0], reference=[])
    order = list(TRUTH)

    def chances(job: object, clip: str) -> list[float]:
        place = order.index(clip)
        sure = 0.55 + 0.05 * place
        right = place not in (2, 4, 5)
        return [sure, 1 - sure] if (TRUTH[clip] == [CLASSES[0]]) == right else [1 - sure, sure]

    run = make_run(jobs[0], chances)
    run.weights.unlink()
    return run


def test_the_hardest_clips_can_be_heard_and_relabelled(tmp_path: Path) -> None:
    run, out = fake(tmp_path), tmp_path / "out folder"
    found = analyse_errors(run, "test", out, number=4)
    assert [one.clip for one in sorted(found.clips, key=lambda one: -one.loss)][:3] == ["c5", "c4", "c2"]
    text = (out / "index.html").read_text()
    page = Elements(text)
    assert_links_hold(page, out)
    assert len(page.all("audio")) == 4 == len(page.all("article"))
    assert "no weights of its own" in text and "bell → rain (2 of 4)" in text
    with wave.open(str(out / "sounds" / "c5.wav")) as sound:
        assert (sound.getframerate(), sound.getnframes()) == (8000, 4000)
    with (out / "confusion_shares.csv").open() as file:
        rows = [[float(value) for value in row[2:]] for row in list(csv.reader(file))[1:]]
    assert rows == [[0.5, 0.5], [0.25, 0.75]]
    tasks = json.loads((out / "label_studio_audio.json").read_text())
    assert_tasks_fit(tasks, (out / "label_studio_audio.xml").read_text(), out)
    assert tasks[0]["data"]["truth"] == "rain" and tasks[0]["predictions"][0]["score"] == pytest.approx(0.8)
    assert tasks[0]["predictions"][0]["result"][0]["value"] == {"choices": ["bell"]}
    assert "c5 -> " not in as_text(found) and "bell -> rain (2 of 4)" in as_text(found)


def assert_tasks_fit(tasks: list[dict[str, Any]], interface: str, out: Path) -> None:
    """What Label Studio checks on import: variables, names, types and choices of the interface, scores, ids."""
    view = ElementTree.fromstring(interface)
    tags = {tag.get("name"): tag for tag in view if tag.get("name")}
    wanted = {str(tag.get("value"))[1:] for tag in view if str(tag.get("value")).startswith("$")}
    seen = set()
    for task in tasks:
        assert set(task) == {"data", "predictions"} and wanted <= set(task["data"])
        assert all(task["data"][name] for name in wanted)
        (prediction,) = task["predictions"]
        assert 0 <= prediction["score"] <= 1 and prediction["model_version"]
        for result in prediction["result"]:
            control = tags[result["from_name"]]
            assert control.tag.lower() == result["type"] and control.get("toName") == result["to_name"]
            assert result["to_name"] in tags
            allowed = {choice.get("value") for choice in control}
            chosen = result["value"]["choices"]
            assert chosen and set(chosen) <= allowed and (control.get("choice") == "multiple" or len(chosen) == 1)
            seen.add(result["id"])
        (kind,) = {"audio", "image"} & set(task["data"])
        (served,) = parse_qs(urlparse(task["data"][kind]).query)["d"]
        assert (out.parent / served).is_file()
    assert len(seen) == sum(len(task["predictions"][0]["result"]) for task in tasks)


def test_clips_without_sound_show_their_frames(tmp_path: Path) -> None:
    run = fake(tmp_path)
    clips = [Clip(one.id, {"video": one.media["video"]}, "test", one.group, labels=one.labels)
             for one in read_manifest(tmp_path / "manifest.jsonl").clips]  # fmt: skip
    clips[5] = Clip("c5", {"audio": "c5.wav"}, "test", "g", labels=clips[5].labels)
    write_manifest(tmp_path / "manifest.jsonl", clips)
    out = tmp_path / "out"
    analyse_errors(run, "test", out, number=8, url="http://x.org/served/")
    text = (out / "index.html").read_text()
    page = Elements(text)
    assert_links_hold(page, out)
    assert len(page.all("audio")) == 1 and "Not shown: " in text  # c3.png is no picture
    pictures = json.loads((out / "label_studio_image.json").read_text())
    assert len(pictures) == 6 and pictures[0]["data"]["image"].startswith("http://x.org/served/pictures/c")
    assert all((out / "pictures" / task["data"]["image"].rsplit("/", 1)[1]).is_file() for task in pictures)
    assert len(json.loads((out / "label_studio_audio.json").read_text())) == 1
    (tmp_path / "manifest.jsonl").unlink()
    analyse_errors(run, "test", out, number=2)
    assert "no such manifest" in (out / "index.html").read_text()


def test_relevances_unknown_truth_and_odd_names(tmp_path: Path) -> None:
    """A multi-label run that read features: its clips are heard from their other file; an unrated cell is a `?`."""
    names = ("a <b> & c", "piano", "zither")
    rng = np.random.default_rng(0)
    clips, rows = [], []
    for number in range(6):
        clip = f"clip {number}/ä"
        write_sound(tmp_path / f"{number}.wav", rng.uniform(-0.5, 0.5, 2000), 8000)
        rated = {"piano": 0.8 if number % 2 else 0.2, "zither": 0.1 * number} if number else {}
        clips.append(Clip(clip, {"audio": f"{number}.wav", "vggish": f"{number}.npz"}, "test", clip, relevances=rated))
        said = {names[0]: 0.9, "piano": 0.7, "zither": 0.2}
        rows.append({"id": clip, "tags": said, "truth": {"labels": None, "captions": [], "relevances": rated}})
    write_manifest(tmp_path / "manifest.jsonl", clips)
    tree = {
        "name": "tags", "runs": str(tmp_path / "runs"),
        "data": {"manifest": str(tmp_path / "manifest.jsonl"), "inputs": {"vggish": {"kind": "features"}}},
        "model": {"encoders": {"vggish": {"kind": "precomputed"}}, "fusion": {"depth": "none"},
                  "heads": {"tags": {"kind": "labels"}}},
    }  # fmt: skip
    run = Run.create(validate(RunConfig, tree, "test"))
    write_rows(rows, run.folder / "predictions.test.jsonl")
    found = analyse_errors(run, "test", tmp_path / "out")
    assert found.num_unknown == 1 and len(found.clips) == 5
    figures = found.figures["per_class"]
    assert figures["piano"]["num_positives"] == 3 and figures["piano"]["precision"] == pytest.approx(3 / 5)
    assert figures[names[0]]["f1"] is None
    text = (tmp_path / "out" / "index.html").read_text()
    assert "a &lt;b&gt; &amp; c ?" in text and "<b> & c" not in text
    assert_links_hold(page := Elements(text), tmp_path / "out")
    assert len(page.all("audio")) == 5
    tasks = json.loads((tmp_path / "out" / "label_studio_audio.json").read_text())
    interface = (tmp_path / "out" / "label_studio_audio.xml").read_text()
    assert_tasks_fit(tasks, interface, tmp_path / "out")
    assert {task["data"]["truth"] for task in tasks} == {"piano", "piano, zither", "(none of the classes)"}
    assert "1 clips whose truth is not known are left out" in as_text(found)


def test_tuned_thresholds_decide(tmp_path: Path) -> None:
    """What is said, counted and printed follows the thresholds of the run, class by class."""
    head = {"kind": "labels", "target": "multi", "thresholds": "tuned"}
    _, jobs = make_comparison(tmp_path, rows={"both": {"set": {"model.heads": {"labels": head}}}}, seeds=[0],
                              reference=[], figures=[{"name": "labels.map", "title": "mAP"}])  # fmt: skip
    run = Run.create(jobs[0].config)
    rows = [{"id": clip, "labels": {"bell": 0.6, "rain": 0.3}, "truth": {"labels": labels, "captions": []}}
            for clip, labels in TRUTH.items()]  # fmt: skip
    write_rows(rows, run.folder / "predictions.test.jsonl")
    run.write_json("thresholds.json", {"labels": {"bell": 0.7, "rain": 0.2}})
    found = analyse_errors(run, "test", tmp_path / "out")
    assert {one.said for one in found.clips} == {("rain",)} and found.tuned
    missed, _ = found.matrices
    assert missed.counts.tolist() == [[0, 4], [0, 0]]
    assert "its own threshold on, tuned on validation" in (tmp_path / "out" / "index.html").read_text()
    with (tmp_path / "out" / "classes.csv").open() as file:
        assert [row["threshold"] for row in csv.DictReader(file)] == ["0.7", "0.2"]


def test_names_of_files_are_plain_and_different() -> None:
    names = ["a/b", "a_b", "a b", "ä", "x" * 200, "x" * 201]
    files = [file_name(name) for name in names]
    assert len(set(files)) == len(names) and all(file.isascii() and len(file) < 100 for file in files)
    assert file_name("1-100032-A-0") == "1-100032-A-0"


def test_mistakes_are_named(tmp_path: Path) -> None:
    run = fake(tmp_path)
    with pytest.raises(InputError, match=r"predictions\.val\.jsonl: no such file; tools/evaluate\.py .* --split val"):
        find_errors(run, "val")
    with pytest.raises(InputError, match=r"has no label head 'tags' \(there are: labels\)"):
        find_errors(run, "test", head="tags")
    with pytest.raises(InputError, match="--number: must be at least 1"):
        analyse_errors(run, "test", tmp_path / "out", number=0)
    rows = [{"id": "c0", "labels": {"bell": 0.5, "rain": 0.5}, "truth": {"labels": None, "captions": []}}]
    write_rows(rows, run.folder / "predictions.test.jsonl")
    with pytest.raises(InputError, match="the truth of no clip is known"):
        find_errors(run, "test")


def test_many_classes_are_drawn_in_part() -> None:
    from mmfusion.report.errors_page import MOST_CLASSES, view

    rng = np.random.default_rng(0)
    label = rng.integers(70, size=400)
    names = [f"class ${place}" for place in range(70)]
    scores = np.eye(70)[np.where(rng.random(400) < 0.3, (label + 1) % 70, label)]
    (matrix,) = confusions(label_table(np.eye(70)[label], scores, None, "single"), names, single=True)
    shown = view(matrix)
    assert shown.num_drawn == MOST_CLASSES and shown.svg.count("class $") >= MOST_CLASSES
    Elements(shown.svg)
