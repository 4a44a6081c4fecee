"""Drone pairs: one class a pair, recordings in one split only, neighbours together."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from mmfusion.data.catalog.drone import NUM_FOLDS, DroneConfig, deal, prepare, read_recordings
from mmfusion.data.manifest import Manifest, read_manifest
from mmfusion.types import InputError

SOUND_CLASS = {"DRONE": "drone", "HELICOPTER": "helicopter", "BACKGROUND": "background"}
VIDEO_CLASS = {"DRONE": "drone", "HELICOPTER": "helicopter", "AIRPLANE": "background", "BIRD": "background"}


@pytest.fixture(scope="module")
def splits(shared_data, tmp_path_factory) -> list[Manifest]:
    prepared = prepare(shared_data / "drone", tmp_path_factory.mktemp("drone"), DroneConfig())
    assert prepared.remarks == {"described videos without a file": ("bird 5",)}
    assert [path.parent.name for path in prepared.manifests] == [f"split-{fold}" for fold in range(NUM_FOLDS)]
    return [read_manifest(path) for path in prepared.manifests]


def test_no_recording_is_in_two_splits(splits):
    for manifest in splits:
        assert set(manifest.splits) == {"train", "val", "test"}
        for stream in ("audio", "video"):
            files = [{clip.media[stream] for clip in manifest.split(split)} for split in ("train", "val", "test")]
            assert sum(map(len, files)) == len(set.union(*files)) == {"audio": 90, "video": 284}[stream]


def test_every_recording_is_tested_once(splits):
    for stream, number in (("audio", 90), ("video", 284)):
        tested = [{clip.media[stream] for clip in manifest.split("test")} for manifest in splits]
        assert sum(map(len, tested)) == len(set.union(*tested)) == number


def test_pairs_match_in_class_and_the_files_are_there(splits):
    for clip in splits[0].clips:
        video, sound = (Path(clip.media[stream]).stem for stream in ("video", "audio"))
        label = VIDEO_CLASS[video.split("_")[1]]
        assert clip.labels == (label,) and SOUND_CLASS[sound.split("_")[0]] == label
        assert all((splits[0].path.parent / file).is_file() for file in clip.media.values())


def test_every_split_has_every_class_in_like_numbers(splits):
    for manifest in splits:
        for split in ("val", "test"):
            count = Counter(clip.labels[0] for clip in manifest.split(split) if clip.labels)
            assert all(count[label] >= 10 for label in ("background", "drone", "helicopter"))


def test_neighbours_stay_together_and_sources_apart(shared_data):
    _, videos, _ = read_recordings(shared_data / "drone")
    fold_of = {(video.kind, video.number): fold for fold, video in deal(videos, DroneConfig(block_size=6))}
    assert len(fold_of) == len(videos)
    helicopters = [fold_of["helicopter", number] for number in range(1, 19)]  # one source, three blocks
    assert [len(set(helicopters[start : start + 6])) for start in (0, 6, 12)] == [1, 1, 1]


def test_seeds_draw_other_splits_and_repeat(shared_data, tmp_path):
    lines = []
    for place, seed in (("a", 1), ("b", 1), ("c", 2)):
        prepare(shared_data / "drone", tmp_path / place, DroneConfig(seed=seed))
        lines.append((tmp_path / place / "split-0" / "manifest.jsonl").read_bytes())
    assert lines[0] == lines[1] != lines[2]


def test_a_video_can_have_several_sounds(shared_data, tmp_path):
    prepare(shared_data / "drone", tmp_path, DroneConfig(pairs=3))
    clips = read_manifest(tmp_path / "split-0" / "manifest.jsonl").clips
    assert len(clips) == len({clip.id for clip in clips}) == 3 * 284


def test_a_missing_file_is_counted_and_named(shared_data, tmp_path):
    copy = tmp_path / "drone"
    shutil.copytree(shared_data / "drone", copy, ignore=shutil.ignore_patterns("V_BIRD_010.mp4"))
    prepared = prepare(copy, tmp_path / "out", DroneConfig())
    assert prepared.remarks["files of the index that are missing"] == ("Video_V/V_BIRD_010.mp4",)
    assert "1 files of the index that are missing: Video_V/V_BIRD_010.mp4" in prepared.summary()


def test_what_cannot_be_used_is_named(tmp_path, shared_data):
    with pytest.raises(InputError, match=r"video_description\.csv: no such file"):
        prepare(tmp_path, tmp_path / "out", DroneConfig())
    shutil.copy(shared_data / "drone" / "video_description.csv", tmp_path)
    (tmp_path / "index.csv").write_text("path,sensor\na.ogg,Audio\n")
    with pytest.raises(InputError, match=r"index\.csv: label: column is missing"):
        prepare(tmp_path, tmp_path / "out", DroneConfig())
    with pytest.raises(InputError, match="block_size"):
        prepare(shared_data / "drone", tmp_path / "out", DroneConfig(block_size=10))
