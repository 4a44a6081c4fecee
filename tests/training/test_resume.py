"""A run that is killed and resumed ends like one that was never stopped."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from tiny_run import config_of, tree_of, write_set

from mmfusion.data.manifest import read_manifest, write_manifest
from mmfusion.evaluate import evaluate
from mmfusion.training.checkpoint import load_weights
from mmfusion.training.log import read_log
from mmfusion.training.loop import train
from mmfusion.training.run import Run
from mmfusion.types import InputError

ROOT = Path(__file__).resolve().parents[2]
MANY = {"training__checkpoint_every": 1, "training__accumulate": 2, "training__ema": 0.9,
        "training__select": "labels.map"}  # fmt: skip


def same_weights(one: Run, other: Run) -> bool:
    first, second = load_weights(one.weights), load_weights(other.weights)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.timeout(1200)
def test_killed_at_ten_random_steps(tmp_path: Path) -> None:
    """SIGKILL at ten random moments: weights and figures are those of the uninterrupted run, bit for bit."""
    manifest = write_set(tmp_path / "set")
    whole = train(
        config_of(
            manifest,
            tmp_path,
            name="whole",
            training__epochs=12,
            **MANY,
        ),
        quiet=True,
    )
    tree = tree_of(
        manifest,
        tmp_path,
        name="killed",
        training__epochs=12,
        **MANY,
    )
    path = tmp_path / "killed.yaml"
    OmegaConf.save(OmegaConf.create(tree), path)
    killed = _kill_and_resume(path, tmp_path / "runs" / "killed" / "seed0", times=10)
    assert killed == 10
    run = Run.open(tmp_path / "runs" / "killed" / "seed0")
    assert run.finished
    assert same_weights(run, whole)
    figures = [
        (row["update"], row["split"], row["figure"], row["value"]) for row in read_log(run.folder / "metrics.csv")
    ]
    expected = [
        (row["update"], row["split"], row["figure"], row["value"]) for row in read_log(whole.folder / "metrics.csv")
    ]
    timed = "wait_share"
    assert [f for f in figures if f[2] != timed] == [f for f in expected if f[2] != timed]


def _kill_and_resume(config: Path, folder: Path, times: int) -> int:
    """Starts training over and over; kills it `times` times, each at a random moment after a further checkpoint."""
    draw = random.Random(0)
    killed = 0
    seen = -1
    while not (folder / "finished.json").exists():
        process = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, str(config)], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while killed < times and process.poll() is None:
            update = _latest(folder)
            if update > seen:
                seen = update
                time.sleep(draw.random() * 0.05)
                process.send_signal(signal.SIGKILL)
                killed += 1
                break
            time.sleep(0.002)
        _, errors = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), errors
    return killed


# Slowed down a little, so that the kills can hit between any two updates of a run that takes milliseconds.
_SCRIPT = """
import sys, time
import torch
torch.set_num_threads(1)
from mmfusion.config import load
from mmfusion.training import loop
from mmfusion.training.run import RunConfig
update = loop.Trainer._update
def slow(self, batches):
    update(self, batches)
    time.sleep(0.03)
loop.Trainer._update = slow
loop.train(load(RunConfig, sys.argv[1]), quiet=True)
"""


def _latest(folder: Path) -> int:
    numbers = [int(path.name.split("-")[1].split(".")[0]) for path in folder.glob("checkpoint-*")]
    return max(numbers, default=-1)


def test_interrupt_leaves_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_set(tmp_path / "set")
    whole = train(config_of(manifest, tmp_path, name="whole"), quiet=True)
    from mmfusion.training import loop

    update = loop.Trainer._update

    def interrupted(self: loop.Trainer, batches: object) -> None:
        update(self, batches)  # type: ignore[arg-type]
        if self.progress.update == 5:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(loop.Trainer, "_update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(config_of(manifest, tmp_path, name="stopped"), quiet=True)
    monkeypatch.undo()
    stopped = train(config_of(manifest, tmp_path, name="stopped"), quiet=True)
    assert same_weights(stopped, whole)


def test_a_second_command_leaves_a_run_that_has_just_begun_alone(tmp_path: Path) -> None:
    """Before its first checkpoint nothing but the lock says that somebody is at it."""
    manifest = write_set(tmp_path / "set")
    config = config_of(manifest, tmp_path)
    with Run(config.folder, config).locked():
        Run.create(config).write_json("labels.json", ["kept"])
        before = {path.name: path.read_bytes() for path in config.folder.iterdir()}
        with pytest.raises(InputError, match="another process is training this run"):
            train(config_of(manifest, tmp_path, training__optimiser={"lr": 0.5}), quiet=True)
        assert {path.name: path.read_bytes() for path in config.folder.iterdir()} == before


def test_other_clips_do_not_go_on_with_a_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    manifest = write_set(tmp_path / "set")
    clips = read_manifest(manifest).clips
    swapped = {"train": "test", "test": "train"}
    other = [replace(clip, split=swapped.get(clip.split, clip.split)) for clip in clips]
    finished = train(config_of(manifest, tmp_path, name="whole"), quiet=True)
    begun = config_of(manifest, tmp_path, name="begun")
    shutil.copytree(finished.folder, begun.folder)
    (begun.folder / "finished.json").unlink()
    (begun.folder / "checkpoint-1.0").mkdir()
    (begun.folder / "config.yaml").write_text((begun.folder / "config.yaml").read_text().replace("whole", "begun"))
    evaluate(finished, quiet=True)
    assert "warning" not in capsys.readouterr().err
    write_manifest(manifest, other)
    with pytest.raises(InputError, match=r"split 'train' holds other clips than when .* began; restore them"):
        train(begun, quiet=True)
    evaluate(finished, quiet=True)
    assert "its training split is not that of the run's training" in capsys.readouterr().err


def test_other_seed_gives_other_weights(tmp_path: Path) -> None:
    """Otherwise the tests above would prove nothing."""
    manifest = write_set(tmp_path / "set")
    runs = [train(config_of(manifest, tmp_path, seed=seed), quiet=True) for seed in (0, 1)]
    assert not same_weights(*runs)


def test_loader_workers_change_nothing(tmp_path: Path) -> None:
    manifest = write_set(tmp_path / "set")
    settings = {"training__epochs": 2}
    none = train(config_of(manifest, tmp_path, name="none", **settings), quiet=True)
    two = train(config_of(manifest, tmp_path, name="two", data__workers=2, **settings), quiet=True)
    assert same_weights(none, two)


def test_finished_run_is_left_alone(tmp_path: Path) -> None:
    manifest = write_set(tmp_path / "set")
    run = train(config_of(manifest, tmp_path), quiet=True)
    before = run.weights.stat().st_mtime_ns
    again = train(config_of(manifest, tmp_path), quiet=True)
    assert again.weights.stat().st_mtime_ns == before
    assert json.loads((again.folder / "finished.json").read_text())["epochs"] == 3
