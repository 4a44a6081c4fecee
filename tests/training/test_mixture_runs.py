"""A run on mixtures that are made on the fly: trained, evaluated and described like any other."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_mixtures import mixture_config

from mmfusion.config import validate
from mmfusion.data.clips import ClipCache
from mmfusion.data.manifest import read_manifest
from mmfusion.data.mixtures.make import Order, make_mixtures
from mmfusion.evaluate import evaluate, read_rows
from mmfusion.training.loop import train
from mmfusion.training.run import RunConfig
from mmfusion.types import InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from sound_set import write_sounds


def config_of(manifest: Path, folder: Path, **settings: Any) -> RunConfig:
    tagging = {
        "model__encoders": {"audio": {"kind": "spectrogram_cnn", "rate": 2, "channels": [4, 4], "width": 8}},
        "model__heads": {"labels": {"kind": "labels"}},
        "training__select": "labels.map",
    }
    return mixture_config(manifest, folder, **{**tagging, **settings})


def test_a_run_on_mixtures(tmp_path: Path) -> None:
    manifest = write_sounds(tmp_path / "set")
    run = train(config_of(manifest.path, tmp_path), quiet=True)
    figures = evaluate(run, quiet=True)
    assert figures["num_clips"] == 6 and 0 < figures["labels"]["map"] <= 1
    rows = read_rows(run.folder / "predictions.test.jsonl")
    assert [row["id"] for row in rows] == [f"mix-test-{number:05d}" for number in range(6)]
    assert all(len(row["truth"]["labels"]) == 2 for row in rows)
    assert list(rows[0]["labels"]) == list(run.labels()) == [f"class {number}" for number in range(5)]
    facts = run.read_json("provenance.json")
    assert set(facts["splits"]) == {"train", "val", "test"} and facts["splits"]["test"] == figures["clips"]
    # Another run seed sees the same test mixtures, another mixture seed others.
    other = evaluate(train(config_of(manifest.path, tmp_path, seed=1), quiet=True), quiet=True)
    assert other["clips"] == figures["clips"]
    config = config_of(manifest.path, tmp_path, name="others", data__mixture__seed=1, training__epochs=0)
    assert evaluate(train(config, quiet=True), quiet=True)["clips"] != figures["clips"]


def test_a_mixture_is_longer_than_what_is_read_of_its_clips(tmp_path: Path) -> None:
    manifest = write_sounds(tmp_path / "set")
    mixture = {"num_sources": 2, "duration_s": 3.0, "num_train": 4, "num_validation": 2, "num_test": 8}
    config = config_of(manifest.path, tmp_path, data__mixture=mixture, data__max_duration_s=1.0, training__epochs=0)
    run = train(config, quiet=True)
    evaluate(run, quiet=True)
    rows = read_rows(run.folder / "predictions.test.jsonl")
    events = [event for row in rows for event in row["truth"]["events"]]
    assert len(events) == 16 and max(end_s for _, _, end_s in events) > 2.0


def test_a_set_with_films_trains_with_pictures(tmp_path: Path) -> None:
    """What `tools/mix.py --with_video` writes is an audio-visual data set like any other."""
    sounds = write_sounds(tmp_path / "set", pictures=True)
    tree = {"manifest": str(sounds.path), "out": str(tmp_path / "films"), "cache": str(tmp_path / "cache"), "count": 4,
            "mixture": {"num_sources": 2, "duration_s": 2.0}, "sample_rate_hz": 8000, "with_video": 1}  # fmt: skip
    (path,) = make_mixtures(validate(Order, tree, "mix"), progress=False).manifests
    frames = {"kind": "frames", "rate": 4, "size_px": 16}
    config = config_of(
        path,
        tmp_path,
        data__inputs={"audio": {"kind": "waveform", "sample_rate_hz": 8000}, "video": frames},
        data__mixture=None,
        model__encoders={
            "audio": {"kind": "spectrogram_cnn", "rate": 2, "channels": [4, 4], "width": 8},
            "video": {"kind": "frame_cnn", "width": 8, "channels": [4, 4]},
        },
        model__fusion={"depth": "deep", "join": {"kind": "concat"}, "rate": 2},
    )
    run = train(config, quiet=True)
    assert evaluate(run, quiet=True)["num_clips"] == 4
    cache = ClipCache(read_manifest(path), run.config.data)
    for clip in read_manifest(path).clips:
        (seen,) = [source for source in clip.sources if source.seen]
        raw = cache.load_input(clip, "video")
        assert raw is not None and raw.mask.all() and len(raw.mask) == 8
        # The grey says the class (`write_sounds`): 40 + 10 x class + 4 x second.
        begins_s = np.arange(8) / 4
        inside = (begins_s >= seen.start_s + 0.1) & (begins_s < seen.end_s - 0.1)
        grey = raw.data[inside].mean(axis=(1, 2, 3))
        least = 40 + 10 * int(seen.label[-1])
        assert inside.any() and (grey > least - 4).all() and (grey < least + 12).all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model__heads__labels__target": "single"}, r"model\.heads\.labels: a mixture"),
        ({"training__cache_frozen": True}, r"training\.cache_frozen: mixtures"),
        ({"training__sampling": "balanced"}, r"training\.sampling: the classes of mixtures"),
    ],
)
def test_what_does_not_go_with_mixtures(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        config_of(tmp_path / "manifest.jsonl", tmp_path, **settings)
