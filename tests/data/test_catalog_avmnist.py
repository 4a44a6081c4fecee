"""AV-MNIST from the real parts: what splits share, how the sounds and images are degraded, and that it repeats."""

from __future__ import annotations

import shutil
import wave
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmfusion.data.catalog import avmnist, avmnist_render
from mmfusion.data.catalog.avmnist import IMAGES, AvmnistConfig, plan, prepare, read_noise_list, read_parts, roles
from mmfusion.data.catalog.degrade import active, power_db
from mmfusion.data.manifest import Manifest, read_manifest
from mmfusion.data.media import read_frames
from mmfusion.types import InputError

SPEAKERS = ["george", "jackson", "lucas", "nicolas", "theo", "yweweler"]
FEW = AvmnistConfig(sounds_per_speaker=10, speakers=("george", "yweweler"), passes=1)


@pytest.fixture(scope="module")
def parts(shared_data):
    return read_parts(shared_data / "avmnist_parts")


@pytest.fixture(scope="module")
def made(shared_data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("avmnist")
    prepare(shared_data / "avmnist_parts", out, FEW)
    return out


@pytest.fixture(scope="module")
def george(made) -> Manifest:
    return read_manifest(made / "test-george" / "manifest.jsonl")


def _samples(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (8000, 1, 8000)
        return np.frombuffer(file.readframes(8000), "<i2") / 32768


def test_speakers_rotate_and_the_next_one_validates():
    assert roles(SPEAKERS, "george") == {"train": SPEAKERS[2:], "val": ["jackson"], "test": ["george"]}
    assert roles(SPEAKERS, "yweweler") == {"train": SPEAKERS[1:5], "val": ["george"], "test": ["yweweler"]}


def test_the_whole_set_is_planned_by_the_recipe(parts):
    planned = plan(parts, AvmnistConfig())
    assert list(planned) == SPEAKERS
    for test, pairs in planned.items():
        assert Counter(pair.split for pair in pairs) == {"train": 6000, "val": 500, "test": 500}
        for split, (low, high) in IMAGES.items():
            mine = [pair for pair in pairs if pair.split == split]
            assert {str(parts.speaker[pair.sound]) for pair in mine} == set(roles(SPEAKERS, test)[split])
            assert all(low <= pair.image < high for pair in mine)
            for turn in range(3 if split == "train" else 1):
                own = [pair for pair in mine if pair.turn == turn]
                assert len({pair.image for pair in own}) == len({pair.sound for pair in own}) == len(own)
        assert len({pair.image for pair in pairs if pair.split == "train"}) > 5500
        assert all(parts.digit[pair.sound] == parts.image_digit[pair.image] for pair in pairs)


def test_another_seed_draws_other_pairs_and_more_passes_add_images(parts):
    first = plan(parts, FEW)["george"]
    other = plan(parts, AvmnistConfig(sounds_per_speaker=10, speakers=("george",), seed=1, passes=1))["george"]
    assert {pair.sound for pair in first} == {pair.sound for pair in other} and first != other
    twice = plan(parts, AvmnistConfig(sounds_per_speaker=10, speakers=("george",), passes=2))["george"]
    assert [pair for pair in twice if pair.turn == 0] == first
    assert Counter(pair.split for pair in twice) == {"train": 80, "val": 10, "test": 10}


def test_the_manifest_says_what_was_planned(george, parts):
    assert Counter(clip.split for clip in george.clips) == {"train": 40, "val": 10, "test": 10}
    assert {clip.group for clip in george.split("test")} == {"george"}
    assert george.label_names() == tuple("0123456789")
    for clip in george.clips:
        speaker, digit, _, image = clip.id.split("-")
        assert (clip.group, clip.labels) == (speaker, (digit,))
        assert parts.image_digit[int(image)] == int(digit)


def test_speech_is_3_db_above_the_noise(george, parts):
    index = {parts.name(sound): sound for sound in range(len(parts.digit))}
    measured = []
    for clip in george.clips:
        mixture = _samples(george.path.parent / clip.media["audio"])
        sound = index[clip.id.rsplit("-", 1)[0]]
        speech = parts.wave[parts.offset[sound] : parts.offset[sound + 1]][:8000] / 32768
        speech = np.pad(speech, (0, 8000 - len(speech)))
        if np.abs(mixture).max() < 0.99:  # a louder sum was scaled down, and is no plain sum any more
            measured.append(power_db(speech[active(speech, 8000)]) - power_db(mixture - speech))
    assert len(measured) > len(george.clips) / 2
    np.testing.assert_allclose(measured, 3.0, atol=0.1)


def test_images_have_rank_5(george):
    shown = [read_frames(george.path.parent / clip.media["video"], 1.0, 28) for clip in george.split("train")]
    flat = np.stack([frames.data[0, :, :, 0].ravel() for frames in shown if frames is not None]).astype(float)
    assert flat.shape == (40, 784)
    energy = np.linalg.svd(flat - flat.mean(0), compute_uv=False) ** 2
    assert energy[:5].sum() / energy.sum() > 0.999
    assert energy[:4].sum() / energy.sum() < 0.99


def test_components_are_fitted_on_training_images_only(parts, tmp_path):
    upside_down = parts.image.copy()
    upside_down[6000:] = 255 - upside_down[6000:]
    avmnist_render.render_images(parts.image, IMAGES["train"], [3, 8000], 5, tmp_path / "a")
    avmnist_render.render_images(upside_down, IMAGES["train"], [3, 8000], 5, tmp_path / "b")
    same = [
        (tmp_path / "a" / "image" / name).read_bytes() == (tmp_path / "b" / "image" / name).read_bytes()
        for name in ("00003.png", "08000.png")
    ]
    assert same == [True, False]


def test_noise_folds_are_disjoint_and_certain(shared_data):
    noise, uncertain = read_noise_list(shared_data / "esc50_16k")
    folds = {split: {file.name[0] for file in files} for split, files in noise.items()}
    assert folds == {"train": {"1", "2", "3"}, "val": {"4"}, "test": {"5"}}
    assert len(uncertain) == 27 and sum(map(len, noise.values())) == 2000 - 27
    assert not set(uncertain) & {file.name for files in noise.values() for file in files}


def test_a_sound_is_mixed_with_noise_of_its_own_split_only_and_never_with_silence(shared_data, parts, tmp_path):
    noise, _ = read_noise_list(shared_data / "esc50_16k")
    speech = avmnist_render.Speech(parts.wave, parts.offset, parts.sample_rate_hz)
    renderer = avmnist_render.SoundRenderer(speech, noise, tmp_path, 0, 3.0, -50.0)
    for split, files in noise.items():
        renderer.read.clear()
        for sound in range(8):
            crop = renderer.crop(avmnist_render.SoundTask(split, parts.name(sound), sound))
            assert crop.shape == (8000,) and power_db(crop) >= -50.0
        assert set(renderer.read) <= set(files)
    renderer.min_noise_db = 0.0
    with pytest.raises(InputError, match="min_noise_db"):
        renderer.crop(avmnist_render.SoundTask("val", "a", 0))


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_processes(shared_data, made, tmp_path, monkeypatch):
    monkeypatch.setattr(avmnist_render, "POOL_FROM", 0)
    prepare(shared_data / "avmnist_parts", tmp_path, FEW, workers=2)
    files = sorted(path.relative_to(made) for path in made.rglob("*.*") if path.is_file())
    assert len(files) > 100
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*") if path.is_file())
    assert all((made / file).read_bytes() == (tmp_path / file).read_bytes() for file in files)


def test_what_was_rendered_is_kept_and_another_recipe_has_its_own_folder(shared_data, made, tmp_path):
    shutil.copytree(made, tmp_path / "set")
    (media,) = (tmp_path / "set").glob("media-*")
    first, second = sorted(media.rglob("*.wav"))[:2]
    kept, expected = first.stat().st_mtime_ns, second.read_bytes()
    second.unlink()
    prepare(shared_data / "avmnist_parts", tmp_path / "set", FEW)
    assert first.stat().st_mtime_ns == kept and second.read_bytes() == expected
    prints = {
        avmnist.fingerprint(read_parts(shared_data / "avmnist_parts"), {}, config)
        for config in (AvmnistConfig(), AvmnistConfig(snr_db=0.0), AvmnistConfig(seed=1), AvmnistConfig(passes=2))
    }
    assert len(prints) == 3  # the number of pairs changes no file


def test_what_is_missing_is_named(shared_data, tmp_path):
    with pytest.raises(InputError, match=r"fsdd_8k\.npz: no such file"):
        prepare(tmp_path, tmp_path / "out", AvmnistConfig())
    with pytest.raises(InputError, match=r"esc50\.csv: no such file"):
        prepare(shared_data / "avmnist_parts", tmp_path / "out", AvmnistConfig(noise=str(tmp_path)))
    with pytest.raises(InputError, match="speakers: there is no speaker 'bob'"):
        prepare(shared_data / "avmnist_parts", tmp_path / "out", AvmnistConfig(speakers=("bob",)))


def test_a_broken_part_is_named(shared_data, tmp_path):
    shutil.copy(shared_data / "avmnist_parts" / "fsdd_8k.npz", tmp_path)
    (tmp_path / "mnist_t10k.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"mnist_t10k\.npz: not a readable"):
        read_parts(tmp_path)
    np.savez(tmp_path / "mnist_t10k.npz", image=np.zeros((3, 28, 28), np.uint8))
    with pytest.raises(InputError, match=r"mnist_t10k\.npz: label: array is missing"):
        read_parts(tmp_path)
