"""The list of readers: settings from text, one form for all, and what is written beside the manifests."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from mmfusion.data.catalog.registry import READERS, check_prepared, prepare_set, settings
from mmfusion.types import InputError


@pytest.mark.parametrize("name", READERS)
def test_every_reader_has_defaults_for_all_its_settings(name):
    assert type(settings(name, ())).__name__ == READERS[name][1]


def test_settings_are_read_as_yaml_and_checked():
    config = settings("avmnist", ["snr_db=-1e1", "speakers=[theo,george]", "seed=3"])
    assert (config.snr_db, config.speakers, config.seed) == (-10.0, ("theo", "george"), 3)
    for pairs, complaint in (
        (["snr=3"], r"avmnist: snr: unknown key \(did you mean snr_db"),
        (["seed=1.5"], "avmnist: seed"),
        (["seed"], "key=value"),
        (["=3"], "key=value"),
        (["speakers=[a"], "avmnist"),
    ):
        with pytest.raises(InputError, match=complaint):
            settings("avmnist", pairs)


def test_the_settings_and_remarks_lie_beside_the_manifest(shared_data, tmp_path):
    prepared = prepare_set("mmmo", shared_data / "mmmo", tmp_path, settings("mmmo", ["threshold=3"]))
    saved = json.loads((tmp_path / "prepared.json").read_text())
    assert saved["settings"]["threshold"] == 3.0 and saved["manifests"] == ["manifest.jsonl"]
    assert saved["counts"] == [{"train": 220, "val": 40, "test": 80}]
    assert {reason: tuple(names) for reason, names in saved["remarks"].items()} == prepared.remarks


def test_the_synthetic_set_is_prepared_like_any_other(tmp_path):
    pairs = ["train_clips=2", "val_clips=1", "test_clips=1"]
    prepared = prepare_set("synthetic", None, tmp_path, settings("synthetic", pairs))
    assert prepared.counts == ({"train": 2, "val": 1, "test": 1},)


def test_the_tool_prints_what_it_made(shared_data, tmp_path, root):
    command = [sys.executable, "tools/prepare.py", "mmmo", "--root", str(shared_data / "mmmo"), "--out", str(tmp_path)]
    done = subprocess.run([*command, "rate=4"], cwd=root, capture_output=True, text=True, check=True)
    assert "340 clips (train 220, val 40, test 80)" in done.stdout
    assert "136 clips with steps that have no audio features (masked): train-000, " in done.stdout


def test_a_set_that_was_made_otherwise_is_not_taken(tmp_path) -> None:
    """A comparison that finds a prepared folder must not train on what other settings made."""
    few = ["train_clips=2", "val_clips=1", "test_clips=1", "duration_s=1.5", "size_px=48"]
    check_prepared("synthetic", tmp_path, settings("synthetic", few))  # a folder that does not say how it was made
    prepare_set("synthetic", None, tmp_path, settings("synthetic", few))
    check_prepared("synthetic", tmp_path, settings("synthetic", few))
    with pytest.raises(InputError, match="size_px was 48 and is 64 now"):
        check_prepared("synthetic", tmp_path, settings("synthetic", [*few[:-1], "size_px=64"]))
    with pytest.raises(InputError, match="name was 'synthetic' and is 'msvd' now"):
        check_prepared("msvd", tmp_path, settings("msvd", ()))
    (tmp_path / "prepared.json").write_text("[]")
    with pytest.raises(InputError, match="does not say how the set was made"):
        check_prepared("synthetic", tmp_path, settings("synthetic", few))
