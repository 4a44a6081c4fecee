"""Mixtures on the fly: the same examples in any process, new ones in every epoch, and a frozen test set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sound_set import RATE, write_sounds
from torch.nn.functional import one_hot
from torch.utils.data import DataLoader

from mmfusion.config import validate
from mmfusion.data.cache import build_cache
from mmfusion.data.clips import ClipCache
from mmfusion.data.dataset import ClipDataset, collate, gather_facts
from mmfusion.data.inputs import DataConfig
from mmfusion.data.manifest import Manifest
from mmfusion.data.mixtures.clips import MixtureDataset, Mixtures, placed
from mmfusion.data.mixtures.gather import decoded_manifest
from mmfusion.data.mixtures.make import Order, make_mixtures
from mmfusion.data.raw import Raw
from mmfusion.types import InputError

MIXTURE = {"num_sources": 3, "duration_s": 2.0, "num_train": 12, "num_validation": 4, "num_test": 5}


def data_of(manifest: Manifest, pictures: bool = False, **mixture: Any) -> DataConfig:
    inputs: dict[str, Any] = {"audio": {"kind": "waveform", "sample_rate_hz": RATE}}
    if pictures:
        inputs["video"] = {"kind": "frames", "rate": 5, "size_px": 16}
    tree = {
        "manifest": str(manifest.path), "cache": str(manifest.path.parent / "cache"), "cache_workers": 0,
        "inputs": inputs, "mixture": {**MIXTURE, **mixture},
    }  # fmt: skip
    return validate(DataConfig, tree, "test")


def open_mixtures(manifest: Manifest, data: DataConfig) -> Mixtures:
    sounds, _ = decoded_manifest(manifest, data)
    build_cache(sounds, data, progress=False)
    return Mixtures(sounds, ClipCache(sounds, data), data, progress=False)


def dataset_of(mixtures: Mixtures, data: DataConfig, split: str, **changes: Any) -> MixtureDataset:
    cache = mixtures.cache
    facts = gather_facts(cache, cache.manifest.label_names(), num_sources=data.num_sources)
    clips = mixtures.manifest().split(split)
    return MixtureDataset(ClipDataset(clips, cache, facts, None, data, **changes), mixtures)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return write_sounds(tmp_path_factory.mktemp("sounds"))


def test_an_example_is_the_sum_of_its_sources(sounds: Manifest) -> None:
    data = data_of(sounds)
    dataset = dataset_of(open_mixtures(sounds, data), data, "train", training=True)
    assert len(dataset) == 12 and dataset.plain.facts.num_sources == 3
    batch = collate([dataset[index] for index in range(4)])
    targets = batch.targets
    assert targets.sources is not None and targets.source_mask is not None and targets.labels is not None
    assert targets.sources.shape == (4, 3, 2 * RATE) and targets.sources.dtype == torch.float32
    assert targets.source_mask.shape == (4, 3) and targets.source_mask.all()
    assert targets.source_classes is not None and targets.source_classes.dtype == torch.int64
    assert torch.equal(one_hot(targets.source_classes, 5).sum(1), targets.labels.long())
    torch.testing.assert_close(batch.inputs["audio"].data, targets.sources.sum(1), atol=1e-6, rtol=1e-5)
    assert batch.inputs["audio"].mask.all() and batch.ids[2] == "mix-train-00002"
    assert (targets.labels.sum(1) == 3).all() and targets.label_mask is not None and targets.label_mask.all()
    assert targets.activity is not None and targets.activity.shape == (4, 2, 5)
    assert torch.equal(targets.activity.amax(1), targets.labels)
    assert batch.to("meta").targets.sources.is_meta


@pytest.mark.parametrize("training", [True, False])
def test_worker_processes_give_the_same_examples(sounds: Manifest, training: bool) -> None:
    data = data_of(sounds)
    dataset = dataset_of(open_mixtures(sounds, data), data, "train", training=training, seed=3)
    dataset.set_epoch(2)
    batches = [[3, 1], [11, 0, 7], [2]]
    here, there = (
        list(DataLoader(dataset, batch_sampler=batches, collate_fn=collate, num_workers=num)) for num in (0, 2)
    )
    for one, other in zip(here, there, strict=True):
        assert one.ids == other.ids
        for name in ("sources", "labels", "activity"):
            assert torch.equal(getattr(one.targets, name), getattr(other.targets, name))
        assert torch.equal(one.inputs["audio"].data, other.inputs["audio"].data)


def test_training_mixtures_are_new_in_every_epoch_and_run_and_test_mixtures_never(sounds: Manifest) -> None:
    data = data_of(sounds)
    mixtures = open_mixtures(sounds, data)

    def sound(split: str, training: bool, seed: int, epoch: int) -> np.ndarray:
        dataset = dataset_of(mixtures, data, split, training=training, seed=seed, epoch=epoch)
        return dataset[1].inputs["audio"].data

    first = sound("train", True, 0, 0)
    assert np.array_equal(first, sound("train", True, 0, 0))
    for other in (sound("train", True, 0, 1), sound("train", True, 1, 0), sound("train", False, 0, 0)):
        assert not np.array_equal(first, other)
    assert np.array_equal(sound("test", False, 0, 0), sound("test", False, 5, 7))


def test_frozen_sets_have_a_fingerprint(sounds: Manifest) -> None:
    def prints(**mixture: Any) -> list[str]:
        manifest = open_mixtures(sounds, data_of(sounds, **mixture)).manifest()
        return [manifest.fingerprint(manifest.split(split)) for split in ("train", "val", "test")]

    first = prints()
    assert first == prints() and len(set(first)) == 3
    assert not set(first) & {*prints(seed=1), *prints(snr_db=[-1.0, 1.0])}


def test_splits_share_no_clip(sounds: Manifest) -> None:
    mixtures = open_mixtures(sounds, data_of(sounds, num_train=60, num_validation=60, num_test=60))
    manifest = mixtures.manifest()
    used = {
        split: {part.clip.id for clip in manifest.split(split) for part in mixtures.recipe_of(clip).parts}
        for split in manifest.splits
    }
    assert [len(ids) for ids in used.values()] == [15, 5, 10]
    assert all(clip.startswith(f"{split}-") for split, ids in used.items() for clip in ids)
    groups = {split: {clip.group for clip in manifest.split(split)} for split in manifest.splits}
    assert not groups["train"] & groups["test"] and not groups["train"] & groups["val"]


def test_the_tool_writes_the_frozen_mixtures(sounds: Manifest, tmp_path: Path) -> None:
    data = data_of(sounds)
    dataset = dataset_of(open_mixtures(sounds, data), data, "test", training=False)
    tree = {
        "manifest": str(sounds.path), "out": str(tmp_path), "cache": str(sounds.path.parent / "cache"),
        "mixture": {"num_sources": 3, "duration_s": 2.0}, "sample_rate_hz": RATE, "count": 2, "splits": ["test"],
    }  # fmt: skip
    from scipy.io import wavfile

    make_mixtures(validate(Order, tree, "mix"), progress=False)
    for number in range(2):
        example = dataset[number]
        _, stored = wavfile.read(tmp_path / "test" / f"{example.clip_id}.wav")
        sound = example.inputs["audio"].data
        scale = float(stored.astype(float) @ sound) / float(sound @ sound) / 32768
        np.testing.assert_allclose(stored / 32768, sound * scale, atol=2 / 32768)


def test_selected_classes_and_left_out_clips(sounds: Manifest) -> None:
    chosen = ["class 1", "class 2", "class 4"]
    mixtures = open_mixtures(sounds, data_of(sounds, selected_classes=chosen))
    assert {label for clip in mixtures.manifest().clips for label in clip.labels or ()} == set(chosen)
    assert mixtures.cache.manifest.label_names() == tuple(chosen) and mixtures.left_out == {}
    strict = open_mixtures(sounds, data_of(sounds, min_active=0.05, duration_s=0.4, num_sources=2))
    assert strict.left_out == {}
    with pytest.raises(InputError, match=r"split 'train': num_sources is 3, .* and 0 classes"):
        open_mixtures(sounds, data_of(sounds, min_active=1.0))


def test_pictures_are_those_of_the_first_source(tmp_path: Path) -> None:
    manifest = write_sounds(tmp_path, pictures=True)
    data = data_of(manifest, pictures=True, onset_s=[0.3, 0.9])
    mixtures = open_mixtures(manifest, data)
    dataset = dataset_of(mixtures, data, "train", training=False)
    for index in range(6):
        example, recipe = dataset[index], mixtures.recipe_of(dataset.plain.clips[index])
        part = recipe.parts[0]
        video = example.inputs["video"]
        assert video.data.shape == (10, 3, 16, 16) and video.mask.any()
        inside = np.flatnonzero(video.mask)
        assert abs(inside[0] / 5 - part.onset_sample / RATE) <= 0.11
        assert abs((inside[-1] + 1) / 5 - part.end_sample / RATE) <= 0.31
        grey = video.data[inside[0]].mean()
        assert abs(grey - 40 - 10 * int(part.label[-1])) < 8
        assert not video.data[~video.mask].any()
    assert [source.seen for source in dataset.plain.clips[0].sources] == [True, False, False]


def test_a_still_picture_stays_as_it_is(sounds: Manifest) -> None:
    mixtures = open_mixtures(sounds, data_of(sounds))
    recipe = mixtures.recipe_of(mixtures.manifest().clips[0])
    still = Raw(np.ones((1, 3, 8, 8), np.uint8), np.ones(1, bool), 4.0)
    assert placed(still, recipe.parts[0], recipe) is still


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"inputs": {"sound": {"kind": "waveform"}}}, "mixture needs 'audio' as the only waveform"),
        ({"inputs": {"audio": {"kind": "features"}}}, "mixture needs 'audio' as the only waveform"),
        ({"augment": {"gain_db": [-3.0, 3.0]}}, "augment changes the sound"),
        ({"modality_dropout": {"audio": 0.5}}, "modality_dropout hides 'audio'"),
    ],
)
def test_settings_that_do_not_go_with_mixtures(change: dict[str, Any], said: str) -> None:
    tree = {"manifest": "m", "inputs": {"audio": {"kind": "waveform"}}, "mixture": {}}
    assert validate(DataConfig, tree, "test").num_sources == 2
    with pytest.raises(InputError, match=said):
        validate(DataConfig, {**tree, **change}, "test")


def test_clips_without_mixing_have_no_sources(sounds: Manifest) -> None:
    data = replace(data_of(sounds), mixture=None)
    assert data.num_sources == 0 and decoded_manifest(sounds, data) == (sounds, {})
    cache = ClipCache(sounds, data)
    facts = gather_facts(cache, ("class 0", "class 1"))
    dataset = ClipDataset(sounds.clips[:2], cache, facts, None, data, training=False)
    targets = collate([dataset[0], dataset[1]]).targets
    assert targets.sources is None and targets.source_mask is None and targets.source_classes is None
