"""A language model in whole runs: every depth of it with every depth of the modalities, starts, and ensembles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import config_of, write_set

from mmfusion.config import validate
from mmfusion.data.manifest import read_manifest, write_manifest
from mmfusion.ensemble import ensemble_done, evaluate_ensemble
from mmfusion.evaluate import evaluate, in_float32, load_model, predict_clips, read_rows
from mmfusion.training.checkpoint import load_weights, save_weights
from mmfusion.training.language import LmRunConfig, train_lm
from mmfusion.training.loop import train
from mmfusion.training.provenance import check_sources, sources_of
from mmfusion.training.run import Run
from mmfusion.training.setup import open_material
from mmfusion.types import InputError

SHORT = {"training__epochs": 1, "search": {"kind": "greedy", "max_words": 5}}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def language_model(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = {
        "name": "lm", "runs": str(tmp_path_factory.mktemp("lm")), "heldout": 0.2,
        "sources": {"tiny": {"kind": "manifest", "path": str(manifest)}}, "vocabulary": {"source": "tiny"},
        "model": {"embedding": 8, "hidden": 12}, "training": {"epochs": 2, "batch_size": 4},
    }  # fmt: skip
    return train_lm(validate(LmRunConfig, tree, "lm"), quiet=True)


def lm_weights(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in weights.items() if ".model." in name and "heads.caption" in name}


@pytest.mark.parametrize("fusion", [{"depth": "early"}, {"depth": "deep"}, {"depth": "late"}], ids=lambda f: f["depth"])
@pytest.mark.parametrize(
    "language",
    [
        {"depth": "early"},
        {"depth": "deep"},
        {"depth": "deep", "gate": True},
        {"depth": "late"},
        {"depth": "late", "rule": "loglinear", "weight": 0.3},
    ],
    ids=lambda block: "-".join(map(str, block.values())),
)
def test_every_depth_of_the_language_model_goes_with_every_depth_of_the_modalities(
    manifest: Path, language_model: Path, tmp_path: Path, fusion: dict, language: dict
) -> None:
    block = {**language, "model": str(language_model)}
    run = train(config_of(manifest, tmp_path, model__fusion=fusion, model__language=block, **SHORT), quiet=True)
    material = open_material(run, in_float32(), quiet=True)
    clips = material.clips("test")
    rows, _ = predict_clips(load_model(run, material), material, clips, run, in_float32(), search=run.config.search)
    assert len(rows) == len(clips) and all(isinstance(row["caption"], str) for row in rows)
    kept = load_weights(language_model / "weights.safetensors")
    inside = lm_weights(load_weights(run.weights))
    assert bool(inside) == (language["depth"] != "early")
    for name, value in inside.items():
        assert torch.equal(value, kept[name.rpartition(".model.")[2]]), name


@pytest.mark.parametrize("use", ["initial", "frozen"])
def test_word_vectors_go_with_a_deep_language_model(
    manifest: Path, language_model: Path, tmp_path: Path, use: str
) -> None:
    """As in the last rows of the paper's table; the run says how many words have a vector."""
    (tmp_path / "glove.txt").write_text("drum 1 2 3 4 5 6 7 8\nzebra 8 7 6 5 4 3 2 1\n")
    settings = {
        "model__vectors": {"path": str(tmp_path / "glove.txt"), "use": use},
        "model__language": {"depth": "deep", "model": str(language_model)},
    }
    run = train(config_of(manifest, tmp_path, **settings, **SHORT), quiet=True)
    words = run.vocabulary()
    assert words is not None
    told = run.read_json("provenance.json")["vectors"]
    assert f"1 of {len(words) - 4} " in told and "running words" in told
    weight = next(
        w
        for name, w in load_weights(run.weights).items()
        if name.endswith("embedding.weight") and ".model." not in name
    )
    row = weight[words.numbers["drum"]]
    assert torch.equal(row, torch.arange(1.0, 9.0)) == (use == "frozen")


@pytest.mark.parametrize("language", [{"depth": "late", "weight": 0.25}, {"depth": "deep", "freeze_captioner": True}])
def test_a_language_model_comes_into_a_trained_run(
    manifest: Path, language_model: Path, tmp_path: Path, language: dict
) -> None:
    first = train(config_of(manifest, tmp_path, name="first", **SHORT), quiet=True)
    settings = {**SHORT, "training__start_from": str(first.folder), "training__epochs": 0}
    block = {**language, "model": str(language_model)}
    second = train(config_of(manifest, tmp_path, name="second", model__language=block, **settings), quiet=True)
    before, after = load_weights(first.weights), load_weights(second.weights)
    ordered = sorted(after, key=lambda name: ".captioner." in name)  # what was wrapped stands for its plain name
    plain = {name.replace(".members.captioner", "").replace(".captioner", ""): after[name] for name in ordered}
    for name, value in before.items():
        assert torch.equal(plain[name], value), name


@pytest.mark.parametrize("fusion", [{"depth": "deep"}, {"depth": "late"}], ids=lambda f: f["depth"])
def test_a_run_with_a_language_model_begins_another(
    manifest: Path, language_model: Path, tmp_path: Path, fusion: dict
) -> None:
    """Every weight finds its own place: those of the modalities, too, and not the language model's in theirs."""
    late = {"depth": "late", "weight": 0.1, "model": str(language_model)}
    settings = {**SHORT, "model__fusion": fusion, "model__language": late}
    first = train(config_of(manifest, tmp_path, name="first", **settings), quiet=True)
    again = {**settings, "training__start_from": str(first.folder), "training__epochs": 0}
    second = train(config_of(manifest, tmp_path, name="second", **again), quiet=True)
    before, after = load_weights(first.weights), load_weights(second.weights)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_weights_to_tune_need_something_to_be_tuned_by(manifest: Path, language_model: Path, tmp_path: Path) -> None:
    late = {"depth": "late", "model": str(language_model)}
    clips = read_manifest(manifest).clips
    for name, kept in (
        ("none", [clip for clip in clips if clip.split != "val"]),
        ("mute", [replace(clip, captions=()) if clip.split == "val" else clip for clip in clips]),
    ):
        path = manifest.parent / f"{name}.jsonl"
        write_manifest(path, kept)
        config = config_of(path, tmp_path, name=name, model__language=late, **SHORT)
        said = "no clip is in 'val'" if name == "none" else "heads.caption: weights: nothing in the validation split"
        with pytest.raises(InputError, match=said):
            train(config, quiet=True)
        assert name == "mute" or not list(config.folder.glob("checkpoint*")), "it is said before anything is trained"


def test_a_frozen_captioner_is_the_whole_model(manifest: Path, language_model: Path, tmp_path: Path) -> None:
    """One epoch moves what joins the language model to the decoder, and nothing else: no encoder, no other head."""
    first = train(config_of(manifest, tmp_path, name="first", **SHORT), quiet=True)
    block = {"depth": "deep", "gate": True, "freeze_captioner": True, "model": str(language_model)}
    settings = {**SHORT, "training__start_from": str(first.folder), "model__language": block}
    second = train(config_of(manifest, tmp_path, name="second", **settings), quiet=True)
    before, after = load_weights(first.weights), load_weights(second.weights)
    plain = {name.replace(".captioner", ""): value for name, value in after.items()}
    assert all(torch.equal(plain[name], value) for name, value in before.items())
    third = train(config_of(manifest, tmp_path, name="third", **{**settings, "training__epochs": 0}), quiet=True)
    name = next(name for name in after if name.endswith("join.weight"))
    assert not torch.equal(after[name], load_weights(third.weights)[name])


def test_validation_losses_do_not_depend_on_the_batches(manifest: Path, tmp_path: Path) -> None:
    """Of clips some of which have no captions and some no labels."""
    clips = read_manifest(manifest).clips
    test = [clip for clip in clips if clip.split == "test"]
    mute, unnamed = {clip.id for clip in test[:3]}, {clip.id for clip in test[2:4]}
    path = manifest.parent / "partly.jsonl"
    partly = [replace(clip, captions=()) if clip.id in mute else clip for clip in clips]
    write_manifest(path, [replace(clip, labels=None) if clip.id in unnamed else clip for clip in partly])
    config = config_of(path, tmp_path, name="partly", **SHORT)
    run, found = train(config, quiet=True), []
    for size in (1, 2, 100):
        other = Run(run.folder, replace(config, training=replace(config.training, batch_size=size)))
        material = open_material(other, in_float32(), quiet=True)
        _, losses = predict_clips(load_model(other, material), material, test, other, in_float32(), None)
        found.append(losses)
    for losses in found[1:]:
        assert losses == pytest.approx(found[0], rel=1e-4)
    assert found[0]["loss"] == pytest.approx(found[0]["labels.loss"] + found[0]["caption.loss"])


def test_what_a_run_was_built_from_is_remembered(manifest: Path, language_model: Path, tmp_path: Path) -> None:
    """A table must not join rows of a run that was trained again since."""
    first = train(config_of(manifest, tmp_path, name="first", **SHORT), quiet=True)
    settings = {**SHORT, "training__start_from": str(first.folder), "training__epochs": 0}
    block = {"depth": "late", "weight": 0.3, "model": str(language_model)}
    second = train(config_of(manifest, tmp_path, name="second", model__language=block, **settings), quiet=True)
    sources = sources_of(second.config)
    assert sources == [first.folder, language_model]
    check_sources(second, sources)
    save_weights({name: value + 1 for name, value in load_weights(first.weights).items()}, first.weights)
    with pytest.raises(InputError, match="has other weights now; delete"):
        check_sources(second, sources)


def test_another_vocabulary_is_refused(manifest: Path, language_model: Path, tmp_path: Path) -> None:
    block = {"depth": "deep", "model": str(language_model)}
    config = config_of(manifest, tmp_path, model__language=block, vocabulary__min_count=9, **SHORT)
    with pytest.raises(InputError, match="was trained on another vocabulary"):
        train(config, quiet=True)


def test_a_start_with_something_that_has_no_place_is_refused(manifest: Path, tmp_path: Path) -> None:
    first = train(config_of(manifest, tmp_path, name="first", **SHORT), quiet=True)
    settings = {**SHORT, "training__start_from": str(first.folder), "model__recurrent": None}
    with pytest.raises(InputError, match="has no place of its shape"):
        train(config_of(manifest, tmp_path, name="second", **settings), quiet=True)


def test_an_ensemble_averages_its_members(manifest: Path, tmp_path: Path) -> None:
    runs = [train(config_of(manifest, tmp_path, name=f"m{k}", seed=k, **SHORT), quiet=True) for k in (0, 1)]
    config = config_of(manifest, tmp_path, name="both", **SHORT)
    folders = [run.folder for run in runs]
    assert not ensemble_done(folders, config, "test")
    both = evaluate_ensemble(folders, config, "test")
    assert ensemble_done(folders, config, "test") and not ensemble_done(folders[:1], config, "test")
    changed = config_of(manifest, tmp_path, name="both", training__epochs=1, search={"kind": "greedy", "max_words": 4})
    assert not ensemble_done(folders, changed, "test")
    members = [(evaluate(run, "test", quiet=True), read_rows(run.folder / "predictions.test.jsonl"))[1] for run in runs]
    for row, one, two in zip(read_rows(both.folder / "predictions.test.jsonl"), *members, strict=True):
        for label, chance in row["labels"].items():
            assert chance == pytest.approx(np.mean([one["labels"][label], two["labels"][label]]), abs=1e-6)
    facts = Run.open(both.folder).read_json("provenance.json")
    assert list(facts["built_from"]) == [str(folder) for folder in folders]
    assert facts["num_parameters"] == 2 * runs[0].read_json("provenance.json")["num_parameters"]


def test_an_ensemble_of_one_is_that_one(manifest: Path, tmp_path: Path) -> None:
    run = train(config_of(manifest, tmp_path, name="one", **SHORT), quiet=True)
    evaluate(run, "test", quiet=True)
    alone = evaluate_ensemble([run.folder], config_of(manifest, tmp_path, name="alone", **SHORT), "test")
    rows = zip(*(read_rows(r.folder / "predictions.test.jsonl") for r in (run, alone)), strict=True)
    for one, other in rows:
        assert one["caption"] == other["caption"] and one["labels"] == pytest.approx(other["labels"], abs=1e-6)
