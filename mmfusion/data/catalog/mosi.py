"""CMU-MOSI sentiment as features of utterances (Zadeh et al. 2016; features of Poria et al., ACL 2017).

One utterance is one clip with one step a stream: audio 73 (openSMILE), video 100 (3-D CNN), text 100 (CNN).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from mmfusion.config import configclass
from mmfusion.data.catalog.prepared import Prepared, media_path, read_arrays, seeded, write_set
from mmfusion.data.features import write_features
from mmfusion.types import Clip, InputError

STREAMS = ("audio", "video", "text")
LABELS = ("negative", "positive")
# An utterance has no length here; one step of one second says that its streams belong together.
RATE = 1.0


@configclass
class MosiConfig:
    seed: Annotated[int, Field(ge=0)] = 0
    """Draws the videos that validate."""
    num_val_videos: Annotated[int, Field(ge=1)] = 10
    """Videos taken from the 62 of the official training split, which has no validation part of its own."""


def prepare(root: Path, out: Path, config: MosiConfig) -> Prepared:
    """Writes `out/manifest.jsonl` and a feature file for each stream of each utterance; the group is the video.

    `root` holds mosi_utterance_features.npz. Test is the official test split. Raises InputError.
    """
    path = root / "mosi_utterance_features.npz"
    names = (*STREAMS, "y", "video_id", "utt")
    arrays = read_arrays(path, [f"{name}_{part}" for part in ("train", "test") for name in names])
    videos = sorted(set(arrays["video_id_train"].tolist()))
    if config.num_val_videos >= len(videos):
        raise InputError(f"mosi: num_val_videos: must leave some of the {len(videos)} training videos")
    drawn = seeded(config.seed, "val").permutation(len(videos))[: config.num_val_videos]
    val = {videos[index] for index in drawn}
    clips = []
    for part in ("train", "test"):
        found = {name: arrays[f"{name}_{part}"] for name in names}
        for row, (video, utterance, y) in enumerate(
            zip(found["video_id"].tolist(), found["utt"].tolist(), found["y"].tolist(), strict=True)
        ):
            if y not in (0, 1):
                raise InputError(f"{path}: y_{part}: row {row} must be 0 or 1, got {y}")
            name = f"{video}-{utterance}"
            files = {stream: out / "features" / stream / f"{name}.npz" for stream in STREAMS}
            for stream, file in files.items():
                write_features(file, found[stream][row][None], RATE)
            split = "val" if part == "train" and video in val else part
            media = {stream: media_path(file, out) for stream, file in files.items()}
            clips.append(Clip(id=name, media=media, split=split, group=video, labels=(LABELS[y],)))
    return write_set({out / "manifest.jsonl": clips})
