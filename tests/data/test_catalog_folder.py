"""One's own files, a folder a class."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from mmfusion.data.catalog.registry import prepare_set, settings
from mmfusion.data.manifest import read_manifest
from mmfusion.data.media import write_clip, write_sound
from mmfusion.types import InputError


def make(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        write_sound(folder / name, np.zeros(800), 8000)


def test_every_class_is_split_by_recording(tmp_path: Path) -> None:
    root = tmp_path / "sounds"
    for label in ("dog", "rain"):
        make(root / label, [f"{label}{take}-{part}.wav" for take in range(10) for part in range(2)])
    (root / "dog" / "notes.txt").write_text("no sound")
    make(root / "dog", ["greetings.wav"])
    (root / "dog" / "greetings.wav").rename(root / "dog" / os.fsdecode(b"gr\xfc\xdfe.wav"))
    frames = np.zeros((4, 16, 16, 3), np.uint8)
    write_clip(root / "rain" / "seen.mp4", frames, 4, np.zeros(8000), 8000)
    made = prepare_set("folder", root, tmp_path / "out", settings("folder", [r"group=^(\w+)-", "test_share=0.2"]))
    clips = {clip.id: clip for clip in read_manifest(made.manifests[0]).clips}
    assert made.counts[0]["test"] in (8, 9) and sum(made.counts[0].values()) == 41
    odd = ("dog/gr\\xfc\\xdfe.wav", "dog/notes.txt")
    assert made.remarks == {"files without sound and pictures, or with a name that is not UTF-8": odd}
    assert clips["dog/dog3-0.wav"].group == clips["dog/dog3-1.wav"].group == "recording dog3"
    assert clips["dog/dog3-0.wav"].split == clips["dog/dog3-1.wav"].split
    assert set(clips["rain/seen.mp4"].media) == {"audio", "video"} and clips["rain/seen.mp4"].labels == ("rain",)
    assert (made.manifests[0].parent / clips["dog/dog3-0.wav"].media["audio"]).exists()


def test_a_folder_that_is_split_already_stays_so(tmp_path: Path) -> None:
    for split in ("train", "test"):
        make(tmp_path / "sounds" / split / "dog", [f"{split}.wav"])
    made = prepare_set("folder", tmp_path / "sounds", tmp_path / "out", settings("folder", ()))
    assert made.counts == ({"train": 1, "test": 1},)


def test_a_class_may_be_called_train_and_small_classes_are_in_every_split(tmp_path: Path) -> None:
    root = tmp_path / "sounds"
    for label in ("dog", "train", "rain"):
        make(root / label, [f"{take}.wav" for take in range(3)])
    made = prepare_set("folder", root, tmp_path / "out", settings("folder", ()))
    assert made.counts == ({"train": 3, "val": 3, "test": 3},)
    assert read_manifest(made.manifests[0]).label_names() == ("dog", "rain", "train")
    made = prepare_set("folder", root, tmp_path / "none", settings("folder", ["val_share=0", "test_share=0"]))
    assert made.counts == ({"train": 9},)


def test_what_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty" / "dog").mkdir(parents=True)
    with pytest.raises(InputError, match="no folder in it holds a file with sound or pictures"):
        prepare_set("folder", tmp_path / "empty", tmp_path / "out", settings("folder", ()))
    with pytest.raises(InputError, match="has no group in round brackets"):
        prepare_set("folder", tmp_path / "empty", tmp_path / "out", settings("folder", ["group=abc"]))
