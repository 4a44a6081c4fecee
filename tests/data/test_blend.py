"""Mixup and class-aware mixing: sounds add up, labels go along, unknown stays unknown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.config import validate
from mmfusion.data.augment import AugmentConfig
from mmfusion.data.blend import BlendConfig, Pools, UniteConfig, mixup, unite
from mmfusion.data.cache import ClipCache, build_cache
from mmfusion.data.collate import Example
from mmfusion.data.dataset import ClipDataset
from mmfusion.data.inputs import DataConfig
from mmfusion.data.manifest import read_manifest, write_manifest
from mmfusion.data.media import write_sound
from mmfusion.data.raw import Raw
from mmfusion.data.sampler import Turn
from mmfusion.types import Clip, Facts, InputError

NUM = 800


def example(seed: int, labels=(0.0, 1.0, 0.0), known=(True, True, True), length: int = NUM, activity=None) -> Example:
    rng = np.random.default_rng(seed)
    raw = Raw(rng.normal(size=length).astype(np.float32), np.ones(length, bool), 8000.0)
    return Example(
        f"clip{seed}", {"audio": raw}, {}, np.array(labels, np.float32), np.array(known),
        None if activity is None else np.array(activity, np.float32),
    )  # fmt: skip


def clips(genres: list[str | None], labels: str = "") -> list[Clip]:
    """One clip a genre, each of a class of its own unless `labels` has a letter for each."""
    return [
        Clip(f"c{i}", {"audio": f"{i}.wav"}, "train", f"g{i}", labels=(labels[i] if labels else f"class {i}",), genre=g)
        for i, g in enumerate(genres)
    ]


@given(weight=st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_mixup_averages_sound_and_labels(weight: float) -> None:
    own, other = example(0), example(1, (1.0, 0.0, 0.0), length=500)
    mixed = mixup(own, other, weight, equal_power=False)
    sounds = [one.inputs["audio"].data for one in (own, other)]
    expected = np.float32(weight) * sounds[0]
    expected[:500] += np.float32(1 - weight) * sounds[1]
    np.testing.assert_allclose(mixed.inputs["audio"].data, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mixed.labels, [1 - weight, weight, 0], rtol=1e-6, atol=1e-7)
    assert mixed.labels.dtype == np.float32 and mixed.inputs["audio"].mask.all()


def test_a_clip_mixed_with_itself_is_itself() -> None:
    own = example(0, activity=[[0, 1, 0], [1, np.nan, 0]])
    same = mixup(own, own, 0.3, equal_power=False)
    np.testing.assert_allclose(same.inputs["audio"].data, own.inputs["audio"].data, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(same.labels, own.labels)
    np.testing.assert_allclose(same.activity, own.activity)
    np.testing.assert_array_equal(unite(own, own, 0.0).labels, own.labels)


@given(weight=st.floats(0, 1), level_db=st.floats(-60, 60))
@settings(max_examples=20, deadline=None)
def test_mixup_at_equal_power_forgets_the_level_of_the_other(weight: float, level_db: float) -> None:
    own, other = example(0), example(1, (1.0, 0.0, 0.0), length=500)
    raw = other.inputs["audio"]
    louder = replace(other, inputs={"audio": raw.with_data(raw.data * np.float32(10 ** (level_db / 20)))})
    expected, mixed = (mixup(own, one, weight, equal_power=True).inputs["audio"].data for one in (other, louder))
    np.testing.assert_allclose(mixed, expected, rtol=1e-4, atol=1e-5)
    added = (mixed - np.float32(weight) * own.inputs["audio"].data)[:500]
    power = np.mean(own.inputs["audio"].data ** 2) * (1 - weight) ** 2
    assert np.mean(added**2) == pytest.approx(power, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("rest", [0.0, 1e-30, 1e-6])
def test_silence_is_mixed_as_it_is(rest: float) -> None:
    """What a lossy codec leaves of silence is not brought up to the power of a sound."""
    own = example(0)
    silence = replace(own, inputs={"audio": own.inputs["audio"].with_data(np.full(NUM, rest, np.float32))})
    mixed = mixup(own, silence, 0.25, equal_power=True).inputs["audio"].data
    np.testing.assert_allclose(mixed, 0.25 * own.inputs["audio"].data, rtol=1e-6, atol=2e-6)
    mixed = mixup(silence, own, 0.25, equal_power=True).inputs["audio"].data
    np.testing.assert_allclose(mixed, 0.75 * own.inputs["audio"].data, rtol=1e-6, atol=2e-6)
    for pair in ((own, silence), (silence, own)):
        united = unite(*pair, 6.0).inputs["audio"].data
        np.testing.assert_allclose(united, own.inputs["audio"].data, rtol=1e-6, atol=2e-6)


def test_mixup_knows_what_both_know() -> None:
    mixed = mixup(example(0, known=(True, False, True)), example(1, known=(True, True, False)), 0.5, equal_power=False)
    assert mixed.label_mask.tolist() == [True, False, False]


@given(level_db=st.floats(-20, 20))
@settings(max_examples=20, deadline=None)
def test_an_added_clip_has_the_level_that_was_asked_for(level_db: float) -> None:
    own, other = example(0), example(1)
    added = unite(own, other, level_db).inputs["audio"].data - own.inputs["audio"].data
    measured = 10 * np.log10(np.mean(added**2) / np.mean(own.inputs["audio"].data ** 2))
    assert measured == pytest.approx(level_db, abs=0.01)


def test_every_added_clip_has_its_level_against_the_clip_itself() -> None:
    own, others = example(0), [example(1), example(2)]
    united = own
    for other in others:
        before = united.inputs["audio"].data
        united = unite(united, other, 6.0, own)
        added = united.inputs["audio"].data - before
        powers = [np.mean(np.square(data)) for data in (added, own.inputs["audio"].data)]
        assert 10 * np.log10(powers[0] / powers[1]) == pytest.approx(6.0, abs=1e-3)


@given(seed=st.integers(0, 200))
@settings(max_examples=30, deadline=None)
def test_no_clip_is_added_twice(seed: int) -> None:
    pools = Pools(clips([None, None, None]))
    plan = pools.draw(BlendConfig(unite=UniteConfig(probability=1.0, num_clips=9)), 0, np.random.default_rng(seed))
    places = [place for place, _ in plan.united]
    assert places and len(set(places)) == len(places) and set(places) <= {1, 2}


def test_united_labels_are_those_of_both_and_a_known_presence_is_enough() -> None:
    both = unite(example(0, (0, 1, 0), (True, True, False)), example(1, (1, 0, 0), (True, False, True)), 0.0)
    assert both.labels.tolist() == [1, 1, 0]
    assert both.label_mask.tolist() == [True, True, False]
    # The number in a cell that nobody knows counts for nothing.
    odd = unite(example(0, (0, 1, 9), (True, True, False)), example(1, (1, 0, 0), (True, False, True)), 0.0)
    assert odd.labels.tolist() == [1, 1, 0]


def test_united_activity_needs_both_to_be_silent() -> None:
    first = example(0, activity=[[0, 1, np.nan], [0, 0, np.nan]])
    second = example(1, activity=[[0, np.nan, 0]])
    expected = [[0, 1, np.nan], [0, 0, np.nan]]
    np.testing.assert_array_equal(unite(first, second, 0.0).activity, expected)


def test_silence_is_added_as_it_is() -> None:
    own = example(0)
    silent = Example("s", {"audio": own.inputs["audio"].with_data(np.zeros(NUM, np.float32))}, {}, own.labels,
                     own.label_mask)  # fmt: skip
    np.testing.assert_array_equal(unite(own, silent, 6.0).inputs["audio"].data, own.inputs["audio"].data)
    assert np.isfinite(unite(silent, own, 6.0).inputs["audio"].data).all()


@given(seed=st.integers(0, 500), place=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_partners_are_of_the_same_genre_and_never_the_clip_itself(seed: int, place: int) -> None:
    pools = Pools(clips(["rock", "jazz", "rock", None, "rock", None]))
    config = BlendConfig(mixup=0.4, unite=UniteConfig(probability=1.0, num_clips=3))
    plan = pools.draw(config, place, np.random.default_rng(seed))
    assert bool(plan.united) == (pools.genres[place] != "jazz") and len(plan.united) <= 3
    assert all(pools.genres[other] == pools.genres[place] for other, _ in plan.united)
    if pools.genres[place] != "jazz":  # the only one of its genre
        assert all(other != place for other, _ in plan.united)
    assert plan.mixed[0] != place and 0 <= plan.mixed[1] <= 1


@given(seed=st.integers(0, 500), place=st.integers(0, 6), same_genre=st.booleans(), balanced=st.booleans())
@settings(max_examples=80, deadline=None)
def test_united_clips_bring_other_classes(seed: int, place: int, same_genre: bool, balanced: bool) -> None:
    made = clips(["rock"] * 4 + ["jazz"] * 3, "aabbccc")
    pools = Pools(made, balanced)
    config = BlendConfig(unite=UniteConfig(probability=1.0, num_clips=3, same_genre=same_genre))
    united = [made[other] for other, _ in pools.draw(config, place, np.random.default_rng(seed)).united]
    assert all(other.labels != made[place].labels for other in united)
    if same_genre:
        assert all(other.genre == made[place].genre for other in united)
        assert bool(united) == (place < 4)  # jazz has one class, and nothing else to bring
    else:
        assert united


def test_partners_of_balanced_clips_are_balanced() -> None:
    """One clip of class a among 19 of class b: drawn clip by clip it comes once in 20, else every other time."""
    made = clips([None] * 20, "a" + "b" * 19)
    config = BlendConfig(mixup=0.5)
    share = {}
    for balanced in (False, True):
        pools = Pools(made, balanced)
        drawn = [pools.draw(config, 5, np.random.default_rng(seed)).mixed[0] for seed in range(400)]
        assert 5 not in drawn
        share[balanced] = drawn.count(0) / len(drawn)
        assert {pools.draw(config, 0, np.random.default_rng(seed)).mixed[0] for seed in range(400)} == set(range(1, 20))
    assert share[False] < 0.12 and 0.4 < share[True] < 0.6


def test_a_clip_alone_is_mixed_with_itself_and_united_with_nothing() -> None:
    plan = Pools(clips([None])).draw(
        BlendConfig(mixup=0.5, unite=UniteConfig(probability=1.0)), 0, np.random.default_rng(0)
    )
    assert plan.united == () and plan.mixed[0] == 0


@pytest.fixture
def manifest_path(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    made = []
    for number in range(4):
        write_sound(tmp_path / f"{number}.wav", rng.uniform(-0.5, 0.5, 4000), 8000)
        labels = (("bell", "siren")[number % 2],)
        made.append(Clip(f"c{number}", {"audio": f"{number}.wav"}, "train", f"g{number}", labels=labels))
    write_manifest(tmp_path / "manifest.jsonl", made)
    return tmp_path / "manifest.jsonl"


def config(manifest_path: Path, **blend) -> DataConfig:
    tree = {"manifest": str(manifest_path), "cache": str(manifest_path.parent / "cache"), "cache_workers": 0,
            "inputs": {"audio": {"kind": "waveform", "sample_rate_hz": 8000}},
            "augment": {"blend": blend}}  # fmt: skip
    return validate(DataConfig, tree, "test")


def test_a_training_set_mixes_and_a_test_set_never_does(manifest_path: Path) -> None:
    manifest = read_manifest(manifest_path)
    chosen = config(manifest_path, mixup=1.0, unite={"probability": 1.0})
    build_cache(manifest, chosen, progress=False)
    cache, facts = ClipCache(manifest, chosen), Facts(labels=("bell", "siren"))
    training = ClipDataset(manifest.clips, cache, facts, None, chosen, training=True, seed=3)
    again = ClipDataset(manifest.clips, cache, facts, None, chosen, training=True, seed=3)
    plain = ClipDataset(manifest.clips, cache, facts, None, chosen, training=False)
    for number in range(4):
        mixed, own = training[number], plain[number]
        np.testing.assert_array_equal(mixed.inputs["audio"].data, again[number].inputs["audio"].data)
        assert not np.allclose(mixed.inputs["audio"].data, own.inputs["audio"].data)
        assert own.labels.sum() == 1 and own.clip_id == mixed.clip_id
        np.testing.assert_array_equal(own.inputs["audio"].data, cache.load(manifest.clips[number])["audio"].data)
    labels = np.array([training[number].labels for number in range(4)])
    assert (labels > 0).all(axis=1).any() and labels.max() <= 1  # clips of two classes came together
    first = training[0].inputs["audio"].data
    training.set_epoch(1)
    assert not np.allclose(first, training[0].inputs["audio"].data)


def test_a_clip_that_comes_again_in_an_epoch_comes_changed(manifest_path: Path) -> None:
    """Augmented and mixed anew at each turn; its first turn is what it was without turns."""
    manifest = read_manifest(manifest_path)
    for settings_ in ({"gain_db": [-20.0, 20.0]}, {"roll": True}, {"blend": {"mixup": 1.0}}):
        chosen = replace(config(manifest_path), augment=validate(AugmentConfig, settings_, "test"))
        build_cache(manifest, chosen, progress=False)
        cache, facts = ClipCache(manifest, chosen), Facts(labels=("bell", "siren"))
        training = ClipDataset(manifest.clips, cache, facts, None, chosen, training=True, seed=3)
        first, *again = [training[Turn(1, number)].inputs["audio"].data for number in range(3)]
        np.testing.assert_array_equal(first, training[1].inputs["audio"].data)
        assert not np.allclose(first, again[0]) and not np.allclose(again[0], again[1])
        np.testing.assert_array_equal(again[1], training[Turn(1, 2)].inputs["audio"].data)


def test_pictures_are_not_mixed() -> None:
    tree = {"manifest": "m", "inputs": {"video": {"kind": "frames"}}, "augment": {"blend": {"mixup": 0.2}}}
    with pytest.raises(InputError, match=r"augment\.blend changes sound only, and inputs\.video is no waveform"):
        validate(DataConfig, tree, "test")
