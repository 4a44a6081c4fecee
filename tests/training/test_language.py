"""Training a language model: seeds, resuming, sources, words, vectors, and the files of a run."""

from __future__ import annotations

import json
import random
import runpy
import sys

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from mmfusion.config import load, validate
from mmfusion.data.manifest import write_manifest
from mmfusion.language.lm import load_language_model, perplexity
from mmfusion.language.vocab import Vocabulary
from mmfusion.training import language
from mmfusion.training.checkpoint import load_weights
from mmfusion.training.language import LmRunConfig, epoch_batches, perplexity_table, read_corpus, train_lm
from mmfusion.training.log import read_log
from mmfusion.types import Clip, InputError

NOUNS, VERBS = ("dog", "cat", "bird", "bell", "man", "siren"), ("barks", "sings", "rings", "sleeps", "wails")


def sentences(number, seed=0):
    draw = random.Random(seed)
    slots = (("a", "the"), NOUNS, VERBS, (".", "now", "and a dog!"))
    return [" ".join(draw.choice(slot) for slot in slots) for _ in range(number)]


def write_sources(folder):
    said = sentences(240)
    clips = [
        Clip(id=f"{split}{n}", media={"audio": "none.wav"}, split=split, group=f"{split}{n}", captions=captions)
        for split, captions_of in (
            ("train", said[:120]),
            ("val", ["validation words"] * 8),
            ("test", ["hidden words"] * 8),
        )
        for n, captions in enumerate(zip(captions_of[::2], captions_of[1::2], strict=True))
    ]
    write_manifest(folder / "manifest.jsonl", clips)
    (folder / "more.txt").write_text("\n".join([*said[120:], *(f"zebra {n} runs" for n in range(9)), "...", "a " * 50]))


def tree_of(folder, name="lm", **settings):
    tree = {
        "name": name,
        "runs": str(folder / "runs"),
        "sources": {
            "clips": {"kind": "manifest", "path": str(folder / "manifest.jsonl")},
            "more": {"kind": "text", "path": str(folder / "more.txt")},
        },
        "heldout": 0.2,
        "vocabulary": {"source": "clips"},
        "model": {"embedding": 8, "hidden": 8, "dropout": 0.2},
        "training": {"epochs": 3, "batch_size": 16, "optimiser": {"lr": 1e-2}},
    }
    for key, value in settings.items():
        *path, last = key.split("__")
        node = tree
        for part in path:
            node = node[part]
        node[last] = value
    return tree


@pytest.fixture
def folder(tmp_path):
    write_sources(tmp_path)
    return tmp_path


def config_of(folder, name="lm", **settings):
    return validate(LmRunConfig, tree_of(folder, name, **settings), "test")


def same_weights(one, other):
    first, second = (load_weights(path / "weights.safetensors") for path in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_keeps_what_it_is_made_of(folder):
    path = train_lm(config_of(folder, training__epochs=8, training__schedule={"warmup": 0.0}), quiet=True)
    model, vocabulary = load_language_model(path)
    metrics = json.loads((path / "metrics.json").read_text())
    corpus = read_corpus(config_of(folder))
    assert (
        set(metrics["perplexity"]) == set(metrics["num_words"]) == set(metrics["unk_share"]) == {"clips", "more", "all"}
    )
    for name, held in corpus.heldout.items():
        assert metrics["perplexity"][name] == pytest.approx(perplexity(model, held)[0], rel=1e-5)
        assert metrics["num_words"][name] == sum(len(sentence) - 1 for sentence in held)
    assert metrics["perplexity"]["clips"] < len(vocabulary) / 2
    assert metrics["unk_share"]["clips"] == 0
    assert metrics["num_sentences"]["more"]["left_out"] == 2
    assert json.loads((path / "finished.json").read_text()) == {"epochs": 8, "best_epoch": None}
    assert set(json.loads((path / "provenance.json").read_text())["sources"]) == {"clips", "more"}
    assert not list(path.glob("checkpoint-*")) and not list(path.glob("*.part"))
    assert not list(path.rglob("*.pt")) and not list(path.rglob("*.pkl"))
    losses = [row["value"] for row in read_log(path / "metrics.csv") if row["figure"] == "loss"]
    assert len(losses) == 8 and losses[-1] < losses[0]
    table = perplexity_table(path).splitlines()
    assert [line.split()[0] for line in table[1:]] == ["clips", "more", "all"]


def test_the_words_are_those_of_the_decoder(folder):
    """All training captions of the manifest, held out or not, and none of another split."""
    said = sentences(240)[:120]
    for chosen in ({"source": "clips"}, {"manifest": str(folder / "manifest.jsonl")}):
        vocabulary = read_corpus(config_of(folder, vocabulary={**chosen, "min_count": 2})).vocabulary
        assert vocabulary == Vocabulary.build(said, 2)
    assert not {"zebra", "hidden", "validation"} & set(vocabulary.words)


def test_only_the_training_split_of_a_manifest_is_read(folder):
    corpus = read_corpus(config_of(folder))
    said = {sentence for part in corpus.parts.values() for sentence in (*part.train, *part.heldout)}
    assert not {"hidden words", "validation words"} & said
    source = {"kind": "manifest", "path": str(folder / "manifest.jsonl"), "split": "test"}
    with pytest.raises(InputError, match=r"sources\.clips\.split"):
        config_of(folder, sources__clips=source)


def test_the_same_sentence_is_held_out_in_every_source_or_in_none(folder):
    corpus = read_corpus(config_of(folder))
    train = {tuple(sentence) for part in corpus.parts.values() for sentence in part.train}
    heldout = {tuple(sentence) for part in corpus.parts.values() for sentence in part.heldout}
    assert train and heldout and not train & heldout


def test_the_seed_decides(folder):
    one, same = (train_lm(config_of(folder, name), quiet=True) for name in ("one", "same"))
    other = train_lm(config_of(folder, "one", seed=1), quiet=True)
    assert other != one and same_weights(one, same) and not same_weights(one, other)
    # A finished run is left alone.
    before = (one / "weights.safetensors").stat().st_mtime_ns
    train_lm(config_of(folder, "one"), quiet=True)
    assert (one / "weights.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("select", [None, "clips"])
@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_resumed_equals_uninterrupted(folder, monkeypatch, select, epoch):
    """Stopped in the middle of an epoch, or (epoch 3) while the weights are measured."""
    whole = train_lm(config_of(folder, "whole", training__select=select), quiet=True)
    real, stop_at = language._Trainer._update, epoch * 12 + 5
    updates = [0]

    def update(self, batch):
        updates[0] += 1
        if updates[0] == stop_at:
            raise KeyboardInterrupt
        return real(self, batch)

    def measured(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(language._Trainer, "_update", update)
        if epoch == 3:
            patch.setattr(language._Trainer, "_metrics", measured)
        with pytest.raises(KeyboardInterrupt):
            train_lm(config_of(folder, "stopped", training__select=select), quiet=True)
    stopped = folder / "runs" / "stopped" / "seed0"
    assert not (stopped / "finished.json").exists()
    assert train_lm(config_of(folder, "stopped", training__select=select), quiet=True) == stopped
    assert same_weights(whole, stopped)
    assert [row["value"] for row in read_log(stopped / "metrics.csv")] == [
        row["value"] for row in read_log(whole / "metrics.csv")
    ]
    assert json.loads((stopped / "metrics.json").read_text()) == json.loads((whole / "metrics.json").read_text())


def test_other_settings_or_words_do_not_take_up_a_run(folder, monkeypatch):
    train_lm(config_of(folder), quiet=True)
    with pytest.raises(InputError, match=r"was trained with model\.hidden = 8, now asked for 9"):
        train_lm(config_of(folder, model__hidden=9), quiet=True)

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(language._Trainer, "_finish", stopped)
        train_lm(config_of(folder, "other"), quiet=True)
    path = folder / "manifest.jsonl"
    whole = path.read_text()
    for change in (whole.replace("siren", "whistle"), whole.replace("siren", "bell", 1)):  # new words, known words
        path.write_text(change)
        with pytest.raises(InputError, match="are not those with which this run began"):
            train_lm(config_of(folder, "other"), quiet=True)


def test_the_selected_epoch_is_kept(folder):
    settings = {"training__epochs": 12, "training__optimiser": {"lr": 0.3}, "training__select": "more"}
    path = train_lm(config_of(folder, **settings), quiet=True)
    every = [row["value"] for row in read_log(path / "metrics.csv") if row["figure"] == "perplexity.more"]
    assert len(every) == 12
    assert json.loads((path / "metrics.json").read_text())["perplexity"]["more"] == pytest.approx(min(every), rel=1e-5)
    assert json.loads((path / "finished.json").read_text())["best_epoch"] == int(np.argmin(every))
    assert not (path / "best.safetensors").exists()


@pytest.mark.parametrize("use", ["initial", "frozen"])
def test_vectors(folder, use, capsys):
    words = ("a", "dog", "cat", "barks")
    text = "\n".join(f"{word} " + " ".join(str((n + 1) * (k - 3.5)) for k in range(8)) for n, word in enumerate(words))
    (folder / "vectors.txt").write_text(text)
    vectors = {"path": str(folder / "vectors.txt"), "use": use}
    path = train_lm(config_of(folder, vectors=vectors), quiet=True)
    model, vocabulary = load_language_model(path)
    rows = model.embedding.weight[[vocabulary.numbers[word] for word in words]]
    given = torch.tensor([[(n + 1) * (k - 3.5) for k in range(8)] for n in range(4)])
    assert torch.equal(rows, given) == (use == "frozen")
    told = json.loads((path / "provenance.json").read_text())["vectors"]
    assert told.startswith(f"4 of {len(vocabulary) - 4} (") and "running words" in told


def test_bf16_is_close_to_fp32(folder):
    values = []
    for precision in ("fp32", "bf16"):
        path = train_lm(config_of(folder, precision, training__precision=precision), quiet=True)
        values.append(json.loads((path / "metrics.json").read_text())["perplexity"]["all"])
    assert values[0] != values[1] and values[0] == pytest.approx(values[1], rel=0.05)


def test_batches_hold_every_sentence_once_and_little_padding():
    lengths = np.random.default_rng(0).integers(2, 30, 1000)
    batches = epoch_batches(lengths, 32, seed=3, epoch=1)
    assert sorted(np.concatenate(batches).tolist()) == list(range(1000))
    assert sum(lengths[batch].max() * len(batch) for batch in batches) < 1.05 * lengths.sum()
    assert [b.tolist() for b in batches] == [b.tolist() for b in epoch_batches(lengths, 32, 3, 1)]
    for seed, epoch in ((3, 2), (4, 1)):
        assert [b.tolist() for b in batches] != [b.tolist() for b in epoch_batches(lengths, 32, seed, epoch)]
    means = [float(lengths[batch].mean()) for batch in batches]
    assert means != sorted(means)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"vocabulary": {"min_count": 1}}, "name either a manifest or a source"),
        ({"vocabulary": {"source": "clips", "manifest": "m"}}, "name either a manifest or a source"),
        ({"vocabulary": {"source": "clip"}}, "no source 'clip'"),
        ({"training": {"select": "clip"}}, "no source 'clip'"),
        ({"sources": {"all": {"kind": "text", "path": "x"}}}, "stands for all sources"),
        ({"sources": {"x": {"kind": "text", "pth": "x"}}}, r"sources\.x\.pth: unknown key .did you mean path"),
        ({"sources": {}}, "sources"),
        ({"model": {"tied": True}, "vectors": {"path": "x", "use": "frozen"}}, "cannot be the softmax's matrix"),
        ({"heldout": 0.0}, "heldout"),
    ],
)
def test_settings_that_do_not_fit_are_refused(folder, settings, reason):
    with pytest.raises(InputError, match=reason):
        config_of(folder, **settings)


def test_the_project_s_configurations_are_valid(root):
    paths = sorted((root / "configs" / "lm").glob("*.yaml"))
    assert [path.stem for path in paths] == ["msvd", "msvd_text", "synthetic"]
    for path in paths:
        config = load(LmRunConfig, path)
        source = config.vocabulary.source
        assert source == path.stem.partition("_")[0] and isinstance(config.sources[source], language.ManifestSource)


def test_the_tool(folder, root, monkeypatch, capsys):
    path = folder / "lm.yaml"
    OmegaConf.save(OmegaConf.create(tree_of(folder)), path)

    def tool(*words):
        monkeypatch.setattr(sys, "argv", ["tools/train_lm.py", str(path), *words])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(root / "tools" / "train_lm.py"), run_name="__main__")
        return end.value.code, capsys.readouterr()

    status, said = tool("training.epochs=1", "--quiet", "seed=3")
    assert status == 0 and said.err == ""
    assert "perplexity" in said.out and said.out.splitlines()[-1] == f"trained: {folder}/runs/lm/seed3"
    status, said = tool("seed=x")
    assert status == 2 and said.err.startswith("error: ") and "seed" in said.err
