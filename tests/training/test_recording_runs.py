"""Runs that learn to separate from recordings of which nothing is known: mixtures of mixtures, MixIT."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_mixtures import LENGTHS, MIXIT, mixture_config

from mmfusion.data.catalog.registry import prepare_set, settings
from mmfusion.data.manifest import Manifest, read_manifest, write_manifest
from mmfusion.data.media import read_sound, write_sound
from mmfusion.data.mixtures.gather import decoded_manifest
from mmfusion.evaluate import evaluate, read_rows
from mmfusion.separate import Windows, separate_files
from mmfusion.training.log import read_log
from mmfusion.training.loop import train
from mmfusion.training.run import RunConfig
from mmfusion.types import Clip, InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from sound_set import RATE, samples

MIXTURE = {"sources": "recordings", **LENGTHS}


def config_of(manifest: Path, folder: Path, **settings: Any) -> RunConfig:
    mixit = {"model__heads": {"separation": MIXIT}, "training__select": "separation.recordings_si_sdri"}
    return mixture_config(manifest, folder, **{"data__mixture": MIXTURE, **mixit, **settings})


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A folder of files in each of which two things are heard, and its manifest, in which nothing is named."""
    folder = tmp_path_factory.mktemp("recordings")
    (folder / "sounds" / "field").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(18):
        sounds = [samples(int(which), 2.0, rng) for which in rng.choice(6, 2, replace=False)]
        write_sound(folder / "sounds" / "field" / f"{number:02d}.wav", np.sum(sounds, axis=0) / 2, RATE)
    prepare_set("folder", folder / "sounds", folder, settings("folder", ()), 1)
    clips = read_manifest(folder / "manifest.jsonl").clips
    write_manifest(folder / "manifest.jsonl", [replace(clip, labels=None) for clip in clips])
    return read_manifest(folder / "manifest.jsonl")


def test_a_folder_without_labels_is_learnt_from_scored_and_separated(recordings: Manifest, tmp_path: Path) -> None:
    run = train(config_of(recordings.path, tmp_path), quiet=True)
    told = {row["figure"] for row in read_log(run.folder / "metrics.csv") if row["split"] == "validation"}
    assert {"loss", "separation.loss", "separation.recordings_si_sdri"} <= told
    figures = evaluate(run, quiet=True)["separation"]
    assert (figures["num_mixtures"], figures["num_recordings"]) == (6, 12)
    # Nothing that reads as if single sources were known.
    assert not {"si_sdri", "si_sdr", "share_of_ideal", "per_label", "num_sources"} & set(figures)
    rows = read_rows(run.folder / "predictions.test.jsonl")
    clips = [[source["clip"] for source in row["truth"]["sources"]] for row in rows]
    test = {clip.id for clip in recordings.split("test")}
    assert all(len(set(own)) == 2 and set(own) <= test for own in clips)
    assert all(row["truth"]["labels"] is None for row in rows)
    mean = np.mean([np.mean([one["si_sdri"] for one in row["separation"]]) for row in rows])
    assert figures["recordings_si_sdri"] == pytest.approx(mean, abs=1e-6)
    path = next((recordings.path.parent / "sounds" / "field").iterdir())
    (found,) = separate_files(run, [path], tmp_path / "out", Windows.of(run))
    sounds = [read_sound(source, RATE) for source in found["sources"]]
    whole = read_sound(path, RATE)
    assert whole is not None and len(sounds) == 4
    parts = [sound.data for sound in sounds if sound is not None]
    np.testing.assert_allclose(np.sum(parts, axis=0), whole.data, atol=1e-4)


def test_recordings_may_have_any_labels(recordings: Manifest, tmp_path: Path) -> None:
    labels = [("dog", "rain"), (), ("rain",), None, ("cow", "dog", "sea")]
    clips = [replace(clip, labels=labels[number % 5]) for number, clip in enumerate(recordings.clips)]
    silent = Clip("pictures", {"video": "x.mp4"}, "train", "pictures")
    manifest = Manifest(recordings.path, (*clips, silent))
    data = config_of(recordings.path, tmp_path).data
    found, left_out = decoded_manifest(manifest, data)
    assert found.clips == tuple(clips) and left_out == {"clips have no media.audio": ["pictures"]}
    with pytest.raises(InputError, match=r"none has media\.audio"):
        decoded_manifest(Manifest(recordings.path, (silent,)), data)


def test_a_label_head_learns_what_recordings_hold_together(recordings: Manifest, tmp_path: Path) -> None:
    labels = [("dog", "rain"), ("rain",), ("dog", "sea")]
    clips = [replace(clip, labels=labels[number % 3], media={"audio": str(recordings.resolve(clip, "audio"))})
             for number, clip in enumerate(recordings.clips)]  # fmt: skip
    write_manifest(tmp_path / "manifest.jsonl", clips)
    heads = {"separation": MIXIT, "labels": {"kind": "labels"}}
    run = train(config_of(tmp_path / "manifest.jsonl", tmp_path, model__heads=heads), quiet=True)
    assert 0 < evaluate(run, quiet=True)["labels"]["map"] <= 1
    known = {clip.id: set(clip.labels or ()) for clip in clips}
    for row in read_rows(run.folder / "predictions.test.jsonl"):
        expected = set.union(*(known[source["clip"]] for source in row["truth"]["sources"]))
        assert row["truth"]["labels"] == sorted(expected)


def test_what_recordings_cannot_give_is_said(recordings: Manifest, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sources: recordings takes clips as they are"):
        config_of(recordings.path, tmp_path, data__mixture={**MIXTURE, "selected_classes": ["a", "b"]})
    isolated = {**MIXTURE, "sources": "isolated"}
    with pytest.raises(InputError, match="no clip can be a source of a mixture"):
        train(config_of(recordings.path, tmp_path, data__mixture=isolated), quiet=True)
    with pytest.raises(InputError, match=r"num_sources is 5, each another, and \d recordings can be used"):
        train(config_of(recordings.path, tmp_path, data__mixture={**MIXTURE, "num_sources": 5}), quiet=True)
