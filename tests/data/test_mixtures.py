"""What is drawn for a mixture, and what it sounds like: promises that hold for any settings."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sound_set import RATE, Sounds

from mmfusion.config import validate
from mmfusion.data.manifest import Manifest
from mmfusion.data.media import write_sound
from mmfusion.data.mixtures.pool import SILENCE_DB, in_words, listen, sound_manifest
from mmfusion.data.mixtures.recipes import MixtureConfig, Recipe, fingerprint, frozen_recipe, training_recipe
from mmfusion.data.mixtures.sound import FULL_SCALE, add_up, mix, read_response, reverberate, store
from mmfusion.types import Clip, InputError, Source

LENGTHS = {f"c{number}": [0.5 + 0.37 * number, 1.3, 3.1] for number in range(7)}
FRAME = RATE // 50


def configs() -> st.SearchStrategy[MixtureConfig]:
    """Settings of any kind that the sounds of `LENGTHS` can meet."""
    low_s = st.floats(0, 1.2)
    return st.builds(
        MixtureConfig,
        num_sources=st.integers(2, 7),
        duration_s=st.sampled_from([1.5, 2.0, 2.513]),
        snr_db=st.tuples(st.floats(-15, 0), st.floats(0, 15)),
        level_db=st.tuples(st.floats(-40, -25), st.floats(-25, 0)),
        onset_s=st.none() | st.tuples(low_s, st.just(1.25)),
        min_active=st.floats(0, 0.3),
        seed=st.integers(0, 2**40),
    )


def is_active(crop: np.ndarray, whole: np.ndarray, floor_db: float) -> np.ndarray:
    """For every frame of a crop, by the definition."""
    power = [np.mean(whole[k : k + FRAME].astype(float) ** 2) for k in range(0, len(whole), FRAME)]
    least = max(max(power) * 10 ** (-floor_db / 10), 10 ** (SILENCE_DB / 10))
    return np.array([np.mean(crop[k : k + FRAME].astype(float) ** 2) > least for k in range(0, len(crop), FRAME)])


@settings(max_examples=60, deadline=None)
@given(config=configs(), number=st.integers(0, 10**6))
def test_a_recipe_keeps_its_promises(config: MixtureConfig, number: int) -> None:
    sounds = Sounds(config, LENGTHS)
    recipe = frozen_recipe(sounds.pool, config, number)
    assert recipe.num_samples == round(config.duration_s * RATE) and len(recipe.parts) == config.num_sources
    assert len({part.label for part in recipe.parts}) == config.num_sources
    sources, mixture = mix(recipe, sounds.load)
    assert sources.shape == (config.num_sources, recipe.num_samples) and sources.dtype == np.float32
    energies = np.square(sources.astype(float)).sum(axis=1)
    for part, source, energy in zip(recipe.parts, sources, energies, strict=True):
        whole = sounds.load(part)
        assert part.clip.labels == (part.label,) and sorted(LENGTHS)[part.class_id] == part.label
        assert part.from_sample % FRAME == 0 and part.from_sample + part.num_samples <= len(whole)
        assert 0 <= part.onset_sample < part.end_sample <= recipe.num_samples
        # What is cut off at the end of the mixture is less than a frame too much.
        room = recipe.num_samples - part.onset_sample
        assert part.num_samples == len(whole) or room - FRAME < part.num_samples <= room
        crop = whole[part.from_sample : part.from_sample + part.num_samples]
        active = is_active(crop, whole, config.activity_floor_db)
        assert active.sum() >= max(1, config.min_active * len(active))
        np.testing.assert_allclose(
            source[part.onset_sample : part.end_sample], crop * 10 ** (part.gain_db / 20), rtol=1e-5, atol=1e-9
        )
        assert not source[: part.onset_sample].any() and not source[part.end_sample :].any()
        assert 10 * np.log10(energy / energies[0]) == pytest.approx(part.snr_db, abs=1e-3)
        if part is not recipe.parts[0]:
            assert config.snr_db[0] - 1e-6 <= part.snr_db <= config.snr_db[1] + 1e-6
        if config.onset_s is not None:
            assert round(config.onset_s[0] * RATE) <= part.onset_sample <= round(config.onset_s[1] * RATE)
    assert recipe.parts[0].snr_db == 0
    level_db = 10 * np.log10(energies.sum() / recipe.num_samples)
    assert level_db == pytest.approx(recipe.level_db, abs=1e-3)
    np.testing.assert_allclose(mixture, sources.astype(float).sum(axis=0), atol=1e-5 * max(1.0, np.abs(sources).max()))


@settings(max_examples=100, deadline=None)
@given(num=st.integers(2, 100), level=st.floats(-7, 4), seed=st.integers(0, 10**6), spikes=st.booleans())
def test_stored_sources_sum_to_the_stored_mixture(num: int, level: float, seed: int, spikes: bool) -> None:
    rng = np.random.default_rng(seed)
    sources = rng.standard_normal((num, 200)) if not spikes else rng.choice([-1.0, 0.0, 1.0], (num, 200))
    sources = (sources * 10**level).astype(np.float32)
    found = store(sources)
    assert found.sources.dtype == found.mixture.dtype == np.int16
    assert (found.sources.astype(np.int64).sum(axis=0) == found.mixture).all()
    assert 0 < found.scale <= 1
    peak = max(np.abs(sources).max(), np.abs(sources.astype(float).sum(axis=0)).max()) * FULL_SCALE
    assert (found.scale == 1) == (peak <= FULL_SCALE - 2 - num / 2)
    if found.scale < 1:  # as loud as can be
        assert max(abs(int(each)) for each in (*found.mixture, *found.sources.ravel())) > 32767 - num - 4
    np.testing.assert_allclose(
        found.sources / FULL_SCALE / found.scale, sources, atol=0.51 / FULL_SCALE / found.scale, rtol=1e-6
    )


def test_silence_is_stored_as_silence() -> None:
    found = store(np.zeros((2, 5), np.float32))
    assert found.scale == 1 and not found.mixture.any()


def test_draws_do_not_depend_on_order_or_on_each_other() -> None:
    config = MixtureConfig(num_sources=3, duration_s=2.0, onset_s=(0.0, 1.0))
    first, second = (Sounds(config, LENGTHS).pool for _ in range(2))
    forwards = [frozen_recipe(first, config, number) for number in range(30)]
    backwards = [frozen_recipe(second, config, number) for number in reversed(range(30))]
    assert forwards == backwards[::-1]
    assert len({fingerprint([replace(recipe, id="")]) for recipe in forwards}) == 30
    assert fingerprint(forwards) == fingerprint(backwards[::-1]) != fingerprint(backwards)
    others = [
        frozen_recipe(first, replace(config, seed=1), 0),
        training_recipe(first, config, 0, seed=0, epoch=0),
        training_recipe(first, config, 0, seed=1, epoch=0),
        training_recipe(first, config, 0, seed=0, epoch=1),
        training_recipe(first, replace(config, seed=1), 0, seed=0, epoch=0),
    ]
    assert len({fingerprint([recipe]) for recipe in (forwards[0], *others)}) == 6


def test_classes_are_drawn_uniformly_whatever_the_numbers_of_sounds() -> None:
    config = MixtureConfig(num_sources=2, duration_s=1.0)
    sounds = Sounds(config, {f"c{number}": [0.2] * (1 + 20 * (number == 0)) for number in range(8)})
    recipes = [frozen_recipe(sounds.pool, config, number) for number in range(4000)]
    counts = Counter(part.label for recipe in recipes for part in recipe.parts)
    # 4000 draws with probability 1/4 each: five standard deviations are 137.
    assert len(counts) == 8 and all(abs(count - 1000) < 137 for count in counts.values())
    pairs = Counter(recipe.labels for recipe in recipes)
    assert len(pairs) == 28 and all(abs(count - 4000 / 28) < 60 for count in pairs.values())
    clips = Counter(part.clip.id for recipe in recipes for part in recipe.parts if part.label == "c0")
    assert len(clips) == 21


def test_a_hundred_sources() -> None:
    config = MixtureConfig(num_sources=100, duration_s=1.0, snr_db=(-2, 2), level_db=(0, 0))
    sounds = Sounds(config, {f"c{number:03d}": [0.5, 1.5] for number in range(100)})
    recipe = frozen_recipe(sounds.pool, config, 0)
    assert len(set(recipe.labels)) == 100
    found = store(mix(recipe, sounds.load)[0])
    assert (found.sources.astype(int).sum(axis=0) == found.mixture).all() and found.scale < 1


def test_more_sources_than_classes_is_one_sentence() -> None:
    config = MixtureConfig(num_sources=8, duration_s=1.0)
    with pytest.raises(InputError, match=r"test: split 'train': num_sources is 8, .* and 7 classes have a sound"):
        Sounds(config, LENGTHS)
    with pytest.raises(InputError, match=r"num_sources is 3, each of another class, and 2 are selected"):
        validate(MixtureConfig, {"num_sources": 3, "selected_classes": ["a", "b"]}, "mix")


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"num_sources": 1}, "num_sources: input should be greater than or equal to 2"),
        ({"num_sources": 101}, "num_sources: input should be less than or equal to 100"),
        ({"snr_db": [3, -3]}, "snr_db must be the lowest and the highest value, got 3 and -3"),
        ({"duration_s": 2.0, "onset_s": [0.0, 2.0]}, "onset_s must lie within the 2 s of the mixture"),
    ],
)
def test_settings_that_cannot_be(tree: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        validate(MixtureConfig, tree, "mix")


def test_silent_and_nearly_silent_clips_are_left_out_and_named() -> None:
    rng = np.random.default_rng(0)
    config = MixtureConfig(num_sources=2, duration_s=1.0, min_active=0.2)
    loud = rng.standard_normal(2 * RATE).astype(np.float32)
    click = np.zeros(2 * RATE, np.float32)
    click[100:200] = 1
    hiss = loud * np.float32(1e-4)  # 80 dB below full scale
    found = {"loud": loud, "zeros": np.zeros_like(loud), "click": click, "hiss": hiss}
    usable = {name: bool(len(_sound(name, data).starts(RATE, config.min_active))) for name, data in found.items()}
    assert usable == {"loud": True, "zeros": False, "click": False, "hiss": False}
    # The click is in the first two frames: only crops that begin in one of them have it.
    assert _sound("click", click).starts(RATE, 0.01).tolist() == [0, 1]


def _sound(name: str, data: np.ndarray):
    return listen(Clip(name, {"audio": "x"}, "train", "g", labels=(name,)), data, RATE, 40.0)


@settings(max_examples=60, deadline=None)
@given(length=st.integers(1, 2000), room=st.integers(0, 2500), seed=st.integers(0, 99), share=st.floats(0, 1))
def test_crops_and_energies_are_those_of_the_samples(length: int, room: int, seed: int, share: float) -> None:
    """Against going through every crop sample by sample."""
    rng = np.random.default_rng(seed)
    there = np.repeat(rng.integers(0, 2, length // 50 + 1), 50)[:length]
    data = (rng.standard_normal(length) * there).astype(np.float32)
    sound = _sound("x", data)
    cut = sound.length_in(room)
    assert cut == length if length <= room else cut == room // FRAME * FRAME
    starts = sound.starts(cut, share).tolist()
    if not cut or not data.any():
        assert not starts
        return
    expected = []
    for first in range((length - cut) // FRAME + 1):
        crop = data[first * FRAME : first * FRAME + cut]
        active = is_active(crop, data, 40.0)
        if active.sum() >= max(1, share * len(active)):
            expected.append(first)
            assert sound.energy_of(first * FRAME, cut) == pytest.approx(np.square(crop, dtype=float).sum())
    assert starts == expected


def test_an_onset_so_late_that_nothing_is_left_is_an_error() -> None:
    config = MixtureConfig(num_sources=2, duration_s=1.0, onset_s=(0.0, 0.99))
    late = replace(config, onset_s=(0.985, 0.99))
    sounds = Sounds(config, {"a": [1.0], "b": [1.0]})
    with pytest.raises(InputError, match=r"onset_s: 200 draws in \(0.985, 0.99\) left no active crop of"):
        frozen_recipe(sounds.pool, late, 0)


def test_rooms(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    plain, room = tmp_path / "plain.wav", tmp_path / "room.wav"
    write_sound(plain, np.concatenate([np.zeros(200), [0.5], np.zeros(10)]), RATE)
    decay = 0.1 * rng.standard_normal(RATE // 2) * np.exp(-np.arange(RATE // 2) / 800)
    write_sound(room, np.concatenate([np.zeros(300), [0.9], decay]), RATE)
    config = MixtureConfig(num_sources=2, duration_s=2.0)
    sounds = Sounds(config, LENGTHS)
    dry = frozen_recipe(sounds.pool, config, 3)

    def within(path: Path) -> Recipe:
        return replace(dry, parts=tuple(replace(part, impulse_response=str(path)) for part in dry.parts))

    # One sample is a room without walls; the silence before it is no delay.
    np.testing.assert_allclose(mix(within(plain), sounds.load)[0], mix(dry, sounds.load)[0], atol=1e-6)
    response = read_response(str(room), RATE)
    assert len(response) == RATE // 2 + 1 and np.square(response).sum() == pytest.approx(1, rel=1e-5)
    sources, mixture = mix(within(room), sounds.load)
    for part, source, direct in zip(dry.parts, sources, mix(dry, sounds.load)[0], strict=True):
        assert np.square(source, dtype=float).sum() == pytest.approx(np.square(direct, dtype=float).sum(), rel=1e-4)
        assert not source[: part.onset_sample].any()
        full = np.convolve(direct[part.onset_sample : part.end_sample], response)[: len(source) - part.onset_sample]
        assert np.corrcoef(full, source[part.onset_sample :][: len(full)])[0, 1] > 0.9999
        if part.end_sample < len(source) - 100:
            assert np.abs(source[part.end_sample : part.end_sample + 100]).max() > 0
    np.testing.assert_array_equal(add_up(sources), mixture)
    assert len(reverberate(np.ones(10, np.float32), response, 4)) == 4
    drawn = replace(config, impulse_responses=(str(plain), str(room)))
    rooms = {part.impulse_response for number in range(20) for part in frozen_recipe(sounds.pool, drawn, number).parts}
    assert rooms == {str(plain), str(room)}


def test_an_impulse_response_without_sound_is_refused(tmp_path: Path) -> None:
    write_sound(tmp_path / "silent.wav", np.zeros(100), RATE)
    with pytest.raises(InputError, match=r"silent\.wav: an impulse response must hold sound"):
        read_response(str(tmp_path / "silent.wav"), RATE)


def test_which_clips_are_sources() -> None:
    media = {"audio": "a.wav", "video": "a.mp4"}
    clips = (
        Clip("one", media, "train", "1", labels=("dog",)),
        Clip("two", media, "train", "2", labels=("cat", "dog")),
        Clip("none", media, "train", "3", labels=()),
        Clip("unknown", media, "train", "4"),
        Clip("mute", {"video": "a.mp4"}, "train", "5", labels=("dog",)),
        Clip("seen", media, "train", "6", labels=("cat",), sources=(Source("cat", 0, 1, heard=False),)),
        Clip("heard", media, "train", "7", 10.0, 14.0, ("cat", "dog"),
             sources=(Source("cat", 0, 4, heard=False), Source("dog", 1.0, 2.0), Source("dog", 2.5, 5.0))),
        Clip("apart", media, "test", "8", labels=("cat", "dog"),
             sources=(Source("cat", 0, 1, seen=False, media="c.wav"), Source("dog", 0.5, 2, media="d.wav"))),
        Clip("more", media, "test", "9", labels=("cat", "dog"), sources=(Source("dog", 0, 1),)),
    )  # fmt: skip
    manifest = Manifest(Path("set/manifest.jsonl"), clips)
    found, left_out = sound_manifest(manifest)
    assert {clip.id: clip.labels for clip in found.clips} == {
        "one": ("dog",), "heard": ("dog",), "apart/0": ("cat",), "apart/1": ("dog",)
    }  # fmt: skip
    by_id = {clip.id: clip for clip in found.clips}
    assert (by_id["heard"].start_s, by_id["heard"].end_s) == (11.0, 14.0)
    assert by_id["apart/0"].media == {"audio": "c.wav"}
    assert by_id["apart/1"].media == {"audio": "d.wav", "video": "a.mp4"} and by_id["apart/1"].group == "8"
    assert left_out == {
        "clips have sounds of several classes, and no isolated sounds": ["two", "more"],
        "clips have no class that is heard": ["none", "unknown", "seen"],
        "clips have no media.audio": ["mute"],
    }
    assert in_words(left_out, 2)[1] == "3 clips have no class that is heard: none, unknown, ..."
    assert [clip.id for clip in sound_manifest(manifest, ["cat"])[0].clips] == ["apart/0"]
    with pytest.raises(InputError, match=r"selected_classes: 'dgo' is a label of no clip \(did you mean dog\?\)"):
        sound_manifest(manifest, ["dgo"])
    with pytest.raises(InputError, match=r"no clip can be a source of a mixture \(1 clips have no media.audio\)"):
        sound_manifest(Manifest(manifest.path, clips[4:5]))
