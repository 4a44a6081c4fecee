"""AudioCaps (Kim et al. 2019): captions of ten-second AudioSet clips; one a training clip, five a val or test clip.

A clip is named `<YouTube id>_<start in seconds>`; its group is the YouTube video.
"""

from __future__ import annotations

from pathlib import Path

from mmfusion.config import configclass
from mmfusion.data.catalog.captioned import Captioned, Captions, part_files, write_captioned
from mmfusion.data.catalog.prepared import Prepared
from mmfusion.data.catalog.tables import read_table

FILES = {"train": "audiocaps_train.csv", "val": "audiocaps_val.csv", "test": "audiocaps_test.csv"}
COLUMNS = ("youtube_id", "start_time", "caption")
LENGTH_S = 10


@configclass
class AudiocapsConfig:
    media: str | None = None
    """Folder of the clips: `<id>_<start>`, `<id>_<start>_<end>`, `Y<id>` or `<id>`, each file one clip of ten seconds;
    null writes references for scoring and no manifest."""


def prepare(root: Path, out: Path, config: AudiocapsConfig) -> Prepared:
    """Writes `out/manifest.jsonl`, or `out/references.<split>.json` without media. Raises InputError."""
    files, remarks = part_files(root, FILES)
    clips = []
    for split, path in files.items():
        for clip, captions in read_captions(path).items():
            video, start = clip.rsplit("_", 1)
            end = int(start) + LENGTH_S if start.isdigit() else start
            stems = (clip, f"{clip}_{end}", f"Y{video}", video)
            clips.append(Captioned(id=clip, split=split, group=video, captions=captions, stems=stems))
    return write_captioned(out, clips, config.media, remarks)


def read_captions(path: Path) -> Captions:
    """`<YouTube id>_<start>` -> its captions in the order of the rows. Raises InputError."""
    found: Captions = {}
    for row in read_table(path, COLUMNS):
        found.setdefault(f"{row['youtube_id']}_{row['start_time']}", []).append(row["caption"])
    return found
