"""MSVD: standard splits, training captions without repeats, features on the clip's clock."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.data.catalog import msvd
from mmfusion.data.catalog.msvd import MsvdConfig, num_distinct, on_clock
from mmfusion.data.features import read_features
from mmfusion.data.manifest import Manifest, read_manifest
from mmfusion.types import InputError


@pytest.fixture(scope="module")
def clips(shared_data, tmp_path_factory) -> Manifest:
    prepared = msvd.prepare(shared_data / "msvd", tmp_path_factory.mktemp("msvd"), MsvdConfig())
    assert len(prepared.remarks["clips have no video file"]) == 8
    assert len(prepared.remarks["clips with captions are not in this subset"]) == 1970 - 476
    return read_manifest(prepared.manifests[0])


def _toy(root: Path, mapping: list[str], **sentences: list[str]) -> None:
    (root / "clips").mkdir(parents=True, exist_ok=True)
    (root / "youtube_mapping.txt").write_text("\n".join(mapping) + "\n")
    for split in ("train", "val", "test"):
        lines = sentences.get(split, [])
        (root / f"sents_{split}_lc_nopunc.txt").write_text("".join(f"{line}\n" for line in lines))
        for line in lines:
            (root / "clips" / f"{line.split()[0]}.mp4").write_bytes(b"")
    np.savez(
        root / "features_476.npz",
        vid=np.array(["vid1"]),
        r2plus1d_359=np.arange(40, dtype=np.float16).reshape(1, 20, 2),
        feat1000=np.arange(40, dtype=np.float16).reshape(1, 20, 2),
    )


def test_the_standard_split_of_the_476(clips, shared_data):
    assert [len(clips.split(split)) for split in ("train", "val", "test")] == [283, 22, 171]
    arrays = np.load(shared_data / "msvd" / "features_476.npz")
    assert {clip.id: clip.split for clip in clips.clips} == dict(zip(arrays["vid"], arrays["s2vt_split"], strict=True))
    assert all(set(clip.media) >= {"r2plus1d", "feat1000"} for clip in clips.clips)


@pytest.mark.parametrize(("subset", "number"), [("clips", 549), ("all", 557)])
def test_other_subsets(subset, number, shared_data, tmp_path):
    msvd.prepare(shared_data / "msvd", tmp_path, MsvdConfig(subset=subset))
    manifest = read_manifest(tmp_path / "manifest.jsonl")
    assert len(manifest.clips) == number
    for clip in manifest.clips[:50]:
        for stream in clip.media:
            path = manifest.resolve(clip, stream)
            assert path is not None and path.is_file()


@pytest.mark.parametrize("split", ["train", "test"])
def test_captions_are_those_of_the_files_and_training_has_no_repeats(clips, shared_data, split):
    lines = (shared_data / "msvd" / f"sents_{split}_lc_nopunc.txt").read_text().splitlines()
    for clip in clips.split(split)[:40]:
        given_lines = [" ".join(line.split()[1:]) for line in lines if line.startswith(f"{clip.id}\t")]
        assert set(clip.captions) == set(given_lines)
        if split == "train":
            assert len(set(clip.captions)) == len(clip.captions) <= len(given_lines)
        else:
            assert list(clip.captions) == given_lines


def test_steps_are_on_the_clips_clock(clips, shared_data):
    seconds = msvd.read_mapping(shared_data / "msvd" / "youtube_mapping.txt")
    for clip in clips.clips[:40]:
        for stream, width, rate in (("r2plus1d", 359, 1.0), ("feat1000", 1000, 2.0)):
            path = clips.resolve(clip, stream)
            assert path is not None
            data, mask, found = read_features(path)
            assert (data.shape[1], found, mask.all()) == (width, rate, True)
            longest = seconds[clip.id][1] if stream == "feat1000" else min(20.0, seconds[clip.id][1])
            assert len(data) == np.ceil(longest * rate)


def test_repeats_of_the_last_window_are_undone(shared_data):
    arrays = np.load(shared_data / "msvd" / "features_476.npz")
    seconds = msvd.read_mapping(shared_data / "msvd" / "youtube_mapping.txt")
    num_exact = 0
    for vid, steps in zip(arrays["vid"], arrays["r2plus1d_359"], strict=True):
        number = num_distinct(steps)
        assert (steps[number - 1 :] == steps[-1]).all() and len(np.unique(steps[:number], axis=0)) == number
        if number == seconds[vid][1] < 20:  # one window a second: nothing to average
            np.testing.assert_array_equal(on_clock("r2plus1d", steps, seconds[vid][1]), steps[:number])
            num_exact += 1
    assert num_exact > 200


@settings(max_examples=30, deadline=None)
@given(number=st.integers(1, 20), duration_s=st.integers(1, 60), seed=st.integers(0, 5))
def test_averaging_keeps_constants_means_and_order(number, duration_s, seed):
    steps = np.random.default_rng(seed).normal(size=(number, 3))
    out = on_clock("feat1000", steps, float(duration_s))
    assert out.shape == (2 * duration_s, 3)
    np.testing.assert_allclose(out.mean(0), steps.mean(0), atol=1e-5)
    np.testing.assert_allclose(on_clock("feat1000", np.ones((number, 1)), float(duration_s)), 1.0, rtol=1e-6)
    rising = on_clock("feat1000", np.arange(number, dtype=float)[:, None], float(duration_s))
    assert (np.diff(rising[:, 0]) >= -1e-6).all()


def test_repeated_captions_are_counted(tmp_path):
    _toy(
        tmp_path, ["abc_1_5 vid1"], train=["vid1\ta man  runs", "vid1\ta man runs", "vid1\tA man runs.", "vid1\ta dog"]
    )
    prepared = msvd.prepare(tmp_path, tmp_path / "out", MsvdConfig())
    assert read_manifest(prepared.manifests[0]).clips[0].captions == ("a man runs", "a dog")
    assert prepared.remarks["training clips had repeated captions, which were left out (how many)"] == ("vid1 (2)",)


def test_a_training_clip_of_a_test_video_is_left_out(tmp_path):
    mapping = ["abc_1_5 vid1", "abc_7_9 vid2", "xyz_0_4 vid3"]
    _toy(tmp_path, mapping, train=["vid1\ta man runs", "vid3\ta dog"], test=["vid2\ta man"])
    prepared = msvd.prepare(tmp_path, tmp_path / "out", MsvdConfig(subset="all"))
    assert [clip.id for clip in read_manifest(prepared.manifests[0]).clips] == ["vid2", "vid3"]
    assert ("vid1",) in prepared.remarks.values()


def test_a_broken_line_is_named(tmp_path):
    _toy(tmp_path, ["abc_1_5 vid1"], train=["vid1\ta man runs", "vid1 a man"])
    with pytest.raises(InputError, match=r"sents_train_lc_nopunc\.txt:2: must read"):
        msvd.prepare(tmp_path, tmp_path / "out", MsvdConfig())
    _toy(tmp_path, ["abc_1_5 vid1", "abc vid2"], train=["vid1\ta man runs"])
    with pytest.raises(InputError, match=r"youtube_mapping\.txt:2: must read"):
        msvd.prepare(tmp_path, tmp_path / "out", MsvdConfig())
    (tmp_path / "youtube_mapping.txt").unlink()
    with pytest.raises(InputError, match=r"youtube_mapping\.txt: no such file"):
        msvd.prepare(tmp_path, tmp_path / "out", MsvdConfig())
