"""Readers of the sets of sounds, on their own files where these are at hand, else on their layout made here."""

from __future__ import annotations

import csv
import io
import json
import pickle
import shutil
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmfusion.data.catalog.audioset import Segment, read_segments
from mmfusion.data.catalog.prepared import read_arrays
from mmfusion.data.catalog.registry import prepare_set, settings
from mmfusion.data.features import read_features
from mmfusion.data.manifest import read_manifest
from mmfusion.types import InputError


def clips_of(path: Path):
    return {clip.id: clip for clip in read_manifest(path).clips}


def write_table(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"sound")
    return path


def test_esc50_keeps_its_folds(shared_data: Path, tmp_path: Path) -> None:
    made = prepare_set("esc50", shared_data / "esc50_16k", tmp_path / "a", settings("esc50", ()))
    assert [path.parent.name for path in made.manifests] == [f"fold-{k}" for k in range(1, 6)]
    assert made.counts == ({"train": 1600, "test": 400},) * 5
    tested = [{clip.id for clip in read_manifest(path).split("test")} for path in made.manifests]
    assert len(set.union(*tested)) == 2000
    clips = read_manifest(made.manifests[0]).clips
    counts = Counter(clip.labels[0] for clip in clips if clip.labels)
    assert set(counts.values()) == {40}
    assert len(read_manifest(made.manifests[0]).label_names()) == 50
    fewer = prepare_set("esc50", shared_data / "esc50_16k", tmp_path / "b", settings("esc50", ["uncertain=drop"]))
    assert len(fewer.remarks["clips whose fold is not certain"]) == 27
    ten = prepare_set("esc50", shared_data / "esc50_16k", tmp_path / "c",
                      settings("esc50", ["subset=esc10", "validate=true"]))  # fmt: skip
    assert ten.counts == ({"train": 240, "val": 80, "test": 80},) * 5
    assert len(read_manifest(ten.manifests[0]).label_names()) == 10


def test_esc50_names_what_is_missing(tmp_path: Path) -> None:
    rows = [{"filename": f"{k}-1-A-0.wav", "fold": k, "category": "dog", "esc10": "True", "src_file": f"{k}"}
            for k in (1, 2, 3)]  # fmt: skip
    write_table(tmp_path / "meta" / "esc50.csv", rows)
    touch(tmp_path / "audio" / "1-1-A-0.wav")
    with pytest.raises(InputError, match="1 folds hold a file, and 2 are needed"):
        prepare_set("esc50", tmp_path, tmp_path / "out", settings("esc50", ()))
    touch(tmp_path / "audio" / "2-1-A-0.wav")
    made = prepare_set("esc50", tmp_path, tmp_path / "out", settings("esc50", ()))
    assert made.remarks == {"files of the table that are missing": ("3-1-A-0.wav",)}
    rows[1]["src_file"] = "1"  # one recording in two folds
    write_table(tmp_path / "meta" / "esc50.csv", rows)
    cut = prepare_set("esc50", tmp_path, tmp_path / "out", settings("esc50", ()))
    assert cut.remarks["are in several of the official folds"] == ("recording 1",)


def test_the_fold_before_the_test_fold_may_validate(tmp_path: Path) -> None:
    rows = [{"filename": f"{fold}-1-A-0.wav", "fold": fold, "category": "dog", "esc10": True, "src_file": fold}
            for fold in range(1, 6)]  # fmt: skip
    write_table(tmp_path / "meta" / "esc50.csv", rows)
    for row in rows:
        touch(tmp_path / "audio" / str(row["filename"]))
    prepare_set("esc50", tmp_path, tmp_path / "out", settings("esc50", ["validate=before"]))
    for test, val in ((5, 4), (1, 5)):
        splits = {
            clip.id[0]: clip.split for clip in clips_of(tmp_path / "out" / f"fold-{test}" / "manifest.jsonl").values()
        }
        assert splits == {str(fold): {test: "test", val: "val"}.get(fold, "train") for fold in range(1, 6)}


def test_urbansound8k_has_ten_folds_and_counts_what_is_missing(shared_data: Path, tmp_path: Path) -> None:
    made = prepare_set("urbansound8k", shared_data / "urbansound8k_samples", tmp_path, settings("urbansound8k", ()))
    assert len(made.remarks["files of the table that are missing"]) == 8722
    assert [path.parent.name for path in made.manifests] == ["fold-1", "fold-3", "fold-5", "fold-7", "fold-10"]
    clips = clips_of(tmp_path / "fold-5" / "manifest.jsonl")
    assert clips["100032-3-0-0"].labels == ("dog_bark",) and clips["100032-3-0-0"].split == "test"
    assert clips["102853-8-0-0"].split == "val"  # fold 7 follows
    assert len(clips) == 10


def test_fsdkaggle2018(tmp_path: Path) -> None:
    root = tmp_path / "set"
    train = [{"fname": f"{n:08x}.wav", "label": "Bark" if n % 2 else "Cello", "manually_verified": int(n < 20),
              "freesound_id": n, "license": "CC0"} for n in range(30)]  # fmt: skip
    test = [{"fname": "00000003.wav", "label": "Cello", "usage": "Public", "freesound_id": 9, "license": "CC0"}]
    write_table(root / "FSDKaggle2018.meta" / "train_post_competition.csv", train)
    write_table(root / "FSDKaggle2018.meta" / "test_post_competition_scoring_clips.csv", test)
    for row in train[:-1]:
        touch(root / "FSDKaggle2018.audio_train" / str(row["fname"]))
    touch(root / "FSDKaggle2018.audio_test" / "00000003.wav")
    made = prepare_set("fsdkaggle2018", root, tmp_path / "a", settings("fsdkaggle2018", ["val_share=0.2"]))
    assert made.counts == ({"train": 25, "val": 4, "test": 1},)
    assert made.remarks == {"files of the tables that are missing": (f"{29:08x}.wav",)}
    held = read_manifest(made.manifests[0]).split("val")
    assert Counter(clip.labels for clip in held) == {("Bark",): 2, ("Cello",): 2}
    prepare_set("fsdkaggle2018", root, tmp_path / "b", settings("fsdkaggle2018", ["unverified=unlabelled"]))
    clips = clips_of(tmp_path / "b" / "manifest.jsonl")
    assert clips[f"train-{25:08x}"].labels is None and clips[f"train-{1:08x}"].labels == ("Bark",)
    made = prepare_set("fsdkaggle2018", root, tmp_path / "c", settings("fsdkaggle2018", ["unverified=drop"]))
    assert sum(made.counts[0].values()) == 21 and len(made.remarks["clips not verified by hand"]) == 10


def openmic_set(root: Path) -> Path:
    """Six clips with VGGish embeddings in the layout of the published npz; 0.5 stands wherever nothing was rated."""
    keys = [f"00000{n}_3840" for n in range(6)]
    truth, mask = np.full((6, 3), 0.5), np.zeros((6, 3), dtype=bool)
    for row, column, value in (
        (0, 0, 0.9),
        (0, 2, 0.1),
        (1, 1, 0.5),
        (2, 0, 0.0),
        (3, 2, 1.0),
        (4, 1, 0.4),
        (5, 0, 0.7),
    ):
        truth[row, column], mask[row, column] = value, True
    root.mkdir(parents=True)
    np.savez(root / "openmic-2018.npz", X=np.arange(6 * 10 * 4, dtype=np.uint8).reshape(6, 10, 4), Y_true=truth,
             Y_mask=mask, sample_key=np.array(keys, dtype=object))  # fmt: skip
    (root / "class-map.json").write_text(json.dumps({"banjo": 1, "accordion": 0, "cello": 2}))
    (root / "partitions").mkdir()
    (root / "partitions" / "split01_train.csv").write_text("\n".join(keys[:4]) + "\n")
    (root / "partitions" / "split01_test.csv").write_text("\n".join(keys[4:]) + "\n")
    write_table(
        root / "openmic-2018-metadata.csv", [{"sample_key": key, "artist_id": n // 2} for n, key in enumerate(keys)]
    )
    return root


def test_openmic_knows_what_was_rated(tmp_path: Path) -> None:
    root = openmic_set(tmp_path / "set")
    made = prepare_set("openmic", root, tmp_path / "out", settings("openmic", ["val_share=0.5"]))
    clips = clips_of(made.manifests[0])
    assert clips["000000_3840"].relevances == {"accordion": 0.9, "cello": 0.1} and clips["000000_3840"].labels is None
    assert clips["000001_3840"].relevances == {"banjo": 0.5}  # rated 0.5, unlike the fill
    assert made.counts == ({"train": 2, "val": 2, "test": 2},)
    assert clips["000000_3840"].group == clips["000001_3840"].group == "artist 0"
    data, _, rate = read_features(tmp_path / "out" / clips["000002_3840"].media["vggish"])
    assert rate == 1.0 and np.array_equal(data, np.arange(80, 120, dtype=np.float32).reshape(10, 4))


def test_openmic_clips_that_lack_one_of_two_files_are_named(tmp_path: Path) -> None:
    root = openmic_set(tmp_path / "set")
    for number in (0, 1, 2, 4):
        touch(root / "audio" / "000" / f"00000{number}_3840.ogg")
    made = prepare_set("openmic", root, tmp_path / "either", settings("openmic", ["val_share=0"]))
    lacking = ("000003_3840", "000005_3840")
    assert made.counts == ({"train": 4, "test": 2},)
    assert made.remarks == {"rated clips with an embedding and without a sound file": lacking}
    made = prepare_set("openmic", root, tmp_path / "both", settings("openmic", ["val_share=0", "media=both"]))
    assert made.counts == ({"train": 3, "test": 1},) and made.remarks == {"rated clips without a file": lacking}
    assert all(set(clip.media) == {"audio", "vggish"} for clip in clips_of(made.manifests[0]).values())


def with_keys(path: Path, pickled: bytes, num: int = 1) -> Path:
    """A .npz whose array `keys` is a pickle, as numpy writes one of `num` objects."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (num,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("keys.npy", header.getvalue() + pickled)
    return path


@pytest.mark.parametrize("dtype", [object, str, bytes])
def test_keys_are_read_however_they_are_stored(dtype: type, tmp_path: Path) -> None:
    keys = ["a", "", "c d"] if dtype is bytes else ["a", "Ü", "", "c d"]
    np.savez(tmp_path / "a.npz", keys=np.array(keys).astype(dtype), other=np.arange(3))
    found = read_arrays(tmp_path / "a.npz", ("keys", "other"), texts=["keys"])
    assert found["keys"] == keys and found["other"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("core", ["core", "_core"])
def test_keys_are_read_whichever_numpy_wrote_them(protocol: int, core: str, tmp_path: Path) -> None:
    """numpy before 1.16 wrote protocol 2, and before 2.0 another name of its core, which is shorter by a letter."""
    pickled = pickle.dumps(np.array(["a", "b", "b"], dtype=object), protocol=protocol)
    other = b"numpy.core.multiarray" if core == "core" else b"numpy._core.multiarray"
    if protocol < 4:
        pickled = pickled.replace(b"numpy._core.multiarray", other)
    path = with_keys(tmp_path / "a.npz", pickled, 3)
    assert read_arrays(path, ("keys",), texts=["keys"])["keys"] == ["a", "b", "b"]


class Evil:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


class Forged:
    """An object array whose kind says that its items are plain bytes, and whose bytes are an address."""

    def __reduce__(self) -> Any:
        kind = Evil(np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0))
        return np.ndarray, ((1,), kind, b"AAAAAAAA")


ODD = {
    "call": [Evil(Path.touch, (Path("evil"),))], "numbers": [1, 2], "bytes": [b"a"], "builtin": [print],
    "nested": [["a"]], "dtype": [np.dtype("f8")], "scalar": [np.float64(0)], "array": [np.zeros(3)],
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_a_pickle_that_holds_more_than_texts_is_refused_and_not_run(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    items = np.empty(len(ODD[kind]), dtype=object)
    items[:] = ODD[kind]
    np.savez(tmp_path / "a.npz", keys=items)
    with pytest.raises(InputError, match=r"a\.npz: not a readable .npz file: keys: not a list of texts"):
        read_arrays(tmp_path / "a.npz", ("keys",), texts=["keys"])
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("pickled", [
    pickle.dumps(Forged()), pickle.dumps(Evil(np.ndarray, ((1 << 40,), "f8"))), pickle.dumps(Evil(np.dtype, ("(1,2",))),
    b"\x80\x04\x8e" + (1 << 40).to_bytes(8, "little") + b".", b"", pickle.dumps("a"), pickle.dumps(None),
    pickle.dumps(np.array(["a", "b"], dtype=object)),
])  # fmt: skip
def test_pickles_that_are_no_array_of_texts_are_refused(pickled: bytes, tmp_path: Path) -> None:
    path = with_keys(tmp_path / "a.npz", pickled)
    with pytest.raises(InputError, match=r"a\.npz: not a readable .npz file: keys: not a list of texts"):
        read_arrays(path, ("keys",), texts=["keys"])


def test_numbers_are_no_texts(tmp_path: Path) -> None:
    for odd in (np.arange(3), np.array([["a", "b"]])):
        np.savez(tmp_path / "a.npz", keys=odd)
        with pytest.raises(InputError, match=r"keys: not a list of texts but an array \("):
            read_arrays(tmp_path / "a.npz", ("keys",), texts=["keys"])


def test_openmic_ratings_that_are_no_numbers(shared_data: Path, tmp_path: Path) -> None:
    shutil.copytree(shared_data / "mirdata_openmic_irmas_samples" / "openmic2018", tmp_path / "set")
    table = tmp_path / "set" / "openmic-2018-aggregated-labels.csv"
    table.write_text(table.read_text().replace("0.17104999999999998", "much"))
    with pytest.raises(InputError, match=r"labels.csv: row \d+: relevance: 'much' is no number"):
        prepare_set("openmic", tmp_path / "set", tmp_path / "out", settings("openmic", ()))


def test_openmic_from_its_files(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "mirdata_openmic_irmas_samples" / "openmic2018"
    made = prepare_set("openmic", root, tmp_path, settings("openmic", ["val_share=0"]))
    (clip,) = read_manifest(made.manifests[0]).clips
    assert clip.split == "train" and clip.group == "artist 4" and (tmp_path / clip.media["audio"]).exists()
    assert clip.relevances is not None and clip.relevances["clarinet"] == pytest.approx(0.17105)
    assert clip.relevances["flute"] == 0.0 and "piano" not in clip.relevances


def test_irmas(shared_data: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(shared_data / "mirdata_openmic_irmas_samples" / "irmas", root)
    for n in range(1, 8):
        for part in (1, 2):
            # Both forms of the set: with a number in front where drums are spoken of, and without.
            name = f"[pia][cla]{n:04d}__{part}" if n % 2 else f"{n + 90:03d}__[pia][nod][jaz_blu]{n:04d}__{part}"
            touch(root / "IRMAS-TrainingData" / "pia" / f"{name}.wav")
    touch(root / "IRMAS-TrainingData" / "pia" / "001__[org][nod][cla]0009__1.wav")
    touch(root / "IRMAS-TrainingData" / "pia" / "piano.wav")
    tests = root / "IRMAS-TestingData-Part1" / "Part1"
    touch(tests / "no note-1.wav")
    touch(tests / "loud-1.WAV")
    for name in ("loud-1.txt", "no sound-2.txt"):
        (tests / name).write_text("voi")
    made = prepare_set("irmas", root, tmp_path / "out", settings("irmas", ["val_share=0.3"]))
    assert made.counts == ({"train": 11, "val": 4, "test": 2},)
    odd = ("pia/001__[org][nod][cla]0009__1.wav", "pia/piano.wav")
    assert set(made.remarks.values()) == {odd, ("no note-1.wav",), ("no sound-2.txt",)}
    clips = read_manifest(made.manifests[0]).clips
    test, _ = [clip for clip in clips if clip.split == "test"]
    assert test.labels == ("electric guitar", "voice") and test.group == "test piece 02 - And The Body Will Die"
    assert Counter(clip.labels for clip in clips if clip.split != "test") == {("piano",): 14, ("clarinet",): 1}
    told = {(clip.group, clip.genre) for clip in clips if clip.labels == ("piano",)}
    assert told == {(f"piece pia {n:04d}", "cla" if n % 2 else "jaz_blu") for n in range(1, 8)}


def test_nsynth_shares_no_instrument(tmp_path: Path) -> None:
    root = tmp_path / "set"
    plays = {"train": [f"bass_{n}" for n in range(10)], "valid": ["organ_1", "organ_2"], "test": ["organ_2"]}
    for part, instruments in plays.items():
        notes = {}
        for instrument in instruments:
            for pitch in (60, 61):
                name = f"{instrument}_{part}-{pitch}"
                notes[name] = {"instrument_str": instrument, "instrument_family_str": instrument.split("_")[0],
                               "instrument_source_str": "acoustic", "qualities_str": ["bright"]}  # fmt: skip
                touch(root / f"nsynth-{part}" / "audio" / f"{name}.wav")
        (root / f"nsynth-{part}" / "examples.json").write_text(json.dumps(notes))
    made = prepare_set("nsynth", root, tmp_path / "a", settings("nsynth", ()))
    assert made.counts == ({"train": 18, "val": 2, "test": 2},)
    made = prepare_set("nsynth", root, tmp_path / "b", settings("nsynth", ["validation=valid", "label=qualities"]))
    assert made.counts == ({"train": 20, "val": 2, "test": 2},)
    assert len(made.remarks["validation notes whose instrument is tested"]) == 2
    assert {clip.labels for clip in read_manifest(made.manifests[0]).clips} == {("bright",)}


SEGMENTS = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=2, num_segs=2, num_unique_labels=2, num_positive_labels=3
# YTID, start_seconds, end_seconds, positive_labels
--4gqARaEJE, 0.000, 10.000, "/m/068hy,/m/07q6cd_"
--BfvyPmVMo, 20.000, 30.000, "/m/03l9g"
"""


def test_audioset_segments(shared_data: Path, tmp_path: Path) -> None:
    root, media = tmp_path / "set", tmp_path / "media"
    root.mkdir()
    (root / "balanced_train_segments.csv").write_text(SEGMENTS)
    (root / "eval_segments.csv").write_text('-0RWZT-miFs, 420.000, 430.000, "/m/03v3yw"\n')
    shutil.copy(shared_data / "audioset_labels" / "audioset_ontology.json", root / "ontology.json")
    assert next(read_segments(root / "balanced_train_segments.csv")) == Segment(
        "--4gqARaEJE", 0.0, 10.0, ("/m/068hy", "/m/07q6cd_")
    )
    touch(media / "a" / "Y--4gqARaEJE_0.000_10.000.wav")
    touch(media / "-0RWZT-miFs_420.mp4")
    made = prepare_set("audioset", root, tmp_path / "out", settings("audioset", [f"media={media}", "val_share=0"]))
    assert made.counts == ({"train": 1, "test": 1},)
    assert made.remarks == {"segments without a file": ("--BfvyPmVMo_20",)}
    clips = clips_of(made.manifests[0])
    assert clips["--4gqARaEJE_0"].labels == ("Domestic animals, pets", "Squeak")
    assert set(clips["-0RWZT-miFs_420"].media) == {"audio", "video"}
    (root / "eval_segments.csv").write_text("-0RWZT-miFs, early, 430.000, x\n")
    with pytest.raises(InputError, match=r"eval_segments\.csv:1: must read YTID"):
        prepare_set("audioset", root, tmp_path / "out", settings("audioset", [f"media={media}"]))


def test_audioset_without_media_says_what_segments_there_are(shared_data: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    (root / "balanced_train_segments.csv").write_text(SEGMENTS)
    (root / "eval_segments.csv").write_text('-0RWZT-miFs, 420.000, 430.000, "/m/03v3yw,/m/none"\n')
    shutil.copy(shared_data / "audioset_labels" / "audioset_ontology.json", root / "ontology.json")
    made = prepare_set("audioset", root, tmp_path / "out", settings("audioset", ()))
    assert [path.name for path in made.manifests] == ["segments.train.jsonl", "segments.test.jsonl"]
    assert made.counts == ({"train": 2}, {"test": 1}) and made.remarks == {"classes without a name": ("/m/none",)}
    train, test = ([json.loads(line) for line in path.read_text().splitlines()] for path in made.manifests)
    labels = ["Domestic animals, pets", "Squeak"]
    assert train[0] == {"id": "--4gqARaEJE_0", "video": "--4gqARaEJE", "start_s": 0, "end_s": 10, "labels": labels}
    assert test[0]["labels"] == ["Keys jangling"]


def test_audioset_embeddings(shared_data: Path, tmp_path: Path) -> None:
    pairs = ["embeddings=audioset_vggish_mini.npz"]
    made = prepare_set("audioset", shared_data / "audioset_vggish_mini", tmp_path, settings("audioset", pairs))
    clips = read_manifest(made.manifests[0]).clips
    assert len(clips) == 975 and set(made.counts[0]) == {"train", "val", "test"}
    assert sum(len(clip.labels or ()) for clip in clips) == pytest.approx(2.02 * 975, abs=10)
    shorter = 0
    for clip in clips:
        data, mask, rate = read_features(tmp_path / clip.media["vggish"])
        assert data.shape == (10, 128) and rate == 1.0
        shorter += not mask.all()
    assert shorter == 7
