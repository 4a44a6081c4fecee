"""What sets of mixtures promise: no sound in two splits, nothing overwritten, nothing used or left out unsaid."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sound_set import RATE, damaged, samples, write_sounds
from test_mixtures_files import assert_adds_up, files, order, run_mix, tables

from mmfusion.config import validate
from mmfusion.data.inputs import DataConfig
from mmfusion.data.manifest import Manifest, read_manifest, write_manifest
from mmfusion.data.media import write_clip, write_sound
from mmfusion.data.mixtures.again import remix
from mmfusion.data.mixtures.clips import Mixtures
from mmfusion.data.mixtures.gather import open_sounds
from mmfusion.data.mixtures.make import make_mixtures, order_of
from mmfusion.data.mixtures.recipes import MixtureConfig
from mmfusion.data.mixtures.sound import read_response
from mmfusion.data.mixtures.splits import check_sounds
from mmfusion.data.mixtures.table import read_table
from mmfusion.data.mixtures.write import source_names
from mmfusion.types import Clip, InputError

ROOT = Path(__file__).resolve().parents[2]


def decoded(manifest: Manifest) -> Manifest:
    """The manifest, its sounds in the cache of `order` already: processes of their own take seconds to begin."""
    open_sounds(manifest, RATE, str(manifest.path.parent / "cache"), progress=False, workers=0)
    return manifest


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return decoded(write_sounds(tmp_path_factory.mktemp("sounds")))


# -- no sound is in two splits


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 12 sounds, of which 9 to 11 hold the same bytes as 0 to 2; `link.wav` leads to 3."""
    folder = tmp_path_factory.mktemp("twelve")
    rng = np.random.default_rng(0)
    for number in range(9):
        write_sound(folder / f"{number}.wav", samples(number, 0.5, rng), RATE)
    for number in range(3):
        shutil.copy(folder / f"{number}.wav", folder / f"{number + 9}.wav")
    (folder / "link.wav").symlink_to("3.wav")
    clips = (Clip(str(number), {"audio": f"{number}.wav"}, "test", "a") for number in range(9))
    decoded(Manifest(folder / "manifest.jsonl", tuple(clips)))
    return folder


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    drawn=st.lists(
        st.tuples(st.integers(0, 11), st.sampled_from(["train", "test"]), st.sampled_from(["a", "b", "c"])),
        min_size=6, max_size=14,
    ),
    parted=st.booleans(),
)  # fmt: skip
def test_no_sound_is_in_two_splits_or_there_are_no_mixtures(
    twelve: Path, tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[int, str, str]], parted: bool
) -> None:
    """Clips of any file, class and split, each in a group of its own: a manifest that `check_groups` lets through."""
    if parted:  # by chance alone, few draws are
        drawn = [(file, "train" if file % 9 < 5 else "test", label) for file, _, label in drawn]
    clips = [Clip(f"clip {number}", {"audio": f"{file}.wav"}, split, f"group {number}", labels=(label,))
             for number, (file, split, label) in enumerate(drawn)]  # fmt: skip
    path = twelve / "manifest.jsonl"
    write_manifest(path, clips)
    contents = {split: {file % 9 for file, own, _ in drawn if own == split} for split in ("train", "test")}
    shared = contents["train"] & contents["test"]
    out = tmp_path_factory.mktemp("out")
    wanted = order(read_manifest(path), out, {"num_sources": 2, "duration_s": 0.5}, count=3)
    enough = all(len({label for _, own, label in drawn if own == split}) >= 2 for split in {own for _, own, _ in drawn})
    if shared or not enough:
        with pytest.raises(InputError, match="in two splits: '" if enough else "2, each of another class|in two"):
            make_mixtures(wanted, progress=False)
        assert not list(out.rglob("*.wav"))
        return
    make_mixtures(wanted, progress=False)
    used: dict[str, set[bytes]] = {"train": set(), "test": set()}
    for table, rows in tables(out):
        used[table.parent.name] |= {(twelve / row["source_file"]).read_bytes() for row in rows}
    assert not used["train"] & used["test"] and any(used.values())


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("3.wav", r"media: .*3\.wav is in two splits: 'train' \(clip 'one'\) and 'test' \(clip 'two'\)"),
        ("./3.wav", r"3\.wav is in two splits"),
        ("link.wav", r"3\.wav is in two splits"),
    ],
)
def test_a_file_in_two_splits_is_named_however_it_is_written(twelve: Path, file: str, said: str) -> None:
    manifest = Manifest(
        twelve / "manifest.jsonl",
        (
            Clip("one", {"audio": "3.wav"}, "train", "group 1", end_s=0.2, labels=("a",)),
            Clip("two", {"audio": file}, "test", "group 2", start_s=0.3, labels=("a",)),
        ),
    )
    with pytest.raises(InputError, match=said):
        check_sounds(manifest, twelve / "cache")
    check_sounds(manifest, twelve / "cache", unused=["two"])
    check_sounds(Manifest(manifest.path, (manifest.clips[0], replace(manifest.clips[1], split="train"))), twelve)


def test_copies_of_a_sound_are_named_and_empty_files_are_no_copies(twelve: Path, tmp_path: Path) -> None:
    one = Clip("one", {"audio": "0.wav"}, "train", "group 1", labels=("a",))
    two = Clip("two", {"audio": "9.wav"}, "test", "group 2", labels=("a",))
    with pytest.raises(InputError, match=r"0\.wav and .*9\.wav are the same sound and in two splits: 'train' \(clip"):
        check_sounds(Manifest(twelve / "manifest.jsonl", (one, two)), tmp_path)
    for name in ("0.wav", "9.wav"):
        (tmp_path / name).touch()
    check_sounds(Manifest(tmp_path / "manifest.jsonl", (one, two)), tmp_path)
    check_sounds(Manifest(tmp_path / "nowhere" / "manifest.jsonl", (one, two)), tmp_path)


def test_on_the_fly_too(sounds: Manifest, tmp_path: Path) -> None:
    twice = [replace(clip, media={"audio": "train-0.wav"}) if clip.id == "test-0" else clip for clip in sounds.clips]
    manifest = Manifest(sounds.path, tuple(twice))
    cache = open_sounds(manifest, RATE, str(tmp_path), progress=False, workers=0).cache
    mixture = {"num_sources": 2, "duration_s": 1.0}
    tree = {"manifest": str(sounds.path), "cache": str(tmp_path), "mixture": mixture,
            "inputs": {"audio": {"kind": "waveform", "sample_rate_hz": RATE}}}  # fmt: skip
    with pytest.raises(InputError, match=r"train-0\.wav is in two splits"):
        Mixtures(manifest, cache, validate(DataConfig, tree, "test"), progress=False)
    Mixtures(manifest, cache, validate(DataConfig, {**tree, "legacy_split": True}, "test"), progress=False)


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../up"])
def test_a_split_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    manifest = write_sounds(tmp_path / "set")
    clips = [replace(clip, split=name) if clip.split == "val" else clip for clip in manifest.clips]
    write_manifest(manifest.path, clips)
    with pytest.raises(InputError, match=r"split: '.*' cannot be the name of a folder"):
        make_mixtures(order(manifest, tmp_path / "out" / "inner"), progress=False)
    assert not list((tmp_path / "out").rglob("*.wav"))


def test_classes_of_any_name_stay_in_the_folder(tmp_path: Path) -> None:
    manifest = decoded(write_sounds(tmp_path / "set", num_classes=3))
    names = {"class 0": "..", "class 1": "../../up", "class 2": "/etc/x"}
    clips = [replace(clip, labels=(names[(clip.labels or ("",))[0]],)) for clip in manifest.clips]
    write_manifest(manifest.path, clips)
    make_mixtures(order(manifest, tmp_path / "out", count=1, splits=["test"]), progress=False)
    assert_adds_up(tmp_path / "out")
    assert len(files(tmp_path / "out" / "test", ".wav")) == 4 and not list(tmp_path.glob("*.wav"))


# -- nothing is overwritten


def test_made_again_only_where_nothing_else_is(sounds: Manifest, tmp_path: Path) -> None:
    for seed in (0, 1):
        make_mixtures(order(sounds, tmp_path / str(seed), {"seed": seed}, count=1), progress=False)
    before = files(tmp_path / "1", ".wav", ".csv", ".jams", ".json", ".jsonl")
    table, cache = tmp_path / "0" / "test" / "mix-test-00000.csv", str(tmp_path / "cache")
    with pytest.raises(InputError, match=r"mix-test-00000.* belongs to another mixture of that name; choose another"):
        remix(table, tmp_path / "1", cache, progress=False)
    assert files(tmp_path / "1", ".wav", ".csv", ".jams", ".json", ".jsonl") == before
    # Sources alone are enough to be another mixture.
    for name in ("csv", "wav", "jams"):
        (tmp_path / "1" / "test" / f"mix-test-00000.{name}").unlink()
    with pytest.raises(InputError, match=r"test/mix-test-00000/.*: belongs to another mixture"):
        remix(table, tmp_path / "1", cache, progress=False)
    # In its own place it mends what is missing.
    whole = files(tmp_path / "0", ".wav", ".csv", ".jams")
    (tmp_path / "0" / "test" / "mix-test-00000.wav").unlink()
    remix(table, tmp_path / "0", cache, progress=False)
    assert files(tmp_path / "0", ".wav", ".csv", ".jams") == whole
    assert not list(tmp_path.rglob(".again-*"))


def test_a_set_does_not_take_another_mixture_for_its_own(sounds: Manifest, tmp_path: Path) -> None:
    make_mixtures(order(sounds, tmp_path / "0", count=1, splits=["test"]), progress=False)
    remix(tmp_path / "0" / "test" / "mix-test-00000.csv", tmp_path / "1", str(tmp_path / "cache"), progress=False)
    with pytest.raises(InputError, match=r"mix-test-00000\.csv: is another mixture than this set's"):
        make_mixtures(order(sounds, tmp_path / "1", {"seed": 1}, count=1), progress=False)
    make_mixtures(order(sounds, tmp_path / "2", count=1), progress=False)
    shutil.copytree(tmp_path / "1" / "test", tmp_path / "3" / "test")
    make_mixtures(order(sounds, tmp_path / "3", count=1), progress=False)
    assert files(tmp_path / "2", ".wav", ".csv") == files(tmp_path / "3", ".wav", ".csv")


def test_a_set_with_rooms_is_made_again_after_it_was_moved(sounds: Manifest, tmp_path: Path) -> None:
    rooms = tmp_path / "rooms"
    for number in range(2):
        write_sound(rooms / f"room{number}.wav", (0.4 + 0.2 * number) ** np.arange(20.0), RATE)
    mixture = {"impulse_responses": [str(rooms / f"room{number}.wav") for number in range(2)]}
    made = make_mixtures(order(sounds, tmp_path / "out", mixture, splits=["train", "test"]), progress=False)
    assert made.remarks["rooms are heard in all splits alike"] == tuple(mixture["impulse_responses"])
    alone = make_mixtures(order(sounds, tmp_path / "alone", mixture, splits=["test"], count=1), progress=False)
    assert not alone.remarks
    both = make_mixtures(order(sounds, tmp_path / "alone", mixture, splits=["train"], count=1), progress=False)
    assert set(both.remarks) == {"rooms are heard in all splits alike"}
    rooms.rename(tmp_path / "elsewhere")
    (tmp_path / "out").rename(tmp_path / "moved")
    table = tmp_path / "moved" / "test" / "mix-test-00000.csv"
    with pytest.raises(InputError, match=r"impulse_response: .*room\d\.wav: no such file; --impulse_response says"):
        remix(table, tmp_path / "again", str(tmp_path / "cache"), progress=False)
    now = [tmp_path / "elsewhere" / f"room{number}.wav" for number in (1, 0)]
    remix(table, tmp_path / "again", str(tmp_path / "cache"), rooms=now, progress=False)
    assert files(tmp_path / "again", ".wav", ".csv", ".jams").items() <= files(tmp_path / "moved", ".wav", ".csv",
                                                                               ".jams").items()  # fmt: skip
    write_sound(now[0], 0.3 ** np.arange(20.0), RATE)
    write_sound(now[1], 0.3 ** np.arange(20.0), RATE)
    read_response.cache_clear()
    with pytest.raises(InputError, match="the file, its room or their decoder is not what it was"):
        remix(table, tmp_path / "third", str(tmp_path / "cache"), rooms=now, progress=False)


# -- nothing is used, or left out, without a word


def test_a_damaged_sound_is_used_and_named(tmp_path: Path) -> None:
    manifest = write_sounds(tmp_path / "set")
    broken = []
    for number, clip in enumerate(clip for clip in manifest.clips if clip.split == "test"):
        path = manifest.path.parent / clip.media["audio"]
        if number % 2:
            noise = samples(number, 2.0, np.random.default_rng(number))
            write_clip(path.with_suffix(".mp4"), None, 1, noise, RATE)
            path.unlink()
            path.with_suffix(".mp4").rename(path)
            damaged(path, slice(4, 6), "audio")
            broken.append(clip.id)
    decoded(manifest)
    wanted = order(manifest, tmp_path / "out", splits=["test"], count=4)
    made = make_mixtures(wanted, progress=False)
    for report in (made, make_mixtures(wanted, progress=False)):  # the second finds all in the cache
        told = report.remarks["clips have sound of which only a part could be read"]
        assert [name.split(" (")[0] for name in told] == broken and all("could not be decoded" in name for name in told)
    assert json.loads((tmp_path / "out" / "prepared.json").read_text())["remarks"]
    assert f"{len(broken)} clips have sound of which only a part could be read: test-1 (" in made.summary()
    table, rows = next((table, rows) for table, rows in tables(tmp_path / "out")
                       if {row["clip"] for row in rows} & set(broken))  # fmt: skip
    done = run_mix("--from", table, "-o", tmp_path / "again", "--cache", tmp_path / "cache")
    assert done.returncode == 0 and "read in part" in done.stderr
    num_used = len({row["clip"] for row in rows} & set(broken))
    assert sum(line.startswith("warning: ") for line in done.stderr.splitlines()) == num_used
    assert files(tmp_path / "again", ".wav").items() <= files(tmp_path / "out", ".wav").items()


def test_a_broken_picture_costs_no_mixture(tmp_path: Path) -> None:
    """Pictures that are missing, no film at all, undecodable, damaged, or over before the sound begins."""
    manifest = decoded(write_sounds(tmp_path / "set", pictures=True))
    clips = []
    for number, clip in enumerate(manifest.clips):
        film = manifest.path.parent / f"{clip.id}.video.mp4"
        shutil.copy(manifest.path.parent / clip.media["audio"], film)
        if number % 5 == 0:
            film.write_bytes(b"no film")
        elif number % 5 == 1:
            film.unlink()
        elif number % 5 == 2:
            damaged(film, slice(None), "video")
        elif number % 5 == 3:
            damaged(film, slice(2, 4), "video")
        clips.append(replace(clip, media={"audio": clip.media["audio"], "video": film.name}))
    # Classes go round like the damage: shifted, so that each class has some of all.
    films = [clip.media["video"] for clip in clips]
    clips = [replace(clip, media={**clip.media, "video": films[(at + at // 5) % len(films)]}) for at, clip in
             enumerate(clips)]  # fmt: skip
    write_manifest(manifest.path, clips)
    wanted = order(manifest, tmp_path / "out", with_video=0, count=8, splits=["train"])
    made = make_mixtures(wanted, progress=False)
    assert made.counts == ({"train": 8},)
    assert_adds_up(tmp_path / "out")
    unshown, partly = (made.remarks[f"clips have pictures {what}"] for what in
                       ("that could not be shown", "of which only a part could be read"))  # fmt: skip
    reasons = " ".join(unshown)
    assert "no such file" in reasons and "no picture can be decoded" in reasons and str(tmp_path) not in reasons
    assert all("packets could not be decoded" in name for name in partly)
    blind = made.remarks.get("mixtures have no source with a picture", ())
    described = {clip.id: clip for clip in read_manifest(tmp_path / "out" / "manifest.jsonl").clips}
    for table, rows in tables(tmp_path / "out"):
        shown = [place for place, row in enumerate(rows) if row["shown"] == "1"]
        assert len(shown) == (table.stem not in blind) == table.with_suffix(".mp4").exists()
        first = shown[0] if shown else len(rows)
        flawed = [bool(row["video_flaw"]) for row in rows]
        assert all(flawed[:first]) and not any(flawed[first + 1 :])
        assert [source.seen for source in described[table.stem].sources] == [place in shown for place in range(3)]
        remix(table, tmp_path / "again", str(tmp_path / "cache"), progress=False)
    assert files(tmp_path / "again", ".mp4", ".wav", ".csv") == files(tmp_path / "out", ".mp4", ".wav", ".csv")
    # What was found out is not forgotten when the command goes on.
    assert make_mixtures(wanted, progress=False).remarks == made.remarks


# -- all settings, all sizes


def tool_arguments(*words: object) -> object:
    """What `tools/mix.py` makes of a command line."""
    spec = importlib.util.spec_from_file_location("mix_tool", ROOT / "tools" / "mix.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    before, sys.argv = sys.argv, ["mix.py", *map(str, words)]
    try:
        return module.parse()
    finally:
        sys.argv = before


def test_every_setting_of_the_maker_can_be_given(tmp_path: Path) -> None:
    flags = {
        "num_sources": ["-n", 3], "duration_s": ["-t", 5], "snr_db": ["--snr_db", -3, 4],
        "level_db": ["--level_db", -30, -20], "onset_s": ["--onset_s", 0.5, 1], "min_active": ["--min_active", 0.2],
        "activity_floor_db": ["--activity_floor_db", 30], "impulse_responses": ["--impulse_response", tmp_path / "x"],
        "selected_classes": ["--selected_classes", "a", "b", "c"], "seed": ["--seed", 9],
    }  # fmt: skip
    of_training = {"num_train", "num_validation", "num_test", "sources"}
    names = {each.name for each in fields(MixtureConfig)} - of_training  # type: ignore[arg-type]
    assert set(flags) == names
    common = ["-o", tmp_path, "--manifest", tmp_path / "m.jsonl"]
    plain = order_of(tool_arguments(*common)).mixture  # type: ignore[arg-type]
    assert plain == MixtureConfig()
    given = order_of(tool_arguments(*common, *(word for words in flags.values() for word in words))).mixture  # type: ignore[arg-type]
    assert not [name for name in names if getattr(given, name) == getattr(plain, name)]


def test_a_hundred_sources_as_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clips = []
    for number in range(100):
        write_sound(tmp_path / "set" / f"{number}.wav", 0.1 * rng.standard_normal(RATE // 8), RATE)
        clips.append(Clip(f"{number}", {"audio": f"{number}.wav"}, "test", f"{number}", labels=(f"class {number}",)))
    write_manifest(tmp_path / "set" / "manifest.jsonl", clips)
    words = ["-n", 100, "-t", 0.5, "--count", 2, "--sample_rate_hz", RATE, "--cache", tmp_path / "cache"]
    done = run_mix(*words, "--manifest", tmp_path / "set" / "manifest.jsonl", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert_adds_up(tmp_path / "out")
    found = list(tables(tmp_path / "out"))
    for table, rows in found:
        assert len(rows) == 100 == len({row["class_name"] for row in rows})
        recipe = read_table(table)[0].recipe
        assert sorted(source_names(recipe)) == source_names(recipe) == [row["stored_as"] for row in rows]
        assert os.path.getsize(table) < 100_000
    with found[0][0].open(newline="") as file:
        assert sum(1 for _ in csv.reader(file)) == 101
