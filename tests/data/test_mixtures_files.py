"""Mixtures as files: exact sums, the same bytes again, splits that share nothing, films."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import wavfile
from sound_set import RATE, write_sounds

from mmfusion.config import validate
from mmfusion.data.catalog.registry import prepare_set
from mmfusion.data.catalog.registry import settings as reader_settings
from mmfusion.data.manifest import Manifest, read_manifest, write_manifest
from mmfusion.data.media import probe, read_frames_at, read_sound, write_sound
from mmfusion.data.mixtures.again import remix
from mmfusion.data.mixtures.make import Order, make_mixtures
from mmfusion.data.mixtures.table import COLUMNS, read_table
from mmfusion.data.synthetic import SyntheticConfig, make_synthetic
from mmfusion.types import Clip, InputError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return write_sounds(tmp_path_factory.mktemp("sounds"))


def order(manifest: Manifest, out: Path, mixture: dict[str, object] | None = None, **changes: object) -> Order:
    tree = {
        "manifest": str(manifest.path), "out": str(out), "cache": str(manifest.path.parent / "cache"),
        "mixture": {"num_sources": 3, "duration_s": 2.0, **(mixture or {})}, "sample_rate_hz": RATE, "count": 2,
        **changes,
    }  # fmt: skip
    return validate(Order, tree, "mix")


def files(folder: Path, *endings: str) -> dict[str, bytes]:
    """Relative path -> bytes of the files of mixtures."""
    found = (path for path in sorted(folder.rglob("*")) if path.suffix in endings)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def tables(folder: Path) -> Iterator[tuple[Path, list[dict[str, str]]]]:
    for path in sorted(folder.rglob("*.csv")):
        with path.open(newline="") as file:
            yield path, list(csv.DictReader(file))


def read_wav(path: Path) -> np.ndarray:
    rate, data = wavfile.read(path)
    assert rate == RATE and data.dtype == np.int16 and data.ndim == 1
    return data


def assert_adds_up(out: Path) -> None:
    """Every mixture's stored integers are the sum of those of its sources, which the table names."""
    for path, rows in tables(out):
        mixture = read_wav(path.with_suffix(".wav"))
        names = [out / row["stored_as"] for row in rows]
        assert sorted(path.with_suffix("").iterdir()) == names
        total = np.sum([read_wav(name).astype(np.int64) for name in names], axis=0)
        assert (total == mixture).all() and np.abs(mixture.astype(int)).max() > 100


def test_a_set_of_mixtures(sounds: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = make_mixtures(order(sounds, out), progress=False)
    assert made.manifests == (out / "manifest.jsonl",) and made.counts == ({"train": 2, "val": 2, "test": 2},)
    assert_adds_up(out)
    split_of = {clip.id: clip.split for clip in sounds.clips}
    for path, rows in tables(out):
        assert tuple(rows[0]) == COLUMNS and path.parent.name == rows[0]["split"]
        assert len({row["class_name"] for row in rows}) == len(rows) == 3
        for row in rows:
            assert split_of[row["clip"]] == row["split"]
            assert (sounds.path.parent / row["source_file"]).is_file()
            stored, start_s, end_s = read_wav(out / row["stored_as"]), float(row["start_s"]), float(row["end_s"])
            first, last = np.flatnonzero(stored)[[0, -1]] / RATE
            assert start_s - 1e-9 <= first < start_s + 0.1 and end_s - 0.1 < last < end_s
            # The row says how the file's samples became those that are stored.
            cut = round(float(row["crop_start_s"]) * RATE)
            crop = read_wav(sounds.path.parent / row["source_file"])[cut : cut + round((end_s - start_s) * RATE)]
            expected = crop * 10 ** (float(row["gain_db"]) / 20) * float(row["scale"])
            inside = stored[round(start_s * RATE) : round(end_s * RATE)]
            np.testing.assert_allclose(inside, expected, atol=0.51)
    again = read_manifest(out / "manifest.jsonl")
    for clip in again.clips:
        assert clip.labels == tuple(sorted(source.label for source in clip.sources)) and clip.end_s == 2.0
        assert again.resolve(clip, "audio") == out / clip.split / f"{clip.id}.wav"
        parts = [read_sound(again.locate(str(source.media)), RATE) for source in clip.sources]
        whole = read_sound(out / clip.media["audio"], RATE)
        assert whole is not None
        np.testing.assert_array_equal(np.sum([part.data for part in parts if part], axis=0), whole.data)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**9),
    num=st.integers(2, 5),
    onset_s=st.none() | st.just([0.1, 0.7]),
    snr_db=st.sampled_from([[-5.0, 5.0], [-30.0, 30.0]]),
    level_db=st.sampled_from([[-25.0, -25.0], [-10.0, 6.0]]),
    room=st.booleans(),
)
def test_made_again_byte_for_byte_from_each_table(sounds: Manifest, tmp_path_factory: pytest.TempPathFactory, seed: int,
                                                  num: int, onset_s: object, snr_db: object, level_db: object,
                                                  room: bool) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("again")
    response = folder / "room.wav"
    write_sound(response, 0.5 ** np.arange(20.0), RATE)
    mixture = {
        "seed": seed, "num_sources": num, "onset_s": onset_s, "snr_db": snr_db, "level_db": level_db,
        "impulse_responses": [str(response)] if room else [],
    }  # fmt: skip
    make_mixtures(order(sounds, folder / "out", mixture), progress=False)
    assert_adds_up(folder / "out")
    for path, rows in reversed(list(tables(folder / "out"))):
        assert {row["impulse_response"] for row in rows} == ({str(response)} if room else {""})
        made, warnings = remix(path, folder / "twice", str(sounds.path.parent / "cache"), progress=False)
        assert made == folder / "twice" / rows[0]["split"] / f"{rows[0]['mixture']}.wav" and not warnings
    endings = (".wav", ".csv", ".jams")
    first, second = files(folder / "out", *endings), files(folder / "twice", *endings)
    assert first == second and len(first) == 6 * (3 + num)


def test_the_same_files_in_any_order_and_in_another_process(sounds: Manifest, tmp_path: Path) -> None:
    make_mixtures(order(sounds, tmp_path / "a", count=3), progress=False)
    make_mixtures(order(sounds, tmp_path / "b", splits=["test"], count=2), progress=False)
    words = ["--manifest", sounds.path, "-n", 3, "-t", 2, "--count", 3, "--sample_rate_hz", RATE,
             "--cache", tmp_path / "cache", "--split", "val", "test", "train", "-o", tmp_path / "b"]  # fmt: skip
    done = run_mix(*words)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "a", ".wav", ".csv", ".jams") == files(tmp_path / "b", ".wav", ".csv", ".jams")
    lines = [sorted((tmp_path / name / "manifest.jsonl").read_text().splitlines()) for name in "ab"]
    assert lines[0] == lines[1] and len(lines[0]) == 9


def run_mix(*words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "tools/mix.py", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_goes_on_where_it_was_cut_off(sounds: Manifest, tmp_path: Path) -> None:
    wanted = order(sounds, tmp_path)
    make_mixtures(wanted, progress=False)
    before = files(tmp_path, ".wav", ".csv", ".jams", ".jsonl")
    kept = tmp_path / "val" / "mix-val-00000.wav"
    kept.write_bytes(b"kept")
    (tmp_path / "test" / "mix-test-00001.csv").unlink()
    (tmp_path / "manifest.jsonl").unlink()
    make_mixtures(wanted, progress=False)
    after = files(tmp_path, ".wav", ".csv", ".jams", ".jsonl")
    assert after.pop("val/mix-val-00000.wav") == b"kept" and before.pop("val/mix-val-00000.wav") != b"kept"
    assert after == before


def test_a_folder_belongs_to_one_choice_of_settings(sounds: Manifest, tmp_path: Path) -> None:
    make_mixtures(order(sounds, tmp_path, count=1), progress=False)
    with pytest.raises(InputError, match=r"settings\.json: seed is 0 in the set that is already there, not 1"):
        make_mixtures(order(sounds, tmp_path, {"seed": 1}, count=1), progress=False)


def test_a_source_that_has_changed_is_named(tmp_path: Path) -> None:
    manifest = write_sounds(tmp_path / "set")
    make_mixtures(order(manifest, tmp_path / "out", count=1, splits=["test"]), progress=False)
    ((table, rows),) = tables(tmp_path / "out")
    file = tmp_path / "set" / rows[1]["source_file"]
    rate, data = wavfile.read(file)
    wavfile.write(file, rate, data // 2)
    with pytest.raises(InputError, match=rf"{table.name}: source_file: .*{file.name}: .* is not what it was"):
        remix(table, tmp_path / "again", str(tmp_path / "cache"), progress=False)
    wavfile.write(file, rate, data[: RATE // 10])
    with pytest.raises(InputError, match=rf"{file.name}: cannot be read: is shorter"):
        remix(table, tmp_path / "again", str(tmp_path / "cache"), progress=False)
    file.unlink()
    with pytest.raises(InputError, match=rf"{file.name}: cannot be read: no such file"):
        remix(table, tmp_path / "again", str(tmp_path / "cache"), progress=False)
    assert not list((tmp_path / "again").rglob("*.wav"))
    # The same files elsewhere: the manifest's new place is enough, and the table stays what it was.
    elsewhere = write_sounds(tmp_path / "elsewhere")
    remix(table, tmp_path / "again", str(tmp_path / "cache"), elsewhere.path, progress=False)
    assert files(tmp_path / "again", ".csv", ".wav") == files(tmp_path / "out", ".csv", ".wav")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("gain_db", "gain"), "row 1: gain_db: is missing"),
        (lambda text: text.replace(",8000,", ",many,"), "row 1: sample_rate_hz: must be a number, got 'many'"),
        (lambda text: text.replace("mix-test-00000,test,0,0", "mix-test-00000,test,0,1", 1), "row 2: seed: '0' where"),
        (lambda text: text.replace(",2.0,8000,", ",nan,8000,"), "row 1: duration_s: must be a number, got 'nan'"),
        (lambda text: text.replace(",mix-test-00000,", ",../out,"), "mixture: '../out' cannot be the name of a file"),
        (lambda text: text.replace(",mix-test-00000,", ",..,"), r"mixture: '\.\.' cannot be the name of a file"),
        (lambda text: text.replace(",test,0,0,", ",..,0,0,"), r"split: '\.\.' cannot be the name of a file"),
        (lambda text: text.replace(",test,0,0,", ",,0,0,"), "split: '' cannot be the name of a file"),
        (lambda text: text.splitlines()[0], "two sources at least, and here are 0 rows"),
    ],
)
def test_a_broken_table_is_one_sentence(sounds: Manifest, tmp_path: Path, change, said: str) -> None:
    make_mixtures(order(sounds, tmp_path, count=1, splits=["test"]), progress=False)
    table = tmp_path / "test" / "mix-test-00000.csv"
    changed = change(table.read_text())
    assert changed != table.read_text()
    table.write_text(changed)
    with pytest.raises(InputError, match=said):
        read_table(table)
    with pytest.raises(InputError, match="no such file"):
        read_table(tmp_path / "none.csv")


def test_clips_that_cannot_be_used_are_counted_and_named(tmp_path: Path) -> None:
    manifest = write_sounds(tmp_path)
    write_sound(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    more = [
        Clip("silent", {"audio": "silent.wav"}, "test", "s", labels=("class 0",)),
        Clip("broken", {"audio": "broken.wav"}, "test", "b", labels=("class 0",)),
        Clip("both", {"audio": "train-0.wav"}, "test", "m", labels=("class 0", "class 1")),
    ]
    write_manifest(tmp_path / "manifest.jsonl", [*manifest.clips, *more])
    made = make_mixtures(order(manifest, tmp_path / "out", count=1, splits=["test"]), progress=False)
    assert made.remarks["clips are silent, or nowhere active for long"] == ("silent",)
    (unread,) = made.remarks["clips have no sound that can be read"]
    assert unread.startswith("broken (") and "broken.wav" in unread
    assert made.remarks["clips have sounds of several classes, and no isolated sounds"] == ("both",)
    told = json.loads((tmp_path / "out" / "prepared.json").read_text())
    assert told["remarks"]["clips are silent, or nowhere active for long"] == ["silent"]
    assert "1 clips are silent" in made.summary()


def test_the_jams_file_is_read_by_jams(sounds: Manifest, tmp_path: Path) -> None:
    import jams  # takes a second, and brings pandas with it

    make_mixtures(order(sounds, tmp_path, count=1, splits=["test"]), progress=False)
    found = jams.load(str(tmp_path / "test" / "mix-test-00000.jams"), validate=True, strict=True)
    assert found.file_metadata.duration == 2.0
    (annotation,) = found.annotations.search(namespace="scaper")
    (_, rows) = next(tables(tmp_path))
    by_onset = sorted(rows, key=lambda row: float(row["start_s"]))
    assert [event.value["label"] for event in annotation.data] == [row["class_name"] for row in by_onset]
    assert [event.value["snr"] for event in annotation.data] == [float(row["snr_db"]) for row in by_onset]
    assert annotation.sandbox.scaper["soundscape_audio_path"] == "test/mix-test-00000.wav"
    path = tmp_path / "test" / "mix-test-00000.jams"
    path.write_text(path.read_text().replace('"role": "foreground"', '"role": "solo"', 1))
    with pytest.raises(jams.SchemaError):
        jams.load(str(path), validate=True, strict=True)


def test_films_show_one_source_where_it_is_heard(tmp_path: Path) -> None:
    manifest = write_sounds(tmp_path / "set", pictures=True)
    wanted = order(manifest, tmp_path / "out", {"onset_s": [0.2, 0.9]}, with_video=1, splits=["train"], count=3)
    make_mixtures(wanted, progress=False)
    assert_adds_up(tmp_path / "out")
    again = read_manifest(tmp_path / "out" / "manifest.jsonl")
    for (path, rows), clip in zip(tables(tmp_path / "out"), again.clips, strict=True):
        assert [row["shown"] for row in rows] == ["0", "1", "0"]
        assert [source.seen for source in clip.sources] == [False, True, False]
        assert clip.media["video"] == f"train/{clip.id}.mp4"
        info = probe(path.with_suffix(".mp4"))
        assert (info.width_px, info.height_px, info.frame_rate, info.has_audio) == (24, 16, 10.0, True)
        assert all((manifest.path.parent / row["video_file"]).is_file() for row in rows)
        row, times_s = rows[1], np.arange(20) / 10
        shown = read_frames_at(path.with_suffix(".mp4"), times_s, (16, 24))
        assert shown is not None
        start_s, end_s, video_s = (float(row[name]) for name in ("start_s", "end_s", "crop_start_s"))
        seconds = np.floor(np.round(times_s - start_s + video_s, 6))
        expected = 40 + 10 * int(row["class_name"][-1]) + 4 * seconds
        # A time at which the picture changes may round to either side.
        inside = (times_s >= start_s) & (times_s < end_s - 0.1)
        change = np.abs(times_s - start_s + video_s - np.round(times_s - start_s + video_s)) < 0.06
        grey = shown.data.mean(axis=(1, 2, 3))
        np.testing.assert_allclose(grey[inside & ~change], expected[inside & ~change], atol=3)
        assert (grey[(times_s < start_s) | (times_s >= end_s)] < 3).all() and (inside & ~change).any()
        film, sound = read_sound(path.with_suffix(".mp4"), RATE), read_sound(path.with_suffix(".wav"), RATE)
        assert film is not None and sound is not None
        length = min(len(film.data), len(sound.data))
        assert np.corrcoef(film.data[:length], sound.data[:length])[0, 1] > 0.9
        remix(path, tmp_path / "again", str(tmp_path / "cache"), progress=False)
    assert files(tmp_path / "again", ".mp4", ".csv") == files(tmp_path / "out", ".mp4", ".csv")


def test_a_film_needs_a_source_with_pictures(sounds: Manifest, tmp_path: Path) -> None:
    made = make_mixtures(order(sounds, tmp_path, with_video=0, count=1, splits=["val"]), progress=False)
    assert made.remarks["mixtures have no source with a picture"] == ("mix-val-00000",)
    assert not list(tmp_path.rglob("*.mp4"))
    with pytest.raises(InputError, match=r"there is no source 3 \(sources are 0 to 2\)"):
        make_mixtures(order(sounds, tmp_path / "b", with_video=3, count=1), progress=False)


def test_mixtures_are_made_of_mixtures(sounds: Manifest, tmp_path: Path) -> None:
    """A set of mixtures is a data set: its isolated sounds are sources."""
    made = make_mixtures(order(sounds, tmp_path / "a", count=3, splits=["train"]), progress=False)
    again = make_mixtures(order(read_manifest(made.manifests[0]), tmp_path / "b", count=1), progress=False)
    assert again.counts == ({"train": 1},)
    assert_adds_up(tmp_path / "b")


def test_the_synthetic_set_gives_sources(tmp_path: Path) -> None:
    config = SyntheticConfig(train_clips=24, val_clips=0, test_clips=0, size_px=32, frame_rate=4.0)
    manifest = read_manifest(make_synthetic(tmp_path / "set", config, workers=1, progress=False))
    wanted = order(manifest, tmp_path / "out", {"num_sources": 2, "duration_s": 4.0}, with_video=0)
    make_mixtures(wanted, progress=False)
    assert_adds_up(tmp_path / "out")
    events = {clip.id: [source for source in clip.sources if source.heard] for clip in manifest.clips}
    for _, rows in tables(tmp_path / "out"):
        for row in rows:
            (event,) = events[row["clip"]]
            assert event.label == row["class_name"]
            assert event.start_s <= float(row["crop_start_s"]) + 1e-9
    assert len(list((tmp_path / "out" / "train").glob("*.mp4"))) == 2


def test_a_manifest_with_a_group_in_two_splits_is_refused(tmp_path: Path) -> None:
    manifest = write_sounds(tmp_path)
    text = (tmp_path / "manifest.jsonl").read_text().replace('"group": "val 0"', '"group": "train 0"')
    (tmp_path / "manifest.jsonl").write_text(text)
    with pytest.raises(InputError, match="group: 'train 0' is in two splits"):
        make_mixtures(order(manifest, tmp_path / "out"), progress=False)


def test_bad_input_to_the_tool_is_one_sentence(sounds: Manifest, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    for words, said in (
        (["--manifest", sounds.path, "-n", 101], "num_sources"),
        (["--manifest", sounds.path, "-n", 6], "num_sources is 6, each of another class, and 5 classes"),
        (["--manifest", tmp_path / "empty.jsonl"], "empty.jsonl: holds no clips"),
    ):
        done = run_mix("-o", tmp_path / "out", "--cache", sounds.path.parent / "cache", *words)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert said in next(line for line in done.stderr.splitlines() if line.startswith("error: "))


def test_esc10_as_it_lies_on_disk(shared_data: Path, tmp_path: Path) -> None:
    prepare_set("esc50", shared_data / "esc50_16k", tmp_path / "set", reader_settings("esc50", ["subset=esc10"]))
    manifest = tmp_path / "set" / "fold-5" / "manifest.jsonl"
    words = ["-n", 3, "-t", 10, "--manifest", manifest, "--cache", tmp_path / "cache"]
    done = run_mix(*words, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = list(tables(tmp_path / "out"))
    assert len(found) == 20
    used: dict[str, set[str]] = {"train": set(), "test": set()}
    for path, rows in found:
        rate, mixture = wavfile.read(path.with_suffix(".wav"))
        parts = [wavfile.read(tmp_path / "out" / row["stored_as"])[1].astype(int) for row in rows]
        assert rate == 16000 and len(mixture) == 160000 and len(parts) == 3
        assert (np.sum(parts, axis=0) == mixture).all() and all(part.any() for part in parts)
        assert (path.with_suffix(".jams")).exists()
        used[rows[0]["split"]] |= {row["source_file"] for row in rows}
    assert not used["train"] & used["test"]
    assert all("/5-" in name for name in used["test"]) and not any("/5-" in name for name in used["train"])
    path, rows = found[-1]
    done = run_mix("--from", path, "-o", tmp_path / "again", "--cache", tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    before, again = (files(tmp_path / name, ".csv", ".jams", ".wav") for name in ("out", "again"))
    assert len(again) == 6 and again.items() <= before.items()
