"""MSR-VTT, AudioCaps and Clotho: sentences as they lie, with media elsewhere or nowhere; references in every form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmfusion.data.catalog.references import read_references
from mmfusion.data.catalog.registry import prepare_set, settings
from mmfusion.data.manifest import read_manifest
from mmfusion.types import InputError

AUDIOCAPS = "audiocap_id,youtube_id,start_time,caption\n"
KOREAN = "새가 운다"


def touch(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return str(folder)


def toy_audiocaps(root: Path) -> None:
    rows = '1,aa,30,"A dog barks, twice"\n2,b-_c,0,Rain\n3,dd,5,Wind\n4,ee,7,Bells\n'
    (root / "audiocaps_train.csv").write_text(AUDIOCAPS + rows)
    (root / "audiocaps_test.csv").write_text(AUDIOCAPS + "5,ff,1,One\n6,ff,1,Two\n7,ff,1,One\n")


def toy_clotho(root: Path) -> None:
    columns = ",".join(f"caption_{n},kor_{n}" for n in range(1, 6))
    sentences = ",".join(f"Bird {n} sings.,{KOREAN}" for n in range(1, 6))
    for part, count in (("development", 4), ("evaluation", 1)):
        rows = "".join(f"{part} {n}.1.wav,{sentences}\n" for n in range(count))
        (root / f"clotho_captions_{part}.csv").write_bytes(f"file_name,{columns}\n{rows}".encode("cp949"))


@pytest.mark.parametrize(
    ("name", "counts", "per_clip"),
    [
        ("audiocaps", {"train": 49838, "val": 495, "test": 975}, {"train": 1, "val": 5, "test": 5}),
        ("clotho", {"train": 2693, "val": 200, "test": 1045}, {"train": 5, "val": 5, "test": 5}),
        ("msrvtt", {"val": 497, "test": 2990}, {"val": 20, "test": 20}),
    ],
)
def test_sets_without_media_become_references(name, counts, per_clip, shared_data: Path, tmp_path: Path) -> None:
    prepared = prepare_set(name, shared_data / "text", tmp_path, settings(name, ()))
    assert prepared.counts == tuple({split: number} for split, number in counts.items())
    assert not (tmp_path / "manifest.jsonl").exists()
    for split, number in counts.items():
        captions = read_references(tmp_path / f"references.{split}.json")
        assert len(captions) == number and {len(texts) for texts in captions.values()} == {per_clip[split]}
    missing = ("msrvtt_train.json",) if name == "msrvtt" else None
    assert prepared.remarks.get("caption files are not there") == missing


@pytest.mark.parametrize(
    ("file", "name"),
    [("audiocaps_test.csv", "audiocaps"), ("clotho_captions_evaluation.csv", "clotho"), ("msrvtt_test.json", "msrvtt")],
)
def test_the_sets_own_files_are_references_as_they_lie(file, name, shared_data: Path, tmp_path: Path) -> None:
    prepare_set(name, shared_data / "text", tmp_path, settings(name, ()))
    assert read_references(shared_data / "text" / file) == read_references(tmp_path / "references.test.json")


def test_usual_names_of_audiocaps_files(tmp_path: Path) -> None:
    toy_audiocaps(tmp_path)
    media = touch(tmp_path / "media", "aa_30.mp4", "train/Yb-_c.wav", "dd_5_15.MKV", "dd_5_15.wav", "ff.flac", "ff.txt")
    prepared = prepare_set("audiocaps", tmp_path, tmp_path / "out", settings("audiocaps", [f"media={media}"]))
    clips = {clip.id: clip for clip in read_manifest(prepared.manifests[0]).clips}
    assert clips["aa_30"].media == {"audio": "../media/aa_30.mp4", "video": "../media/aa_30.mp4"}
    assert clips["b-_c_0"].media == {"audio": "../media/train/Yb-_c.wav"}
    assert clips["dd_5"].media == {"audio": "../media/dd_5_15.wav", "video": "../media/dd_5_15.MKV"}
    assert clips["ff_1"].captions == ("One", "Two", "One") and clips["ff_1"].group == "ff"
    assert prepared.remarks[f"clips have no file under {media}"] == ("ee_7",)
    assert prepared.remarks["caption files are not there"] == ("audiocaps_val.csv",)


def test_clotho_is_cp949_and_some_of_it_validates(tmp_path: Path) -> None:
    toy_clotho(tmp_path)
    files = [f"development/development {n}.1.wav" for n in range(4)] + ["evaluation/evaluation 0.1.wav"]
    media = touch(tmp_path / "media", *files)
    config = settings("clotho", [f"media={media}", "num_val_clips=1", "seed=3"])
    prepared = prepare_set("clotho", tmp_path, tmp_path / "out", config)
    assert prepared.counts == ({"train": 3, "val": 1, "test": 1},) and not prepared.remarks
    clips = read_manifest(prepared.manifests[0]).clips
    assert {clip.captions for clip in clips} == {tuple(f"Bird {n} sings." for n in range(1, 6))}
    assert all(set(clip.media) == {"audio"} and clip.id.endswith(".wav") for clip in clips)
    with pytest.raises(InputError, match="num_val_clips: must leave some of the 4"):
        prepare_set("clotho", tmp_path, tmp_path / "out", settings("clotho", ["num_val_clips=4"]))


def test_msrvtt_clips_with_a_file(tmp_path: Path) -> None:
    (tmp_path / "msrvtt_train.json").write_text(
        json.dumps({"video0": {"3": "a man", "1": "a man"}, "video1": {"2": "b"}})
    )
    media = touch(tmp_path / "media", "TrainValVideo/video0.mp4")
    prepared = prepare_set("msrvtt", tmp_path, tmp_path / "out", settings("msrvtt", [f"media={media}"]))
    (clip,) = read_manifest(prepared.manifests[0]).clips
    assert (clip.id, clip.split, clip.captions) == ("video0", "train", ("a man", "a man"))
    assert set(clip.media) == {"audio", "video"}


@pytest.mark.parametrize("name", ["audiocaps", "clotho", "msrvtt"])
def test_what_is_missing_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"holds none of {name}_"):
        prepare_set(name, tmp_path, tmp_path / "out", settings(name, ()))
    toy_audiocaps(tmp_path)
    toy_clotho(tmp_path)
    (tmp_path / "msrvtt_test.json").write_text('{"video0": {"1": "a"}}')
    more = [f"media={tmp_path / 'nowhere'}"] + (["num_val_clips=1"] if name == "clotho" else [])
    with pytest.raises(InputError, match="nowhere: media: no such folder"):
        prepare_set(name, tmp_path, tmp_path / "out", settings(name, more))
    (tmp_path / "nowhere").mkdir()
    with pytest.raises(InputError, match=r"nowhere: holds no file of any clip \(the first would be "):
        prepare_set(name, tmp_path, tmp_path / "out", settings(name, more))


def test_msvds_lines_are_references(tmp_path: Path) -> None:
    path = tmp_path / "sents.txt"
    path.write_text("vid1\ta man runs\nvid2\ta dog\nvid1\ta man runs\n")
    assert read_references(path) == {"vid1": ["a man runs", "a man runs"], "vid2": ["a dog"]}


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("r.csv", "a,b\n1,2\n", r"r\.csv: its columns \(a, b\) are neither AudioCaps' nor Clotho's"),
        ("r.csv", AUDIOCAPS, r"r\.csv: holds no rows"),
        ("r.csv", AUDIOCAPS + "1,aa,30,\n", r"r\.csv: row 1: caption: must not be empty"),
        ("r.csv", AUDIOCAPS + "1,aa\n", r"r\.csv: row 1: start_time: must not be empty"),
        ("r.json", '{"v": {"1": 2}}', r"r\.json: clip v: must be an object of number and caption"),
        ("r.json", '{"v": {"1": "a"}, "w": ["a"]}', r"r\.json: clip v: must be a list"),
        ("r.txt", "vid1\ta\nvid2 b\n", r"r\.txt:2: must read <clip><TAB><caption>"),
        ("r.txt", "", r"r\.txt:1: must read"),
        ("r.jsonl", '{"id": "a", "media": "a.wav", "split": "test", "group": "g"}', r"captions: no clip of 'test' has"),
    ],
)
def test_broken_references_are_told(file: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(InputError, match=message):
        read_references(tmp_path / file)
    with pytest.raises(InputError, match="nothing: cannot be read"):
        read_references(tmp_path / "nothing")
