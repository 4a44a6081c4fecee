"""ICT-MMMO sentiment of video reviews as features (Wollmer et al. 2013; sequences of Zadeh et al., AAAI 2018).

20 steps a clip, aligned between the streams: audio 74 (COVAREP), video 36 (Facet).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from mmfusion.config import configclass
from mmfusion.data.catalog.prepared import Prepared, media_path, read_arrays, write_set
from mmfusion.data.features import write_features
from mmfusion.types import Clip, InputError

STREAMS = ("audio", "video")
SPLITS = {"train": "train", "valid": "val", "test": "test"}


@configclass
class MmmoConfig:
    threshold: float = 3.5
    """Ratings (1 to 5) from here on are "positive", others "negative"."""
    rate: Annotated[float, Field(gt=0)] = 2.0
    """Steps a second that the files claim: the set gives 20 steps a clip and no times, so this only sets the scale."""


def prepare(root: Path, out: Path, config: MmmoConfig) -> Prepared:
    """Writes `out/manifest.jsonl` and a feature file for each stream of each clip, in the splits as given.

    `root` holds mmmo.npz. A step whose features are all zero was padded or not found, and is masked. The set gives no
    identities, so every clip is a group of its own and nothing is known about speakers shared between the splits.
    Raises InputError.
    """
    path = root / "mmmo.npz"
    arrays = read_arrays(path, [f"{name}_{part}" for part in SPLITS for name in (*STREAMS, "y")])
    clips: list[Clip] = []
    gaps: dict[str, list[str]] = {stream: [] for stream in STREAMS}
    for part, split in SPLITS.items():
        ratings = arrays[f"y_{part}"].tolist()
        for row, rating in enumerate(ratings):
            name = f"{split}-{row:03d}"
            media = {}
            for stream in STREAMS:
                data = arrays[f"{stream}_{part}"]
                if len(data) != len(ratings):
                    raise InputError(f"{path}: {stream}_{part}: has {len(data)} rows, but y_{part} has {len(ratings)}")
                file = out / "features" / stream / f"{name}.npz"
                mask = data[row].any(axis=1)
                write_features(file, data[row], config.rate, mask)
                media[stream] = media_path(file, out)
                if not mask.all():
                    gaps[stream].append(name)
            label = "positive" if rating >= config.threshold else "negative"
            clips.append(Clip(id=name, media=media, split=split, group=name, labels=(label,)))
    remarks = {f"clips with steps that have no {stream} features (masked)": names for stream, names in gaps.items()}
    return write_set({out / "manifest.jsonl": clips}, remarks)
