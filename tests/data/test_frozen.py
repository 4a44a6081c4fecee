from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_set import data_config, make_set

from mmfusion.data.cache import ClipCache, build_cache
from mmfusion.data.dataset import ClipDataset, collate, gather_facts
from mmfusion.data.frozen import cache_features
from mmfusion.data.manifest import Manifest
from mmfusion.types import Facts, Stream


class Means:
    """Mean red, green and blue of each frame, and a count of the clips that were seen."""

    def __init__(self, fail_after: int = 1000) -> None:
        self.num_clips = 0
        self.fail_after = fail_after

    def __call__(self, frames: Stream) -> Stream:
        assert not torch.is_grad_enabled()
        if self.num_clips >= self.fail_after:
            raise KeyboardInterrupt
        self.num_clips += len(frames.data)
        return frames.with_data(frames.data.float().mean(dim=(3, 4)))


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return make_set(tmp_path / "set", 8)


def test_features_take_the_place_of_frames(manifest: Manifest) -> None:
    config = data_config(manifest)
    build_cache(manifest, config, progress=False)
    cache, encode = ClipCache(manifest, config), Means()
    frozen = cache_features(cache, manifest.clips, "video", encode, "means 1", batch_size=3, progress=False)
    assert encode.num_clips == 6
    assert gather_facts(frozen, ()).widths == {"flow": 5, "video": 3}
    for clip in manifest.clips:
        frames, features = cache.load(clip), frozen.load(clip)
        assert set(frames) == set(features)
        if "video" in frames:
            assert features["video"].rate == frames["video"].rate
            assert features["video"].mask.tolist() == frames["video"].mask.tolist()
            expected = torch.from_numpy(frames["video"].data.copy()).float().mean(dim=(2, 3))
            torch.testing.assert_close(torch.from_numpy(features["video"].data.copy()), expected)
    dataset = ClipDataset(manifest.clips, frozen, Facts(), None, config, training=False)
    assert collate([dataset[i] for i in range(8)]).inputs["video"].data.shape == (8, 4, 3)


def test_features_are_computed_once_for_each_key(manifest: Manifest) -> None:
    config = data_config(manifest)
    build_cache(manifest, config, progress=False)
    cache = ClipCache(manifest, config)
    for key, expected in (("a", 6), ("a", 0), ("b", 6)):
        encode = Means()
        both = cache_features(cache, manifest.clips, "video", encode, key, target="colour", progress=False)
        assert encode.num_clips == expected
    assert set(both.load(manifest.clips[0])) == {"audio", "video", "flow", "colour"}
    assert set(cache.load(manifest.clips[0])) == {"audio", "video", "flow"}


def test_an_interruption_keeps_what_was_done(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmfusion.data.frozen._SHARD_S", 0.0)
    config = data_config(manifest)
    build_cache(manifest, config, progress=False)
    cache = ClipCache(manifest, config)
    with pytest.raises(KeyboardInterrupt):
        cache_features(cache, manifest.clips, "video", Means(fail_after=4), "a", batch_size=2, progress=False)
    encode = Means()
    cache_features(cache, manifest.clips, "video", encode, "a", batch_size=2, progress=False)
    assert encode.num_clips == 2
