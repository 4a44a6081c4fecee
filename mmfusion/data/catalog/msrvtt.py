"""MSR-VTT (Xu et al. 2016): 20 captions a clip, standard splits (6513 / 497 / 2990 clips), as {clip: {n: caption}}.

The clips are cut from fewer source videos, which this form does not name: every clip is a group of its own.
"""

from __future__ import annotations

from pathlib import Path

from mmfusion.config import configclass
from mmfusion.data.catalog.captioned import Captioned, Captions, part_files, write_captioned
from mmfusion.data.catalog.prepared import Prepared
from mmfusion.data.catalog.tables import read_object
from mmfusion.types import InputError

FILES = {"train": "msrvtt_train.json", "val": "msrvtt_val.json", "test": "msrvtt_test.json"}


@configclass
class MsrvttConfig:
    media: str | None = None
    """Folder of the clips (`video<n>.mp4`); null writes references for scoring and no manifest."""


def prepare(root: Path, out: Path, config: MsrvttConfig) -> Prepared:
    """Writes `out/manifest.jsonl`, or `out/references.<split>.json` without media. Raises InputError."""
    files, remarks = part_files(root, FILES)
    clips = [
        Captioned(id=clip, split=split, group=clip, captions=captions, stems=(clip,))
        for split, path in files.items()
        for clip, captions in read_captions(path).items()
    ]
    return write_captioned(out, clips, config.media, remarks)


def read_captions(path: Path) -> Captions:
    """Clip -> its captions in the order of the file. InputError names the clip at fault."""
    found: Captions = {}
    for clip, numbered in read_object(path).items():
        texts = list(numbered.values()) if isinstance(numbered, dict) else []
        if not texts or not all(isinstance(text, str) for text in texts):
            raise InputError(f"{path}: clip {clip}: must be an object of number and caption")
        found[clip] = texts
    return found
