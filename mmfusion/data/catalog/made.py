"""The set that the project makes itself, in the form of a catalogue reader."""

from __future__ import annotations

from pathlib import Path

from mmfusion.data.catalog.prepared import Prepared, count_splits
from mmfusion.data.manifest import read_manifest
from mmfusion.data.synthetic import SyntheticConfig, make_synthetic

__all__ = ["SyntheticConfig", "prepare"]


def prepare(root: Path | None, out: Path, config: SyntheticConfig, workers: int = 1) -> Prepared:
    """Makes the set under `out`; `root` is not read."""
    del root
    path = make_synthetic(out, config, workers)
    return Prepared((path,), (count_splits(read_manifest(path).clips),))
