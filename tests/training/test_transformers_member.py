"""A decoder of a transformers tokenizer's tokens, with a causal model of that library as its late partner, in a run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from tiny_run import config_of, write_set

from mmfusion.data.manifest import read_manifest
from mmfusion.evaluate import evaluate, read_rows
from mmfusion.language.causal import TokenVocabulary
from mmfusion.training.checkpoint import load_weights
from mmfusion.training.loop import train
from mmfusion.types import InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "language"))
from tiny_gpt2 import write_gpt2

SHORT = {"training__epochs": 1, "search": {"kind": "greedy", "max_words": 6}}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def gpt2(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    captions = [caption for clip in read_manifest(manifest).clips for caption in clip.captions]
    return write_gpt2(tmp_path_factory.mktemp("gpt2"), captions)


@pytest.mark.parametrize("fusion", [{"depth": "early", "rate": 2}, {"depth": "deep"}, {"depth": "late"}],
                         ids=lambda f: f["depth"])  # fmt: skip
def test_a_causal_model_is_a_late_partner(manifest: Path, gpt2: Path, fusion: dict, tmp_path: Path) -> None:
    language = {"depth": "late", "source": "transformers", "model": str(gpt2)}
    config = config_of(
        manifest, tmp_path, model__language=language, model__fusion=fusion, vocabulary={"tokenizer": str(gpt2)}, **SHORT
    )
    run = train(config, quiet=True)
    vocabulary = run.vocabulary()
    assert isinstance(vocabulary, TokenVocabulary) and len(vocabulary) > 10
    evaluate(run, "test", quiet=True)
    rows = read_rows(run.folder / "predictions.test.jsonl")
    assert all("\u0120" not in row["caption"] for row in rows) and any(row["caption"] for row in rows)
    weights = load_weights(run.weights)
    kept = {name: value for name, value in weights.items() if ".network." in name}
    network = load_weights(gpt2 / "model.safetensors")
    assert kept and all(
        torch.equal(value, network[name.partition(".network.")[2]])
        for name, value in kept.items() if name.partition(".network.")[2] in network
    )  # fmt: skip


def test_what_does_not_fit_is_refused(manifest: Path, gpt2: Path, tmp_path: Path) -> None:
    language = {"depth": "late", "source": "transformers", "model": str(gpt2)}
    with pytest.raises(InputError, match=r"needs vocabulary\.tokenizer"):
        config_of(manifest, tmp_path, model__language=language, **SHORT)
    with pytest.raises(InputError, match="min_count is for words"):
        config_of(manifest, tmp_path, vocabulary={"tokenizer": str(gpt2), "min_count": 2}, **SHORT)
    config = config_of(manifest, tmp_path, vocabulary={"tokenizer": str(tmp_path / "none")}, **SHORT)
    with pytest.raises(InputError, match="tokenizer cannot be loaded"):
        train(config, quiet=True)
