"""The tools' contract: --help at once, exit 2 with one sentence on bad input, and what was done is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from mmfusion.config import load_tree, validate
from mmfusion.data.manifest import read_manifest, write_manifest
from mmfusion.data.synthetic import SyntheticConfig, make_synthetic
from mmfusion.evaluate import evaluate
from mmfusion.predict import predict_files
from mmfusion.training.loop import train
from mmfusion.training.run import Run, RunConfig
from mmfusion.types import InputError

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "training"))
from tiny_run import config_of, tree_of, write_set  # noqa: E402

TOOLS = sorted(path.name for path in (ROOT / "tools").glob("*.py"))


def tool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def assert_one_sentence(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    for part in parts:
        assert part in errors[0]


@pytest.mark.parametrize("name", TOOLS)
def test_help_imports_nothing_heavy(name: str) -> None:
    """Half of the second that --help may take would go for torch alone."""
    script = (
        "import runpy, sys\n"
        f"sys.argv = ['tools/{name}', '--help']\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end:\n    assert end.code == 0, end.code\n"
        "heavy = {'torch', 'numpy', 'transformers', 'accelerate', 'av', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = tool("-c", script)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def test_importing_the_package_is_light() -> None:
    done = tool("-c", "import sys, mmfusion; assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)")
    assert done.returncode == 0, done.stderr


def test_bad_input_is_one_sentence_and_exit_2(tmp_path: Path) -> None:
    manifest = write_set(tmp_path / "set")
    path = tmp_path / "c.yaml"
    OmegaConf.save(OmegaConf.create(tree_of(manifest, tmp_path)), path)
    assert_one_sentence(tool("tools/train.py", path, "training.epoch=3"), "c.yaml", "training.epoch", "epochs")
    assert_one_sentence(tool("tools/evaluate.py", tmp_path / "nowhere"), "nowhere", "not a run folder")


def test_wrong_type_and_missing_and_broken_manifest(tmp_path: Path) -> None:
    manifest = write_set(tmp_path / "set")
    with pytest.raises(InputError, match=r"training\.batch_size: input should be a valid integer, got 'many'"):
        config_of(manifest, tmp_path, training__batch_size="many")
    with pytest.raises(InputError, match=r"nowhere\.jsonl: no such manifest"):
        train(config_of(tmp_path / "nowhere.jsonl", tmp_path), quiet=True)
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([*lines[:4], lines[4].replace('"split"', '"splt"'), *lines[5:]]) + "\n")
    with pytest.raises(InputError, match=r"manifest\.jsonl:5.*splt"):
        train(config_of(manifest, tmp_path), quiet=True)


def test_groups_in_two_splits_stop_training(tmp_path: Path) -> None:
    manifest = write_set(tmp_path / "set")
    text = manifest.read_text().replace('"group": "val-0"', '"group": "train-0"')
    manifest.write_text(text)
    with pytest.raises(InputError, match="group"):
        train(config_of(manifest, tmp_path), quiet=True)


def test_pickled_and_damaged_weights_are_refused(tmp_path: Path) -> None:
    manifest = write_set(tmp_path / "set")
    run = train(config_of(manifest, tmp_path), quiet=True)
    good = run.weights.read_bytes()
    torch.save({"weight": torch.zeros(3)}, run.weights)
    with pytest.raises(InputError, match=r"weights\.safetensors: not a readable safetensors file.*pickled"):
        evaluate(run, quiet=True)
    run.weights.write_bytes(good[: len(good) // 2])
    with pytest.raises(InputError, match=r"weights\.safetensors"):
        evaluate(run, quiet=True)
    run.weights.write_bytes(good)
    assert evaluate(run, quiet=True)["num_clips"] == 11


def test_a_run_with_other_settings_is_not_taken_up(tmp_path: Path) -> None:
    manifest = write_set(tmp_path / "set")
    train(config_of(manifest, tmp_path), quiet=True)
    with pytest.raises(InputError, match=r"training\.optimiser\.lr = 0\.01, now asked for 0\.02"):
        train(config_of(manifest, tmp_path, training__optimiser={"lr": 0.02}), quiet=True)


def test_diverging_training_says_so(tmp_path: Path) -> None:
    manifest = write_set(tmp_path / "set")
    with pytest.raises(InputError, match="loss is"):
        train(config_of(manifest, tmp_path, training__optimiser={"lr": 1e30}, training__clip_norm=None), quiet=True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_while_caching_keeps_what_was_done(tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk: the same write fails at the same place."""
    manifest = write_set(tmp_path / "set", {"train": 200, "val": 9, "test": 11})
    path = tmp_path / "c.yaml"
    OmegaConf.save(OmegaConf.create(tree_of(manifest, tmp_path)), path)
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))\n"
        f"sys.argv = ['tools/train.py', {str(path)!r}, '--quiet']\n"
        "import runpy\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    assert_one_sentence(tool("-c", script), "cache")
    run = train(validate(RunConfig, tree_of(manifest, tmp_path), "again"), quiet=True)
    assert run.finished


@pytest.fixture(scope="module")
def seen_and_heard(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with both encoders and both heads on a tiny synthetic set, hardly trained."""
    folder = tmp_path_factory.mktemp("predict")
    config = SyntheticConfig(train_clips=8, val_clips=2, test_clips=2)
    manifest = make_synthetic(folder / "set", config, workers=1, progress=False)
    tree = load_tree(ROOT / "configs/synthetic.yaml", ["name=predict"])
    tree |= {"name": "predict", "runs": str(folder / "runs")}
    tree["data"] |= {"manifest": str(manifest), "cache": str(folder / "cache"), "cache_workers": 0}
    tree["model"]["fusion"] = {"depth": "deep"}
    tree["training"] |= {"epochs": 1, "tensorboard": False}
    return train(validate(RunConfig, tree, "predict"), quiet=True)


def test_every_odd_file_is_predicted_or_refused_with_one_reason(seen_and_heard: Run, shared_data: Path) -> None:
    import csv

    with (shared_data / "media" / "manifest.csv").open(newline="") as file:
        expected = {row["path"]: row for row in csv.DictReader(file)}
    paths = [shared_data / "media" / name for name in expected]
    found = {
        str(Path(row["path"]).relative_to(shared_data / "media")): row for row in predict_files(seen_and_heard, paths)
    }
    assert list(found) == list(expected)
    for row in found.values():
        if "error" in row:
            assert row["error"] and "\n" not in row["error"] and set(row) == {"path", "error"}
            continue
        assert set(row["labels"]) == set(seen_and_heard.labels()) and row["caption"]
        assert all(np.isfinite(chance) for chance in row["labels"].values())
        json.dumps(row)
    refused = [name for name, row in found.items() if "error" in row]
    silent = [name for name, row in found.items() if row.get("has_video") and not row.get("has_audio")]
    unseen = [name for name, row in found.items() if row.get("has_audio") and not row.get("has_video")]
    assert len(refused) <= 5 and len(silent) >= 15 and len(unseen) >= 4


def test_predict_goes_on_after_a_file_that_cannot_be_read(seen_and_heard: Run, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a film")
    good = next((Path(seen_and_heard.config.data.manifest).parent / "clips" / "test").glob("*.mp4"))
    done = tool("tools/predict.py", seen_and_heard.folder, broken, tmp_path / "none.mp4", good, "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert [sorted(row) == ["error", "path"] for row in rows] == [True, True, False]
    assert rows[2]["has_audio"] and rows[2]["has_video"] and rows[2]["caption"]


def test_prediction_from_the_file_is_that_of_the_evaluation(seen_and_heard: Run) -> None:
    """The same clip through the cache and straight from its file gives the same numbers and the same sentence."""
    evaluate(seen_and_heard, quiet=True)
    lines = (seen_and_heard.folder / "predictions.test.jsonl").read_text().splitlines()
    folder = Path(seen_and_heard.config.data.manifest).parent / "clips" / "test"
    for row in map(json.loads, lines):
        (found,) = predict_files(seen_and_heard, [folder / f"{row['id']}.mp4"])
        assert found["caption"] == row["caption"]
        np.testing.assert_allclose(list(found["labels"].values()), list(row["labels"].values()), atol=1e-5)


def test_a_set_without_captions_is_refused_by_name(tmp_path: Path) -> None:
    manifest = read_manifest(write_set(tmp_path / "set"))
    write_manifest(manifest.path, [replace(clip, captions=()) for clip in manifest.clips])
    with pytest.raises(InputError, match="caption head needs captions"):
        train(config_of(manifest.path, tmp_path), quiet=True)
