from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small_set import INPUTS, data_config, make_set
from torch.utils.data import DataLoader

from mmfusion.data.cache import ClipCache, build_cache
from mmfusion.data.collate import Example
from mmfusion.data.dataset import ClipDataset, collate, gather_facts
from mmfusion.data.inputs import DataConfig
from mmfusion.data.manifest import Manifest
from mmfusion.data.reading import MediaReader
from mmfusion.data.retiming import Retiming
from mmfusion.data.sampler import EpochSampler
from mmfusion.types import Batch, Clip, Facts, InputError, Source

AUGMENT = {"crop": 0.3, "flip": 0.5, "shift_s": 0.25, "gain_db": [-6, 6], "noise_snr_db": [5, 20]}
FACTS = Facts(labels=("bell", "siren"), words=("<pad>", "<bos>", "<eos>", "<unk>"), widths={"flow": 5})


def encode(caption: str) -> list[int]:
    return [1, *(4 + ord(letter) for letter in caption), 2]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_set(tmp_path_factory.mktemp("set"), 8)


@pytest.fixture(scope="module")
def open_set(manifest: Manifest) -> Callable[..., ClipDataset]:
    def make(training: bool = False, clips: Sequence[Clip] | None = None, **changes: Any) -> ClipDataset:
        config = data_config(manifest, **changes)
        build_cache(manifest, config, progress=False)
        cache = ClipCache(manifest, config)
        return ClipDataset(clips or manifest.clips, cache, FACTS, encode, config, training=training, seed=5)

    return make


def tensors(batch: Batch) -> dict[str, torch.Tensor]:
    found = {f"{name}.data": stream.data for name, stream in batch.inputs.items()}
    found |= {f"{name}.mask": stream.mask for name, stream in batch.inputs.items()}
    targets = batch.targets
    return found | {name: value for name, value in vars(targets).items() if value is not None}


def assert_equal(one: Batch, other: Batch) -> None:
    assert one.ids == other.ids
    assert {name: stream.rate for name, stream in one.inputs.items()} == {
        name: stream.rate for name, stream in other.inputs.items()
    }
    mine, theirs = tensors(one), tensors(other)
    assert set(mine) == set(theirs)
    for name, value in mine.items():
        assert value.dtype == theirs[name].dtype
        assert torch.equal(torch.nan_to_num(value, 9.0), torch.nan_to_num(theirs[name], 9.0)), name


def test_any_number_of_workers_gives_the_same_batches(open_set: Callable[..., ClipDataset]) -> None:
    dataset = open_set(True, augment=AUGMENT, modality_dropout={"audio": 0.4, "video": 0.4}, captions_per_clip=2)
    epochs = []
    for workers in (0, 1, 2):
        batches = []
        for epoch in range(2):
            dataset.set_epoch(epoch)
            sampler = EpochSampler(len(dataset), 3, 5, epoch=epoch)
            loader = DataLoader(dataset, batch_sampler=sampler, num_workers=workers, collate_fn=collate)  # type: ignore[arg-type]
            batches += list(loader)
        epochs.append(batches)
    for other in epochs[1:]:
        for one, two in zip(epochs[0], other, strict=True):
            assert_equal(one, two)


def test_training_changes_with_epoch_and_seed_and_evaluation_does_not(open_set: Callable[..., ClipDataset]) -> None:
    dataset = open_set(True, augment=AUGMENT)
    first = collate([dataset[1]])
    dataset.set_epoch(1)
    assert not torch.equal(first.inputs["video"].data, collate([dataset[1]]).inputs["video"].data)
    dataset.set_epoch(0)
    assert_equal(first, collate([dataset[1]]))
    dataset.seed = 6
    assert not torch.equal(first.inputs["video"].data, collate([dataset[1]]).inputs["video"].data)
    plain = open_set(False, augment=AUGMENT, modality_dropout={"audio": 1.0, "video": 1.0, "flow": 1.0})
    before = collate([plain[i] for i in range(8)])
    plain.set_epoch(3)
    assert_equal(before, collate([plain[i] for i in range(8)]))
    assert_equal(before, collate([open_set()[i] for i in range(8)]))


@pytest.mark.parametrize("training", [False, True])
def test_company_changes_nothing_of_a_clip(open_set: Callable[..., ClipDataset], training: bool) -> None:
    dataset = open_set(training, augment=AUGMENT)
    together = collate([dataset[i] for i in range(8)])
    for row in range(8):
        alone = collate([dataset[row]])
        for name, stream in alone.inputs.items():
            beside = together.inputs[name]
            length = stream.mask.shape[1]
            assert beside.rate == stream.rate
            assert torch.equal(beside.data[row, :length], stream.data[0])
            assert torch.equal(beside.mask[row, :length], stream.mask[0])
            assert not beside.mask[row, length:].any()
            assert not beside.data[row, length:].any()
        there, here = together.targets, alone.targets
        assert torch.equal(there.labels[row], here.labels[0])  # type: ignore[index]
        words, mask = here.words[0], here.word_mask[0]  # type: ignore[index]
        num, length = words.shape
        assert torch.equal(there.words[row, :num, :length], words)  # type: ignore[index]
        assert int(there.word_mask[row].sum()) == int(mask.sum())  # type: ignore[index]
        assert not there.words[row][~there.word_mask[row]].any()  # type: ignore[index]


def test_missing_inputs_are_masked_rows(open_set: Callable[..., ClipDataset]) -> None:
    dataset = open_set()
    batch = collate([dataset[i] for i in range(4)])
    assert batch.inputs["audio"].present.tolist() == [True, True, True, False]
    assert batch.inputs["video"].present.tolist() == [True, True, False, True]
    assert batch.inputs["flow"].present.tolist() == [True, False, False, False]
    assert batch.inputs["video"].data.dtype == torch.uint8
    lone = collate([dataset[3]])
    assert lone.inputs["audio"].data.shape == (1, 1)
    assert lone.inputs["flow"].data.shape == (1, 1, 5)
    assert collate([dataset[2]]).inputs["video"].data.shape == (1, 1, 3, 16, 16)
    assert not lone.inputs["audio"].present.any()
    assert (lone.inputs["audio"].rate, lone.inputs["flow"].rate) == (8000.0, 2.0)


def test_captions_are_drawn_in_training_only(open_set: Callable[..., ClipDataset]) -> None:
    clip = 7  # has 7 captions
    evaluated = open_set(captions_per_clip=3)[clip].words
    assert evaluated == [encode(f"caption {letter} of 7") for letter in "abcdefg"]
    dataset = open_set(True, captions_per_clip=3)
    drawn = []
    for epoch in range(30):
        dataset.set_epoch(epoch)
        words = dataset[clip].words
        assert words is not None
        assert len({tuple(caption) for caption in words}) == 3
        drawn += [tuple(caption) for caption in words]
    assert set(drawn) == {tuple(encode(f"caption {letter} of 7")) for letter in "abcdefg"}
    assert len(dataset[2].words or ()) == 2


def test_words_without_captions(open_set: Callable[..., ClipDataset]) -> None:
    dataset = open_set()
    targets = collate([dataset[0]]).targets
    assert targets.words is not None
    assert targets.word_mask is not None
    assert targets.words.shape == (1, 1, 2)
    assert not targets.word_mask.any()
    silent = ClipDataset(dataset.clips, dataset.reader, FACTS, None, dataset.config, training=False)
    assert collate([silent[5]]).targets.words is None


def test_labels_relevances_and_what_is_unknown(open_set: Callable[..., ClipDataset], manifest: Manifest) -> None:
    base = manifest.clips[0]
    clips = [
        replace(base, labels=("siren",)),
        replace(base, labels=()),
        replace(base, labels=None),
        replace(base, labels=None, relevances={"siren": 0.25}),
        replace(base, labels=("bell",), relevances={"bell": 0.75}),
    ]
    dataset = open_set(clips=clips)
    targets = collate([dataset[i] for i in range(5)]).targets
    assert targets.labels is not None
    assert targets.label_mask is not None
    assert targets.labels.tolist() == [[0, 1], [0, 0], [0, 0], [0, 0.25], [0.75, 0]]
    assert targets.label_mask.tolist() == [[True] * 2, [True] * 2, [False] * 2, [False, True], [True] * 2]
    with pytest.raises(InputError, match=r"clip0.*'gong'"):
        open_set(clips=[replace(base, labels=("gong",))])[0]
    unlabelled = ClipDataset(clips, dataset.reader, Facts(), None, dataset.config, training=False)
    assert collate([unlabelled[0]]).targets.labels is None


def test_activity_by_second(open_set: Callable[..., ClipDataset], manifest: Manifest) -> None:
    base = manifest.clips[1]
    clips = [
        replace(base, sources=(Source("bell", 0.0, 0.3), Source("siren", 0.5, 0.7))),
        replace(base, sources=(), labels=()),
        replace(base, sources=(), labels=("bell",)),
        replace(base, sources=(Source("bell", 1.2, 3.0),)),
    ]
    dataset = open_set(clips=clips)
    activity = collate([dataset[i] for i in range(4)]).targets.activity
    assert activity is not None
    assert activity[0].tolist() == [[1, 1]]
    assert activity[1].tolist() == [[0, 0]]
    assert activity[2].isnan().all()
    assert activity[3].tolist() == [[0, 0]]
    assert open_set(clips=clips[1:3])[0].activity is None


def test_activity_follows_the_shift(open_set: Callable[..., ClipDataset], manifest: Manifest) -> None:
    config = replace(data_config(manifest), max_duration_s=10.0)
    clip = replace(manifest.clips[2], sources=(Source("bell", 1.25, 1.5),))
    dataset = open_set(clips=[clip])
    for shift_s, expected in ((0.0, [0, 1, 0]), (1.0, [0, 0, 1]), (-1.0, [1, 0, 0]), (-2.0, [0, 0, 0])):
        rows = dataset._activity(clip, 2.5, Retiming(shift_s=shift_s))
        assert rows is not None
        assert rows[:, 0].tolist() == expected
    assert config.max_duration_s == dataset.config.max_duration_s


def test_examples_that_do_not_fit_are_refused(open_set: Callable[..., ClipDataset]) -> None:
    example = open_set()[1]
    raw = example.inputs["video"]
    for spoilt in (replace(raw, rate=5.0), replace(raw, data=raw.data[:, :, :8])):
        other = Example("odd", {**example.inputs, "video": spoilt}, example.layouts)
        with pytest.raises(InputError, match="clip 'odd': video"):
            collate([example, other])


def test_reading_the_files_themselves_gives_the_same_batches(
    open_set: Callable[..., ClipDataset], manifest: Manifest
) -> None:
    cached = open_set()
    reader = MediaReader(cached.config.inputs, cached.config.max_duration_s, manifest.locate, {"flow": 5})
    direct = ClipDataset(manifest.clips, reader, FACTS, encode, cached.config, training=False)
    assert_equal(collate([cached[i] for i in range(8)]), collate([direct[i] for i in range(8)]))


def test_standardized_features_have_the_training_splits_scale(
    open_set: Callable[..., ClipDataset], manifest: Manifest
) -> None:
    inputs = {**INPUTS, "flow": {"kind": "features", "standardize": True, "clip_value": 1.5}}
    plain, scaled = open_set(), open_set(inputs=inputs)
    train = [plain[0].inputs["flow"].data]  # clip 4 has features too, and is in the validation split
    mean, deviation = np.concatenate(train).mean(0), np.concatenate(train).std(0)
    for index in (0, 4):
        expected = np.clip((plain[index].inputs["flow"].data - mean) / deviation, -1.5, 1.5)
        np.testing.assert_allclose(scaled[index].inputs["flow"].data, expected, rtol=1e-4, atol=1e-5)
    kept = list((scaled.reader.root / "scaling").glob("*.npz"))  # type: ignore[attr-defined]
    assert len(kept) == 1
    again = open_set(inputs=inputs)
    np.testing.assert_array_equal(again.scaling["flow"].mean, scaled.scaling["flow"].mean)
    kept[0].write_bytes(kept[0].read_bytes()[:-40])
    anew = open_set(inputs=inputs)
    np.testing.assert_array_equal(anew.scaling["flow"].mean, scaled.scaling["flow"].mean)

    reader = MediaReader(scaled.config.inputs, 10.0, manifest.locate, {"flow": 5})
    with pytest.raises(InputError, match=r"data\.inputs\.flow\.standardize"):
        ClipDataset(manifest.clips, reader, FACTS, encode, scaled.config, training=False)
    given = ClipDataset(manifest.clips, reader, FACTS, encode, scaled.config, training=False, scaling=scaled.scaling)
    np.testing.assert_array_equal(given[4].inputs["flow"].data, scaled[4].inputs["flow"].data)


def test_scaling_in_one_pass_is_that_of_all_rows() -> None:
    from mmfusion.data.raw import Raw
    from mmfusion.data.scaling import measure

    rng = np.random.default_rng(0)
    raws = []
    for length in (1, 5, 30, 2):
        data = rng.normal(1e4, [1.0, 5.0, 0.0], (length, 3)).astype(np.float32)
        raws.append(Raw(data, rng.uniform(size=length) < 0.7, 1.0))
    rows = np.concatenate([raw.data[raw.mask] for raw in raws]).astype(np.float64)
    scaling = measure(raws)
    np.testing.assert_allclose(scaling.mean, rows.mean(0), rtol=1e-6)
    np.testing.assert_allclose(scaling.deviation, [*rows.std(0)[:2], 1.0], rtol=1e-5)


def test_facts(open_set: Callable[..., ClipDataset], manifest: Manifest) -> None:
    cache = open_set().reader
    assert isinstance(cache, ClipCache)
    facts = gather_facts(cache, manifest.label_names(), ("<pad>",))
    assert facts == Facts(labels=("bell",), words=("<pad>",), widths={"flow": 5})
    config: DataConfig = data_config(manifest, inputs={"gaze": {"kind": "features"}})
    build_cache(manifest, config, progress=False)
    with pytest.raises(InputError, match=r"media\.gaze: no clip has these features"):
        gather_facts(ClipCache(manifest, config), ("bell",))
