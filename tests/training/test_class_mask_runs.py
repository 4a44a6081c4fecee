"""Runs that separate by class: trained, evaluated, and on a file of any length."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_mixtures import MASK, MIXTURE, mixture_config

from mmfusion.data.media import read_sound, write_sound
from mmfusion.evaluate import evaluate
from mmfusion.separate import FileSeparator, KnownClasses, Windows, separate_files
from mmfusion.training.log import read_log
from mmfusion.training.loop import train
from mmfusion.types import InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from sound_set import RATE, write_sounds

BY_CLASS = {**MASK, "by_class": True, "mask": "softmax"}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sounds(tmp_path_factory.mktemp("sounds")).path


def test_a_head_by_class_trains_is_scored_and_separates_files(sounds: Path, tmp_path: Path) -> None:
    heads = {"separation": BY_CLASS, "labels": {"kind": "labels"}}
    run = train(mixture_config(sounds, tmp_path, name="classes", model__heads=heads), quiet=True)
    figures = evaluate(run, quiet=True)["separation"]
    assert (figures["num_sources"], figures["num_silent"]) == (12, 0)
    log = [row for row in read_log(run.folder / "metrics.csv") if row["split"] == "validation"]
    best = max(row["value"] for row in log if row["figure"] == "separation.si_sdri")
    again = evaluate(run, split="val", quiet=True)["separation"]["si_sdri"]
    assert again == pytest.approx(best, abs=1e-3), "validation and evaluation choose the same classes"
    told = {(row["split"], row["figure"]): row["value"] for row in read_log(run.folder / "metrics.csv")}
    for split in ("train", "validation"):
        assert 0 <= told[split, "separation.found"] <= 1 and 0 <= told[split, "separation.collapse"] <= 1
    mixture = np.random.default_rng(0).uniform(-1, 1, round(3.3 * RATE)).astype(np.float32)
    write_sound(tmp_path / "long.wav", mixture, RATE)
    (found,) = separate_files(run, [tmp_path / "long.wav"], tmp_path / "out", Windows.of(run))
    assert len(found["sources"]) == 2
    parts = [read_sound(path, RATE) for path in found["sources"]]
    np.testing.assert_allclose(np.sum([part.data for part in parts if part is not None], axis=0), mixture, atol=1e-4)
    first, *_, last = run.labels()
    known = KnownClasses((last, first), rest=True)
    (found,) = separate_files(run, [tmp_path / "long.wav"], tmp_path / "out", Windows.of(run), known=known)
    assert [Path(path).name for path in found["sources"]] == known.names()
    assert {Path(path) for path in found["sources"]} == set((tmp_path / "out" / "long").glob("*.wav"))
    parts = [read_sound(path, RATE) for path in found["sources"]]
    np.testing.assert_allclose(np.sum([part.data for part in parts if part is not None], axis=0), mixture, atol=1e-4)
    with pytest.raises(InputError, match=r"--classes: 'nothing' is no class of the run"):
        FileSeparator(run, known=KnownClasses(("nothing", first)))


def test_a_mask_a_source_knows_no_classes(sounds: Path, tmp_path: Path) -> None:
    run = train(mixture_config(sounds, tmp_path, name="sources", training__epochs=1), quiet=True)
    with pytest.raises(InputError, match=r"--classes: the head separation has no mask a class"):
        FileSeparator(run, known=KnownClasses(run.labels()))


def test_mixed_recordings_have_no_classes(sounds: Path, tmp_path: Path) -> None:
    heads = {"separation": BY_CLASS}
    recordings = {**MIXTURE, "sources": "recordings"}
    with pytest.raises(InputError, match="by_class: of mixed recordings no classes are known"):
        mixture_config(sounds, tmp_path, model__heads=heads, data__mixture=recordings)
