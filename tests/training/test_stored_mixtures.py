"""Runs on mixtures that tools/mix.py wrote: the same figures as on the fly, training, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_mixtures import mixture_config

from mmfusion.config import validate
from mmfusion.data.manifest import read_manifest, write_manifest
from mmfusion.data.media import read_sound, write_sound
from mmfusion.data.mixtures.make import Order, make_mixtures
from mmfusion.data.mixtures.table import read_table
from mmfusion.evaluate import evaluate, in_float32, read_rows
from mmfusion.training.loop import train
from mmfusion.training.run import Run
from mmfusion.training.setup import Material, open_material
from mmfusion.types import Clip, InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from sound_set import RATE, write_sounds

WRITTEN: dict[str, Any] = {"data__mixture": None, "data__stored_sources": 2}


def write_mixtures(sounds: Path, out: Path, **mixture: Any) -> Path:
    order = {
        "manifest": str(sounds), "out": str(out), "cache": str(sounds.parent / "cache"), "sample_rate_hz": RATE,
        "mixture": {"num_sources": 2, "duration_s": 1.0, **mixture}, "count": 6,
    }  # fmt: skip
    make_mixtures(validate(Order, order, "mix"), progress=False)
    return out / "manifest.jsonl"


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sounds(tmp_path_factory.mktemp("sounds")).path


@pytest.fixture(scope="module")
def written(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six mixtures a split: those of tiny_mixtures.MIXTURE, as far as it makes them."""
    return write_mixtures(sounds, tmp_path_factory.mktemp("mixed"))


def material_of(manifest: Path, folder: Path, **settings: Any) -> tuple[Run, Material]:
    run = Run.create(mixture_config(manifest, folder, **{**WRITTEN, **settings}))
    return run, open_material(run, in_float32(), quiet=True)


def test_a_written_set_gives_the_figures_of_mixtures_on_the_fly(sounds: Path, written: Path, tmp_path: Path) -> None:
    fly = train(mixture_config(sounds, tmp_path, name="fly"), quiet=True)
    expected = evaluate(fly, quiet=True)
    stored = mixture_config(written, tmp_path, name="stored", training__epochs=0, training__select=None,
                       training__start_from=str(fly.folder), **WRITTEN)  # fmt: skip
    run = train(stored, quiet=True)
    found = evaluate(run, quiet=True)
    for name in ("si_sdri", "si_sdr", "ideal_si_sdri"):
        assert found["separation"][name] == pytest.approx(expected["separation"][name], abs=0.02)
    assert found["labels"]["map"] == pytest.approx(expected["labels"]["map"], abs=0.01)
    theirs = read_rows(fly.folder / "predictions.test.jsonl")
    for row, other in zip(read_rows(run.folder / "predictions.test.jsonl"), theirs, strict=True):
        assert row["id"] == other["id"] and row["truth"] == other["truth"]
    # A set that lacks one of the classes is tested with the classes of the run.
    (few := tmp_path / "few").mkdir()
    clips = [
        replace(clip, media={key: str(written.parent / file) for key, file in clip.media.items()},
                sources=tuple(replace(source, media=str(written.parent / source.media)) for source in clip.sources))
        for clip in read_manifest(written).clips
        if fly.labels()[0] not in (clip.labels or ())
    ]  # fmt: skip
    write_manifest(few / "manifest.jsonl", clips)
    fewer = train(
        replace(stored, name="few", data=replace(stored.data, manifest=str(few / "manifest.jsonl"))), quiet=True
    )
    assert fewer.labels() == fly.labels() != read_manifest(few / "manifest.jsonl").label_names()
    assert evaluate(fewer, quiet=True)["num_clips"] == sum(clip.split == "test" for clip in clips)
    assert found["clips"] != expected["clips"], "written mixtures are rounded: not the same clips in one table"


def test_targets_are_the_files_and_sum_to_the_mixture(written: Path, tmp_path: Path) -> None:
    run, material = material_of(written, tmp_path)
    clips = material.clips("test")
    (batch,) = material.loader(clips, [list(range(len(clips)))], run.config, training=False)
    sources = batch.targets.sources
    assert sources is not None and batch.targets.source_mask is not None and batch.targets.source_mask.all()
    assert sources.shape == (6, 2, RATE)
    assert batch.targets.source_classes is not None
    named = [[run.labels()[place] for place in row] for row in batch.targets.source_classes.tolist()]
    assert named == [[source.label for source in clip.sources] for clip in clips]
    assert torch.equal(sources.sum(1), batch.inputs["audio"].data)
    table, _ = read_table(written.parent / "test" / f"{clips[3].id}.csv")
    assert [source.clip for source in clips[3].sources] == [part.clip.id for part in table.recipe.parts]
    second = read_sound(written.parent / str(clips[3].sources[1].media), RATE)
    assert second is not None and np.array_equal(sources[3, 1].numpy(), second.data)


def test_a_run_trains_on_a_written_set(written: Path, tmp_path: Path) -> None:
    run = train(mixture_config(written, tmp_path, training__epochs=1, **WRITTEN), quiet=True)
    assert evaluate(run, quiet=True)["separation"]["num_mixtures"] == 6
    assert not (run.folder / "left_out.json").exists()


def copied(written: Path, folder: Path, change: Callable[[Clip], Clip] = lambda clip: clip) -> Path:
    shutil.copytree(written.parent, folder)
    write_manifest(folder / "manifest.jsonl", [change(clip) for clip in read_manifest(written).clips])
    return folder / "manifest.jsonl"


def test_mixtures_that_cannot_be_read_are_left_out_and_named(written: Path, tmp_path: Path) -> None:
    manifest = copied(written, tmp_path / "copy")
    first, second, *_ = read_manifest(manifest).split("test")
    (manifest.parent / str(first.sources[1].media)).unlink()
    (manifest.parent / second.media["audio"]).write_bytes(b"no sound")
    run, material = material_of(manifest, tmp_path)
    assert [clip.id for clip in material.clips("test")] == [f"mix-test-{number:05d}" for number in range(2, 6)]
    (named,) = json.loads((run.folder / "left_out.json").read_text()).values()
    assert named == [first.id, second.id]


def test_what_are_no_sources_of_a_clip_is_said(sounds: Path, written: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'mix-train-00000': sources: data\.stored_sources is 3, and this clip has 2"):
        material_of(written, tmp_path, data__stored_sources=3)
    with pytest.raises(InputError, match=r"has 0 sources, 0 of them with an isolated sound"):
        material_of(sounds, tmp_path)
    swapped = copied(written, tmp_path / "swapped", lambda clip: replace(clip, sources=(clip.sources[0],) * 2))
    run, material = material_of(swapped, tmp_path)
    with pytest.raises(InputError, match="sources: they do not sum to the sound of the clip"):
        list(material.loader(material.clips("test"), [[0]], run.config, training=False))
    clip = material.clips("test")[0]
    write_sound(swapped.parent / str(clip.sources[0].media), np.full(RATE // 2, 0.1), RATE)
    run, material = material_of(swapped, tmp_path)
    with pytest.raises(InputError, match=r"\.wav has 4000 samples, and the clip 8000"):
        list(material.loader(material.clips("test"), [[0]], run.config, training=False))


def test_other_levels_are_other_clips(sounds: Path, written: Path, tmp_path: Path) -> None:
    """The same clips at the same places: the two manifests are the same, the mixtures are not."""
    other = write_mixtures(sounds, tmp_path / "other", snr_db=[0.0, 0.0])
    assert other.read_bytes() == written.read_bytes()
    prints = []
    for number, manifest in enumerate((written, other, written)):
        _, material = material_of(manifest, tmp_path, name=f"run{number}")
        prints.append(material.manifest.fingerprint(material.clips("test")))
    assert prints[0] == prints[2] != prints[1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"data__mixture": {}}, "stored_sources are those of mixtures in files, and mixture makes others"),
        ({"data__augment": {"gain_db": [-3.0, 3.0]}}, r"augment changes the sound, .* \(stored_sources\)"),
        ({"windows": {"length_s": 1.0}}, r"windows: mixtures \(data\.mixture, data\.stored_sources\) are taken whole"),
        ({"model__heads__labels__target": "single"}, r"model\.heads\.labels: a mixture has several classes"),
    ],
)
def test_what_does_not_go_with_written_mixtures(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        mixture_config(tmp_path / "manifest.jsonl", tmp_path, **{**WRITTEN, **settings})
