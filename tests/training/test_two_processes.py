"""Two processes: the figures of one, exactly; and training that stays in step."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from omegaconf import OmegaConf
from tiny_run import config_of, tree_of, write_set
from tiny_sounds import SIZES, tagger_of, write_sounds

from mmfusion.config import save
from mmfusion.evaluate import evaluate
from mmfusion.training.checkpoint import load_weights
from mmfusion.training.loop import train
from mmfusion.training.run import Run

ROOT = Path(__file__).resolve().parents[2]


def launch(*words: str) -> None:
    """Runs a tool in two processes on the CPU."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"num_processes": 2, "num_machines": 1, "mixed_precision": "no", "dynamo_backend": "no"}
    flags = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", *flags, "--main_process_port", str(port)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_processes_give_the_figures_of_one(tmp_path: Path) -> None:
    """13 test clips in batches of 6 do not divide by two: no clip may count twice, none may be missing."""
    manifest = write_set(tmp_path / "set", {"train": 20, "val": 9, "test": 13})
    run = train(config_of(manifest, tmp_path), quiet=True)
    alone = evaluate(run, quiet=True)
    files = [run.folder / "predictions.test.jsonl", run.folder / "metrics.test.json"]
    before = [path.read_text() for path in files]
    for path in files:
        path.unlink()
    launch("tools/evaluate.py", str(run.folder), "--quiet")
    assert [path.read_text() for path in files] == before
    assert json.loads(before[1])["labels"]["map"] == alone["labels"]["map"]
    assert len(before[0].splitlines()) == 13


def test_windows_activity_and_thresholds_are_those_of_one(tmp_path: Path) -> None:
    """Tuned and evaluated by one process and by two: the same files. 30 windows make batches of 8, 8, 8 and 6."""
    heads = {"labels": {"kind": "labels", "per_second": True, "thresholds": "tuned"}}
    settings = {"windows": {"length_s": 2.0, "hop_s": 1.0}, "model__heads": heads}
    manifest = write_sounds(tmp_path / "set")
    first = train(tagger_of(manifest, tmp_path, **settings), quiet=True)
    evaluate(first, quiet=True)
    taken_up = {"training__start_from": str(first.folder), "training__epochs": 0}
    save(tagger_of(manifest, tmp_path, name="two", **settings, **taken_up), tmp_path / "two.yaml")
    launch("tools/train.py", str(tmp_path / "two.yaml"), "--quiet")
    second = Run.open(tmp_path / "runs" / "two" / "seed0")
    launch("tools/evaluate.py", str(second.folder), "--quiet")
    for name in ("thresholds.json", "predictions.test.jsonl", "metrics.test.json"):
        assert (second.folder / name).read_text() == (first.folder / name).read_text(), name
    assert set(second.thresholds()) == {"labels", "activity"}
    assert second.read_json("metrics.test.json")["activity"]["num_clips"] == SIZES["test"]


def test_training_in_two_processes(tmp_path: Path) -> None:
    """Both processes end, learn from every clip, and leave one run that can be evaluated."""
    manifest = write_set(tmp_path / "set", {"train": 21, "val": 9, "test": 5})
    OmegaConf.save(
        OmegaConf.create(tree_of(manifest, tmp_path, name="two", data__modality_dropout={})), tmp_path / "c.yaml"
    )
    launch("tools/train.py", str(tmp_path / "c.yaml"), "--quiet")
    run = Run.open(tmp_path / "runs" / "two" / "seed0")
    assert run.finished
    assert all(
        tensor.isfinite().all() for tensor in load_weights(run.weights).values() if torch.is_floating_point(tensor)
    )
    assert evaluate(run, quiet=True)["num_clips"] == 5
