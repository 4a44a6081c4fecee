"""The comparisons whose sets are not at hand: every row of theirs is trained, on a few files of the sets' layout."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import yaml

from mmfusion.data.media import write_sound
from mmfusion.report.compare import compare
from mmfusion.report.comparison import load_comparison

ROOT = Path(__file__).resolve().parents[2]
COMPARISONS = ROOT / "configs" / "compare"


def noise(path: Path, length_s: float, rate_hz: int = 22050) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(crc32(path.name.encode()))
    write_sound(path, rng.uniform(-0.3, 0.3, round(length_s * rate_hz)).astype(np.float32), rate_hz)


def openmic2018(root: Path) -> None:
    """Thirty clips with embeddings and sound, rated for some of three instruments."""
    rng = np.random.default_rng(0)
    keys = [f"{number:06d}_3840" for number in range(30)]
    mask = rng.uniform(size=(30, 3)) < 0.7
    mask[:, 0] = True
    truth = np.where(mask, rng.permuted(np.linspace(0, 1, 30)[:, None].repeat(3, axis=1), axis=0), 0.5)
    root.mkdir()
    np.savez(root / "openmic-2018.npz", X=rng.integers(0, 256, (30, 10, 128)), Y_true=truth, Y_mask=mask,
             sample_key=np.array(keys, dtype=object))  # fmt: skip
    (root / "class-map.json").write_text(json.dumps({"banjo": 0, "cello": 1, "flute": 2}))
    (root / "partitions").mkdir()
    (root / "partitions" / "split01_train.csv").write_text("\n".join(keys[:20]) + "\n")
    (root / "partitions" / "split01_test.csv").write_text("\n".join(keys[20:]) + "\n")
    for key in keys:
        noise(root / "audio" / key[:3] / f"{key}.ogg", 2.0)


def irmas(root: Path) -> None:
    """Two instruments with seven pieces each, in both forms of names; four test excerpts of one or two instruments."""
    for short, genre in (("cel", "cla"), ("voi", "pop_roc")):
        for piece in range(1, 8):
            before, tags = (f"{piece:03d}__", f"[{short}][nod][{genre}]") if piece % 2 else ("", f"[{short}][{genre}]")
            noise(root / "IRMAS-TrainingData" / short / f"{before}{tags}{piece:04d}__1.wav", 3.0)
    for number, told in enumerate(("cel", "voi", "cel\t\nvoi", "voi")):
        test = root / "IRMAS-TestingData-Part1" / "Part1" / f"0{number} - A piece-{number}.wav"
        noise(test, 2.0)
        test.with_suffix(".txt").write_text(f"{told}\t\n")


def urbansound8k(root: Path) -> None:
    """Two classes with four slices in each of ten folds."""
    rows: list[dict[str, Any]] = []
    for fold in range(1, 11):
        for place in range(8):
            number, name = place % 2, ("air_conditioner", "dog_bark")[place % 2]
            file = f"{fold}{place}-{3 * number}-0-0.wav"
            noise(root / "audio" / f"fold{fold}" / file, 1.0)
            rows.append({"slice_file_name": file, "fsID": f"{fold}{place}", "start": 0, "end": 1, "salience": 1,
                         "fold": fold, "classID": 3 * number, "class": name})  # fmt: skip
    (root / "metadata").mkdir()
    with (root / "metadata" / "UrbanSound8K.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def shortened(name: str, path: Path) -> Path:
    """The comparison with one seed, two folds and one epoch a row, written to `path`."""
    tree = yaml.safe_load((COMPARISONS / f"{name}.yaml").read_text())
    for key in ("config", "published"):
        tree[key] = str((COMPARISONS / tree[key]).resolve())
    tree["folds"] = dict(list(tree.get("folds", {}).items())[:2])
    for row in tree["rows"].values():
        if "baseline" not in row:
            row["set"] = {"training.epochs": 1, "training.validate_every": 1, **row.get("set", {})}
    path.write_text(yaml.safe_dump({**tree, "seeds": [0], "workers": 1, "num_resamples": 100}, sort_keys=False))
    return path


@pytest.mark.parametrize("make", [openmic2018, irmas, urbansound8k], ids=lambda make: make.__name__)
def test_every_row_trains_on_files_of_the_sets_layout(
    make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, sets = make.__name__.removesuffix("2018"), tmp_path / "sets"
    sets.mkdir()
    make(sets / make.__name__)
    monkeypatch.setenv("MMFUSION_DATA", str(sets))
    monkeypatch.chdir(tmp_path)
    path = shortened(name, tmp_path / "comparison.yaml")
    compare(path)
    cells = list(csv.DictReader((tmp_path / "reports" / name / "table.csv").open()))
    assert {cell["row"] for cell in cells} == set(load_comparison(path).rows)
    found = [float(cell["mean"]) for cell in cells if cell["mean"]]
    assert len(found) > len(cells) / 2 and all(-1 <= value <= 1 for value in found)
    for row in load_comparison(path).rows:
        assert any(cell["mean"] for cell in cells if cell["row"] == row), row
