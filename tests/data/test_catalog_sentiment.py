"""MOSI and MMMO: splits, labels and features as the files give them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmfusion.data.catalog import mmmo, mosi
from mmfusion.data.catalog.mmmo import MmmoConfig
from mmfusion.data.catalog.mosi import MosiConfig
from mmfusion.data.features import read_features
from mmfusion.data.manifest import Manifest, read_manifest
from mmfusion.types import InputError


@pytest.fixture(scope="module")
def utterances(shared_data, tmp_path_factory) -> Manifest:
    prepared = mosi.prepare(shared_data / "mosi", tmp_path_factory.mktemp("mosi"), MosiConfig())
    return read_manifest(prepared.manifests[0])


@pytest.fixture(scope="module")
def reviews(shared_data, tmp_path_factory) -> Manifest:
    prepared = mmmo.prepare(shared_data / "mmmo", tmp_path_factory.mktemp("mmmo"), MmmoConfig())
    assert {reason.split()[-3]: len(names) for reason, names in prepared.remarks.items()} == {
        "audio": 136,
        "video": 313,
    }
    return read_manifest(prepared.manifests[0])


def _toy_mosi(path: Path, without: str = "", **changed: np.ndarray) -> None:
    arrays: dict[str, np.ndarray] = {}
    for part in ("train", "test"):
        arrays |= {f"{stream}_{part}": np.ones((4, 3), np.float32) for stream in mosi.STREAMS}
        arrays |= {f"y_{part}": np.array([0, 1, 0, 1]), f"utt_{part}": np.arange(4)}
        arrays[f"video_id_{part}"] = np.array([f"{part}{number // 2}" for number in range(4)])
    arrays = {name: array for name, array in (arrays | changed).items() if name != without}
    np.savez(path / "mosi_utterance_features.npz", **arrays)  # type: ignore[arg-type]


def test_mosi_has_the_official_test_split(utterances):
    assert len(utterances.clips) == 2199 and len(utterances.split("test")) == 752
    positive = np.mean([clip.labels == ("positive",) for clip in utterances.split("test")])
    assert positive == pytest.approx(0.621, abs=5e-4)


def test_mosi_splits_share_no_video(utterances):
    videos = [{clip.group for clip in utterances.split(split)} for split in ("train", "val", "test")]
    assert [len(found) for found in videos] == [52, 10, 31] and len(set.union(*videos)) == 93


def test_mosi_features_are_one_step_of_the_file(utterances, shared_data):
    arrays = np.load(shared_data / "mosi" / "mosi_utterance_features.npz")
    row = {f"{v}-{u}": i for i, (v, u) in enumerate(zip(arrays["video_id_test"], arrays["utt_test"], strict=True))}
    for clip in utterances.split("test")[:20]:
        for stream, width in (("audio", 73), ("video", 100), ("text", 100)):
            path = utterances.resolve(clip, stream)
            assert path is not None
            data, mask, rate = read_features(path)
            assert data.shape == (1, width) and mask.all() and rate == 1.0
            np.testing.assert_array_equal(data[0], arrays[f"{stream}_test"][row[clip.id]])


def test_mosi_validation_is_drawn_by_seed(tmp_path):
    _toy_mosi(tmp_path)
    drawn = set()
    for seed in range(8):
        mosi.prepare(tmp_path, tmp_path / "out", MosiConfig(seed=seed, num_val_videos=1))
        drawn |= {clip.group for clip in read_manifest(tmp_path / "out" / "manifest.jsonl").split("val")}
    assert drawn == {"train0", "train1"}


def test_mosi_names_what_it_cannot_use(tmp_path):
    with pytest.raises(InputError, match=r"mosi_utterance_features\.npz: no such file"):
        mosi.prepare(tmp_path, tmp_path / "out", MosiConfig())
    _toy_mosi(tmp_path, without="text_test")
    with pytest.raises(InputError, match="text_test: array is missing"):
        mosi.prepare(tmp_path, tmp_path / "out", MosiConfig(num_val_videos=1))
    _toy_mosi(tmp_path, y_test=np.array([0, 1, 2, 1]))
    with pytest.raises(InputError, match="y_test: row 2 must be 0 or 1, got 2"):
        mosi.prepare(tmp_path, tmp_path / "out", MosiConfig(num_val_videos=1))
    _toy_mosi(tmp_path)
    with pytest.raises(InputError, match="num_val_videos"):
        mosi.prepare(tmp_path, tmp_path / "out", MosiConfig(num_val_videos=2))


def test_mmmo_has_the_given_splits_and_labels(reviews, shared_data):
    assert [len(reviews.split(split)) for split in ("train", "val", "test")] == [220, 40, 80]
    rating = np.load(shared_data / "mmmo" / "mmmo.npz")["y_test"]
    assert [clip.labels == ("positive",) for clip in reviews.split("test")] == (rating >= 3.5).tolist()
    assert len({clip.group for clip in reviews.clips}) == 340


def test_mmmo_masks_steps_without_features(reviews, shared_data):
    arrays = np.load(shared_data / "mmmo" / "mmmo.npz")
    num_masked = 0
    for index, clip in enumerate(reviews.split("test")):
        for stream, width in (("audio", 74), ("video", 36)):
            path = reviews.resolve(clip, stream)
            assert path is not None
            data, mask, rate = read_features(path)
            assert data.shape == (20, width) and rate == 2.0
            np.testing.assert_array_equal(data, arrays[f"{stream}_test"][index])
            np.testing.assert_array_equal(mask, data.any(axis=1))
            num_masked += int((~mask).sum())
    assert num_masked > 0


def test_mmmo_threshold_is_a_setting(shared_data, tmp_path):
    mmmo.prepare(shared_data / "mmmo", tmp_path, MmmoConfig(threshold=6.0))
    assert read_manifest(tmp_path / "manifest.jsonl").label_names() == ("negative",)


def test_mmmo_names_what_it_cannot_use(tmp_path):
    with pytest.raises(InputError, match=r"mmmo\.npz: no such file"):
        mmmo.prepare(tmp_path, tmp_path / "out", MmmoConfig())
    np.savez(tmp_path / "mmmo.npz", audio_train=np.zeros((1, 20, 3)))
    with pytest.raises(InputError, match="video_train: array is missing"):
        mmmo.prepare(tmp_path, tmp_path / "out", MmmoConfig())
