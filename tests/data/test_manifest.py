"""A manifest is written and read back unchanged, or refused with `file:line` and the field at fault."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfusion.data.manifest import check_groups, read_manifest, write_manifest
from mmfusion.types import Clip, InputError, Source

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
CAPTIONS = st.text(st.characters(codec="utf-8"), max_size=20).map(lambda text: f"a {text}")
TIMES = st.floats(0, 1e4, allow_nan=False)
SPANS = st.tuples(TIMES, st.floats(0.001, 100)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@st.composite
def clips(draw):
    ids = draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))
    split_of = draw(st.dictionaries(NAMES, st.sampled_from(["train", "val", "test"]), min_size=1, max_size=4))
    return tuple(_clip(draw, name, split_of) for name in ids)


def _clip(draw, name, split_of) -> Clip:
    group = draw(st.sampled_from(sorted(split_of)))
    start_s, end_s = draw(SPANS)
    source = st.builds(
        lambda label, span, seen, heard, media: Source(label, *span, seen, heard, media),
        NAMES, SPANS, st.booleans(), st.booleans(), st.none() | NAMES,
    )  # fmt: skip
    return Clip(
        id=name,
        media=draw(st.dictionaries(NAMES, NAMES, min_size=1, max_size=3)),
        split=split_of[group],
        group=group,
        start_s=start_s,
        end_s=draw(st.none() | st.just(end_s)),
        labels=draw(st.none() | st.lists(NAMES, max_size=3).map(tuple)),
        relevances=draw(st.none() | st.dictionaries(NAMES, st.floats(0, 1), max_size=3)),
        captions=draw(
            st.lists(st.text(st.characters(codec="utf-8"), max_size=20).map("a".__add__), max_size=3).map(tuple)
        ),
        sources=draw(st.lists(source, max_size=2).map(tuple)),
    )


@settings(max_examples=60, deadline=None)
@given(clips())
def test_what_is_written_is_read(tmp_path_factory, written):
    path = tmp_path_factory.mktemp("manifest") / "manifest.jsonl"
    write_manifest(path, written)
    manifest = read_manifest(path)
    assert manifest.clips == written
    assert [file.name for file in path.parent.iterdir()] == ["manifest.jsonl"]
    first = path.read_bytes()
    write_manifest(path, manifest.clips)
    assert path.read_bytes() == first
    assert sorted(clip.id for name in manifest.splits for clip in manifest.split(name)) == sorted(c.id for c in written)


GOOD = {"id": "a", "media": {"audio": "a.wav"}, "split": "train", "group": "g"}


def written(tmp_path, *lines):
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"labls": ["x"]}, r"labls: unknown key \(did you mean labels\?\)"),
        ({"zzzz": 1}, r"zzzz: unknown key \(valid: id, media"),
        ({"id": 3}, "id: .*string.*3"),
        ({"id": ""}, "id: must not be empty"),
        ({"split": None}, "split: "),
        ({"group": ""}, "group: "),
        ({"media": {}}, "media: "),
        ({"media": {"audio": ""}}, "media: "),
        ({"media": {"audio": 4}}, r"media\.audio: "),
        ({"media": ["a.wav"]}, "media: "),
        ({"start_s": "1"}, "start_s: .*'1'"),
        ({"start_s": -1}, "start_s: must not be negative"),
        ({"start_s": True}, "start_s: "),
        ({"start_s": 2.0, "end_s": 2.0}, "end_s: must be after"),
        ({"labels": "bell"}, "labels: .*'bell'"),
        ({"labels": ["bell", 2]}, r"labels\.1: "),
        ({"relevances": {"bell": 1.5}}, r"relevances\.bell: must be between 0 and 1"),
        ({"captions": [None]}, r"captions\.0: "),
        ({"captions": ["a dog", "..."]}, r"captions\.1: has no word, got '\.\.\.'"),
        ({"sources": [{"label": "bell", "start_s": 1.0}]}, r"sources\.0\.end_s: field required"),
        ({"sources": [{"label": "bell", "start_s": 1.0, "end_s": 0.5}]}, r"sources\.0\.end_s: "),
        ({"sources": [{"label": "b", "start_s": 1, "end_s": 2, "sen": True}]}, r"sources\.0\.sen: .*did you mean seen"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named(tmp_path, change, field):
    path = written(tmp_path, GOOD, "", GOOD | {"id": "b"} | change)
    with pytest.raises(InputError, match=rf"manifest\.jsonl:3: {field}") as caught:
        read_manifest(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["id", "media", "split", "group"])
def test_a_missing_field_is_named(tmp_path, key):
    path = written(tmp_path, {name: value for name, value in GOOD.items() if name != key})
    with pytest.raises(InputError, match=f":1: {key}: field required"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "b", ', "not a line of JSON"),
        ("[1, 2]", "must be a JSON object"),
        ('{"id": "b", "id": "c", "media": "x", "split": "s", "group": "g"}', "key 'id' stands twice"),
        ('{"id": "b", "media": "x", "split": "s", "group": "g", "start_s": NaN}', "start_s: "),
        ("\x00\x01", "not a line of JSON"),
        ("[" * 100000, "not a line of JSON"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, message):
    path = written(tmp_path, GOOD, line)
    with pytest.raises(InputError, match=rf"manifest\.jsonl:2: .*{message}"):
        read_manifest(path)


def test_bytes_that_are_not_utf8(tmp_path):
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(b'{"id": "\xff\xfe"}\n')
    with pytest.raises(InputError, match=":1: not a line of JSON"):
        read_manifest(path)


def test_files_that_are_no_manifest(tmp_path):
    with pytest.raises(InputError, match="no such manifest"):
        read_manifest(tmp_path / "missing.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        read_manifest(tmp_path)
    with pytest.raises(InputError, match="holds no clips"):
        read_manifest(written(tmp_path, "", "  "))


def test_an_id_stands_once(tmp_path):
    with pytest.raises(InputError, match=r":2: id: 'a' is already on line 1"):
        read_manifest(written(tmp_path, GOOD, GOOD))
    clip = Clip("a", {"audio": "a.wav"}, "train", "g")
    with pytest.raises(InputError, match="clip 'a': id: is given to two clips"):
        write_manifest(tmp_path / "out.jsonl", [clip, clip])
    assert not (tmp_path / "out.jsonl").exists()


def test_a_group_stays_in_one_split(tmp_path):
    clips = [Clip("a", {"audio": "a"}, "train", "anna"), Clip("b", {"audio": "b"}, "test", "anna")]
    message = "group: 'anna' is in two splits, 'train' .clip 'a'. and 'test' .clip 'b'."
    for call in (lambda: check_groups(clips), lambda: write_manifest(tmp_path / "m.jsonl", clips)):
        with pytest.raises(InputError, match=message):
            call()
    assert list(tmp_path.iterdir()) == []
    check_groups(clips, allow_shared=True)
    write_manifest(tmp_path / "m.jsonl", clips, allow_shared=True)
    assert read_manifest(tmp_path / "m.jsonl").clips == tuple(clips)


def test_a_clip_that_cannot_be_read_back_is_not_written(tmp_path):
    for clip in (Clip("", {"audio": "a"}, "s", "g"), Clip("a", {}, "s", "g"), Clip("a", {"a": "b"}, "s", "g", 2, 1)):
        with pytest.raises(InputError):
            write_manifest(tmp_path / "m.jsonl", [clip])
    with pytest.raises(InputError, match="at least one clip"):
        write_manifest(tmp_path / "m.jsonl", [])
    assert list(tmp_path.iterdir()) == []


def test_paths_start_at_the_manifests_folder(tmp_path):
    manifest = read_manifest(written(tmp_path, GOOD | {"media": "clips/a.mp4"}, GOOD | {"id": "b"}))
    both, sound = manifest.clips
    assert dict(both.media) == {"audio": "clips/a.mp4", "video": "clips/a.mp4"}
    assert manifest.resolve(both, "video") == manifest.resolve(both, "audio") == tmp_path / "clips" / "a.mp4"
    assert manifest.resolve(sound, "video") is None
    assert manifest.locate(str(tmp_path / "elsewhere.wav")) == tmp_path / "elsewhere.wav"


def test_labels_splits_and_hashes(tmp_path):
    path = written(
        tmp_path,
        GOOD | {"labels": ["bell", "ant"]},
        GOOD | {"id": "b", "split": "test", "group": "h", "relevances": {"cow": 0.5}},
        GOOD | {"id": "c", "labels": []},
        {**{key: GOOD[key] for key in GOOD if key != "labels"}, "id": "d", "split": "val", "group": "i",
         "sources": [{"label": "dog", "start_s": 0.0, "end_s": 1.0}]},
    )  # fmt: skip
    manifest = read_manifest(path)
    assert manifest.label_names() == ("ant", "bell", "cow", "dog") and manifest.splits == ("train", "test", "val")
    assert manifest.clips[1].labels is None and manifest.clips[2].labels == ()
    assert [clip.id for clip in manifest.split("train")] == ["a", "c"]
    with pytest.raises(InputError, match=r"split: no clip is in 'dev' \(splits here: train, test, val\)"):
        manifest.split("dev")
    first = manifest.fingerprint(manifest.split("train"))
    assert len(first) == 64 and first == manifest.fingerprint(manifest.split("train"))
    assert first != manifest.fingerprint(manifest.split("train")[::-1]) != manifest.fingerprint(manifest.clips)
    before = manifest.file_hash()
    path.write_text(path.read_text() + "\n")
    assert manifest.file_hash() != before and len(before) == 64
