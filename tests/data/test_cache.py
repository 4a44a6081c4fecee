from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_set import INPUTS, data_config, make_set

from mmfusion.config import save
from mmfusion.data import building, memory, shards
from mmfusion.data.cache import ClipCache, build_cache
from mmfusion.data.inputs import DataConfig
from mmfusion.data.manifest import Manifest, read_manifest, write_manifest
from mmfusion.data.parts import remove_leftovers
from mmfusion.data.raw import Raw
from mmfusion.data.reading import MediaReader, read_raw
from mmfusion.types import InputError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_set(tmp_path_factory.mktemp("made"), 8)


@pytest.fixture
def manifest(made: Manifest, tmp_path: Path) -> Manifest:
    """A copy of the set that a test may spoil."""
    shutil.copytree(made.path.parent, tmp_path / "set", ignore=shutil.ignore_patterns("cache"))
    return read_manifest(tmp_path / "set" / "manifest.jsonl")


def assert_same(one: dict[str, Raw], other: dict[str, Raw]) -> None:
    assert set(one) == set(other)
    for name, raw in one.items():
        assert raw.rate == other[name].rate
        assert raw.data.dtype == other[name].data.dtype
        np.testing.assert_array_equal(raw.data, other[name].data)
        np.testing.assert_array_equal(raw.mask, other[name].mask)


def assert_complete(manifest: Manifest, config: DataConfig) -> None:
    """The cache gives what the files themselves give, bit for bit."""
    cache = ClipCache(manifest, config)
    reader = MediaReader(config.inputs, config.max_duration_s, manifest.locate)
    for clip in manifest.clips:
        assert_same(cache.load(clip), reader.load(clip))


@pytest.mark.parametrize(("workers", "in_memory"), [(0, False), (0, True), (2, False)])
def test_the_cache_gives_what_the_files_give(manifest: Manifest, workers: int, in_memory: bool) -> None:
    config = data_config(manifest, cache_workers=workers, in_memory=in_memory)
    report = build_cache(manifest, config, progress=False)
    assert (report.num_clips, report.num_reused, report.failures, report.unusable) == (8, 0, (), ())
    assert report.absent == {"audio": 2, "video": 2, "flow": 6}
    assert_complete(manifest, config)
    assert_complete(manifest, config)  # once more, from memory where asked for


def test_what_is_read(manifest: Manifest) -> None:
    config = data_config(manifest)
    build_cache(manifest, config, progress=False)
    cache = ClipCache(manifest, config)
    by_files, by_video, sound_only, picture_only = (cache.load(clip) for clip in manifest.clips[:4])
    assert by_files["audio"].data.shape == (4000,)
    assert by_files["audio"].data.dtype == np.float32
    assert by_files["video"].data.shape == (1, 3, 16, 16)
    assert by_files["flow"].data.shape == (2, 5)
    assert by_video["video"].data.shape == (3, 3, 16, 16)
    assert set(sound_only) == {"audio"}
    assert set(picture_only) == {"video"}
    with pytest.raises(ValueError, match="read-only"):
        by_files["audio"].data[0] = 1


def test_a_second_build_reads_nothing(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    config = data_config(manifest)
    first = build_cache(manifest, config, progress=False)

    def refuse(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(building, "read_raw", refuse)
    second = build_cache(manifest, config, progress=False)
    assert (second.num_read, second.num_reused) == (0, first.num_read)


def test_settings_and_content_decide_and_names_do_not(manifest: Manifest, tmp_path: Path) -> None:
    config = data_config(manifest, cache=str(tmp_path / "cache"))
    num = build_cache(manifest, config, progress=False).num_read
    shutil.copytree(manifest.path.parent, tmp_path / "elsewhere")
    moved = read_manifest(tmp_path / "elsewhere" / "manifest.jsonl")
    assert build_cache(moved, config, progress=False).num_read == 0
    scaled = data_config(
        manifest, cache=config.cache, inputs={**INPUTS, "flow": {"kind": "features", "standardize": True}}
    )
    assert build_cache(manifest, scaled, progress=False).num_read == 0
    slower = data_config(
        manifest, cache=config.cache, inputs={**INPUTS, "audio": {"kind": "waveform", "sample_rate_hz": 4000}}
    )
    changed = build_cache(manifest, slower, progress=False)
    assert 0 < changed.num_read < num
    longer = data_config(manifest, cache=config.cache, max_duration_s=0.5)
    assert build_cache(manifest, longer, progress=False).num_read == num
    assert ClipCache(manifest, longer).load(manifest.clips[1])["audio"].data.shape == (4000,)


def test_a_changed_file_is_read_again(manifest: Manifest) -> None:
    config = data_config(manifest)
    build_cache(manifest, config, progress=False)
    shutil.copyfile(manifest.locate("2.wav"), manifest.locate("0.wav"))
    assert build_cache(manifest, config, progress=False).num_read == 0  # the same bytes are known from clip 2
    assert_complete(manifest, config)
    content = bytearray(manifest.locate("2.wav").read_bytes())
    content[-2:] = b"\x11\x11"
    manifest.locate("2.wav").write_bytes(content)
    assert build_cache(manifest, config, progress=False).num_read == 1
    assert_complete(manifest, config)


def test_files_are_hashed_once(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    config = data_config(manifest)
    build_cache(manifest, config, progress=False)
    monkeypatch.setattr("mmfusion.data.contents._hash_file", lambda file: pytest.fail(f"{file} hashed again"))
    assert build_cache(manifest, config, progress=False).num_read == 0


def test_failures_are_named_and_not_tried_for_ever(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest.locate("0.wav").write_bytes(b"this is no sound")
    manifest.locate("2.wav").write_bytes(b"nor is this")
    manifest.locate("3.png").unlink()
    config = data_config(manifest)
    report = build_cache(manifest, config, progress=False)
    assert {(failure.clip_id, failure.input) for failure in report.failures} == {
        ("clip0", "audio"),
        ("clip2", "audio"),
        ("clip3", "video"),
    }
    assert all(
        f"clip {failure.clip_id}, {failure.input}: {failure.path}: " in " ".join(report.lines())
        for failure in report.failures
    )
    assert report.unusable == ("clip2", "clip3")
    assert report.by_reason()["no such file"] == 1
    cache = ClipCache(manifest, config)
    assert [clip.id for clip in cache.usable(manifest.clips[:5])] == ["clip0", "clip1", "clip4"]
    assert set(cache.load(manifest.clips[0])) == {"video", "flow"}

    calls: list[Path] = []

    def spy(path: Path, *rest: object) -> Raw | None:
        calls.append(path)
        return read_raw(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(building, "read_raw", spy)
    again = build_cache(manifest, config, progress=False)
    assert again.failures == report.failures
    assert calls == []
    build_cache(manifest, replace(config, retry_failed=True), progress=False)
    assert {path.name for path in calls} == {"0.wav", "2.wav"}
    shutil.copyfile(manifest.locate("6.wav"), manifest.locate("2.wav"))
    assert build_cache(manifest, config, progress=False).unusable == ("clip3",)


def test_passing_trouble_is_reported_and_tried_again(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    config = data_config(manifest)

    def trouble(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(building, "read_raw", trouble)
        report = build_cache(manifest, config, progress=False)
    assert len(report.failures) == 14
    assert "Input/output error" in " ".join(report.lines())
    assert not ClipCache(manifest, config).usable(manifest.clips)
    assert build_cache(manifest, config, progress=False).failures == ()
    assert_complete(manifest, config)


def test_broken_files_of_one_content_are_named_each(manifest: Manifest) -> None:
    for name in ("0.wav", "2.wav"):
        manifest.locate(name).write_bytes(b"")
    report = build_cache(manifest, data_config(manifest), progress=False)
    named = {Path(failure.path).name: failure.reason for failure in report.failures}
    assert set(named) == {"0.wav", "2.wav"} and all(f"{name}: " in reason for name, reason in named.items())
    assert list(report.by_reason().values()) == [2], "one cause"


def test_a_disk_that_fails_for_a_moment_is_no_fault_of_the_files(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = data_config(manifest)

    def trouble(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("av.open", trouble)
        assert build_cache(manifest, config, progress=False).failures
    assert build_cache(manifest, config, progress=False).failures == ()
    assert_complete(manifest, config)


def crash(path: Path, *rest: object) -> Raw | None:
    if path.name == "4.wav":
        os.kill(os.getpid(), signal.SIGSEGV)
    return read_raw(path, *rest)  # type: ignore[arg-type]


def begin_and_crash(stop: object, began: Any) -> None:
    began.set()
    building.read_raw = crash


def test_a_decoder_that_crashes_costs_one_file(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "_begin_process", begin_and_crash)
    config = data_config(manifest, cache_workers=1)
    report = build_cache(manifest, config, progress=False)
    assert [(failure.clip_id, failure.input) for failure in report.failures] == [("clip4", "audio")]
    assert "crashed" in report.failures[0].reason
    assert report.num_read == 13


def test_a_cache_that_was_not_built_is_refused(manifest: Manifest) -> None:
    with pytest.raises(InputError, match=r"14 inputs .* build it first"):
        ClipCache(manifest, data_config(manifest))


def test_features_must_agree(manifest: Manifest) -> None:
    from mmfusion.data.features import write_features

    config = data_config(manifest)
    write_features(manifest.locate("4.npz"), np.ones((3, 5), np.float32), 4.0)
    build_cache(manifest, config, progress=False)
    with pytest.raises(InputError, match=r"clip4.*flow has 4 steps a second, other clips 2.*data\.inputs\.flow\.rate"):
        ClipCache(manifest, config)
    at_one_rate = data_config(manifest, inputs={**INPUTS, "flow": {"kind": "features", "rate": 3.0}})
    build_cache(manifest, at_one_rate, progress=False)
    assert ClipCache(manifest, at_one_rate).layouts["flow"].rate == 3.0
    write_features(manifest.locate("4.npz"), np.ones((3, 6), np.float32), 2.0)
    build_cache(manifest, config, progress=False)
    with pytest.raises(InputError, match=r"clip4.*6 features a step, other clips 5"):
        ClipCache(manifest, config)


def test_features_are_cut_to_the_clip(tmp_path: Path) -> None:
    from mmfusion.data.features import write_features
    from mmfusion.data.inputs import FeaturesInput

    write_features(tmp_path / "a.npz", np.arange(20, dtype=np.float32)[:, None], 10.0)
    raw = read_raw(tmp_path / "a.npz", FeaturesInput(), 0.3, 0.9)
    assert raw is not None
    assert raw.data[:, 0].tolist() == [3, 4, 5, 6, 7, 8]
    assert read_raw(tmp_path / "a.npz", FeaturesInput(), 5.0, 6.0) is None


def test_damaged_shards_are_made_again(manifest: Manifest) -> None:
    config = data_config(manifest)
    num = build_cache(manifest, config, progress=False).num_read
    (shard,) = (Path(config.cache) / "shards").glob("*.shard")
    shard.write_bytes(shard.read_bytes()[:-5])
    shards._parse.cache_clear()
    report = build_cache(manifest, config, progress=False)
    assert (report.num_damaged, report.num_read) == (1, num)
    assert_complete(manifest, config)
    (Path(config.cache) / "contents.json").write_bytes(b"{")
    assert build_cache(manifest, config, progress=False).num_read == 0


BUILD = """
import sys
from mmfusion.config import load
from mmfusion.data.cache import build_cache
from mmfusion.data.inputs import DataConfig
from mmfusion.data.manifest import read_manifest
from mmfusion.types import InputError

if __name__ == "__main__":
    config = load(DataConfig, sys.argv[1])
    print("begun", flush=True)
    try:
        build_cache(read_manifest(config.manifest), config, progress=False)
    except InputError as error:
        print(error)
        sys.exit(2)
"""


def build_command(config: DataConfig, folder: Path) -> list[str]:
    save(config, folder / "data.yaml")
    (folder / "build.py").write_text(BUILD)
    return [sys.executable, str(folder / "build.py"), str(folder / "data.yaml")]


def test_killed_at_any_moment_and_built_again(manifest: Manifest, root: Path, tmp_path: Path) -> None:
    clips = [replace(clip, id=f"{clip.id}-{cut}", end_s=0.02 * cut) for clip in manifest.clips for cut in range(1, 25)]
    write_manifest(manifest.path, clips)
    manifest = read_manifest(manifest.path)
    config = data_config(manifest, cache_workers=2)
    command = build_command(config, tmp_path)
    cache = Path(config.cache)
    draws = random.Random(1)
    environment = {**os.environ, "PYTHONPATH": str(root)}
    for attempt in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, start_new_session=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            before = len(list(cache.glob("shards/*")))
            deadline = time.monotonic() + 20
            while len(list(cache.glob("shards/*"))) == before and time.monotonic() < deadline:
                time.sleep(0.002)
            time.sleep(draws.uniform(0, 0.15))
            # The parent alone, then everything: children of a killed parent must end by themselves.
            (os.kill if attempt % 2 else os.killpg)(process.pid, signal.SIGKILL)
    report = build_cache(manifest, config, progress=False)
    assert report.failures == ()
    assert report.num_read + report.num_reused == len({*report_keys(manifest, config)})
    assert_complete(manifest, config)
    # Processes whose parent was killed end within the clip that they are at; what they leave goes with the next build.
    deadline = time.monotonic() + 60
    while list(cache.rglob("*.part")) and time.monotonic() < deadline:
        time.sleep(0.1)
        build_cache(manifest, config, progress=False)
    assert not list(cache.rglob("*.part"))


def report_keys(manifest: Manifest, config: DataConfig) -> list[str]:
    from mmfusion.data.wanted import list_wanted

    return [want.key for want in list_wanted(manifest, config, progress=False) if want.key]


def test_a_full_disk_is_one_sentence_and_keeps_what_is_done(manifest: Manifest, root: Path, tmp_path: Path) -> None:
    # A limit on the size of files stands for the end of the disk: a still fits, moving pictures do not.
    config = data_config(manifest, inputs={"video": {"kind": "frames", "rate": 50.0, "size_px": 200}}, cache_workers=1)
    process = subprocess.run(
        build_command(config, tmp_path),
        env={**os.environ, "PYTHONPATH": str(root)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2, process.stderr
    assert process.stdout.splitlines()[1:] == [
        f"{config.cache}: no room left for the cache; what was decoded is kept, make room and run again"
    ]
    assert "Traceback" not in process.stderr
    report = build_cache(manifest, config, progress=False)
    assert report.num_reused > 0
    assert_complete(manifest, config)


def test_a_cache_that_cannot_be_written_is_one_sentence(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    with pytest.raises(InputError, match="taken: the cache cannot be written"):
        build_cache(manifest, data_config(manifest, cache=str(tmp_path / "taken")), progress=False)


def test_what_is_being_written_is_not_taken_for_abandoned(tmp_path: Path) -> None:
    with shards.ShardWriter(tmp_path) as shard:
        remove_leftovers(tmp_path)
        shard.put("a", Raw(np.ones(3, np.float32), np.ones(3, bool), 1.0))
        shard.commit()
    (tmp_path / "abandoned.part").write_bytes(b"half")
    remove_leftovers(tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".shard"]
    assert set(shards.read_index(tmp_path)[0]) == {"a"}


def test_memory_is_bounded(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_store", memory._Store())
    monkeypatch.setattr(memory, "BOUND_BYTES", 60_000)
    config = data_config(manifest, in_memory=True)
    build_cache(manifest, config, progress=False)
    assert_complete(manifest, config)
    assert 0 < memory._store.num_bytes <= 60_000
    kept = set(memory._store.kept)
    other = data_config(manifest, in_memory=True, max_duration_s=0.5)
    build_cache(manifest, other, progress=False)
    assert_complete(manifest, other)
    assert 0 < memory._store.num_bytes <= 60_000
    assert not kept & set(memory._store.kept)


def test_three_thousand_small_clips_load_in_a_second(tmp_path: Path) -> None:
    num = 3000
    folder = tmp_path / "shards"
    with shards.ShardWriter(folder) as shard:
        for number in range(num):
            shard.put(f"a{number}", Raw(np.zeros(8000, np.float32), np.ones(8000, bool), 8000.0))
            shard.put(f"v{number}", Raw(np.zeros((1, 3, 28, 28), np.uint8), np.ones(1, bool), 1.0))
        shard.commit()
    started = time.process_time()
    index, _ = shards.read_index(folder)
    total = 0.0
    for entry in index.values():
        assert isinstance(entry, shards.Stored)
        total += float(shards.read_stored(entry).data.reshape(-1)[0])
    assert len(index) == 2 * num
    assert time.process_time() - started < 1.0
