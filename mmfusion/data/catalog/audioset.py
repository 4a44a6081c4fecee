"""AudioSet (Gemmeke et al. 2017): ten-second segments of YouTube videos, any number of 527 classes each.

Segments come as csv files (`YTID, start_seconds, end_seconds, "mid,mid"`; a line that begins with "#" is a remark),
names of classes from `class_labels_indices.csv` or the ontology. What can be read of a segment is a media file under
`media`, or a row of an npz of VGGish embeddings (X (N, 10, 128) uint8, Y (N, 527), video_id, start); a video is the
group.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from mmfusion.config import configclass
from mmfusion.data.catalog.captioned import find_media
from mmfusion.data.catalog.prepared import Prepared, drawn, media_path, read_arrays, write_set
from mmfusion.data.catalog.tables import read_table, read_text
from mmfusion.data.features import write_features
from mmfusion.types import Clip, InputError

FILES = {"train": "balanced_train_segments.csv", "test": "eval_segments.csv"}
UNBALANCED, NAMES, ONTOLOGY = "unbalanced_train_segments.csv", "class_labels_indices.csv", "ontology.json"
VGGISH_RATE = 1.0


@configclass
class AudiosetConfig:
    media: str | None = None
    """Folder of the clips at any depth: `<id>`, `<id>_<start>`, `<id>_<start>_<end>` or `Y<id>...`, start and end in
    seconds or milliseconds; each file one segment. null says what segments there are, and writes no manifest."""
    embeddings: str | None = None
    """npz of VGGish embeddings below the root, read as the stream `vggish`."""
    unbalanced: bool = False
    """Also train on the unbalanced segments."""
    val_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Part of the training videos that validates."""
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Part of the videos of an npz that tests, where no csv says which do."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Draws the videos."""


@dataclass(frozen=True)
class Segment:
    """A row of a segment csv: seconds of a video, and its classes by their mids."""

    video: str
    start_s: float
    end_s: float
    mids: tuple[str, ...]

    @property
    def id(self) -> str:
        return f"{self.video}_{self.start_s:g}"

    @property
    def stems(self) -> tuple[str, ...]:
        """The names that its file may have, likeliest first."""
        video, start, end = self.video, self.start_s, self.end_s
        spans = [f"{start:g}", f"{start:g}_{end:g}", f"{start * 1000:.0f}", f"{start * 1000:.0f}_{end * 1000:.0f}",
                 f"{start:.3f}_{end:.3f}", f"{start:06.0f}"]  # fmt: skip
        return tuple(f"{mark}{video}{span and '_' + span}" for span in [*spans, ""] for mark in ("", "Y"))


def prepare(root: Path, out: Path, config: AudiosetConfig) -> Prepared:
    """Writes `out/manifest.jsonl` of the segments that have a file or an embedding, or what segments there are.

    Without media and embeddings that is `out/segments.<split>.jsonl`. InputError as usual.
    """
    if config.embeddings is not None:
        return _from_embeddings(root, out, config)
    if config.media is None:
        return _write_segments(root, out, config)
    names, files = class_names(root), find_media(Path(config.media))
    clips, missing, unnamed = [], [], set()
    for part, path in _tables(root, config):
        for segment in read_segments(path):
            stem = next((stem for stem in segment.stems if stem in files), None)
            unnamed |= {mid for mid in segment.mids if mid not in names}
            if stem is None:
                missing.append(segment.id)
                continue
            media = {name: media_path(file, out) for name, file in files[stem].items()}
            labels = tuple(names[mid] for mid in segment.mids if mid in names)
            clips.append(Clip(id=segment.id, media=media, split=part, group=segment.video, labels=labels))
    if not clips:
        raise InputError(f"{config.media}: holds no file of any segment (the first would be {missing[:1]})")
    remarks = {"segments without a file": missing, "classes without a name": sorted(unnamed)}
    return write_set({out / "manifest.jsonl": _draw(clips, "train", "val", config.val_share, config)}, remarks)


def _write_segments(root: Path, out: Path, config: AudiosetConfig) -> Prepared:
    """Of every segment, a line: id, video, start_s, end_s and the names of its classes; none is drawn to validate."""
    names, unnamed = class_names(root), set[str]()
    lines: dict[str, list[str]] = {}
    for part, path in _tables(root, config):
        for segment in read_segments(path):
            unnamed |= {mid for mid in segment.mids if mid not in names}
            tree = {"id": segment.id, "video": segment.video, "start_s": segment.start_s, "end_s": segment.end_s,
                    "labels": [names[mid] for mid in segment.mids if mid in names]}  # fmt: skip
            lines.setdefault(part, []).append(json.dumps(tree, ensure_ascii=False) + "\n")
    for part, own in lines.items():
        (out / f"segments.{part}.jsonl").write_text("".join(own), encoding="utf-8")
    counts = tuple({part: len(own)} for part, own in lines.items())
    told = {"classes without a name": tuple(sorted(unnamed))} if unnamed else {}
    return Prepared(tuple(out / f"segments.{part}.jsonl" for part in lines), counts, told)


def read_segments(path: Path) -> Iterator[Segment]:
    """The segments of a csv. InputError names the line at fault."""
    lines = csv.reader(read_text(path).splitlines(), skipinitialspace=True)
    for row in lines:
        if not row or row[0].startswith("#"):
            continue
        try:
            video, start, end, mids = row
            yield Segment(video, float(start), float(end), tuple(mid.strip() for mid in mids.split(",")))
        except ValueError as error:
            raise InputError(f'{path}:{lines.line_num}: must read YTID, start, end, "mid,mid", got {row}') from error


def class_names(root: Path) -> dict[str, str]:
    """Mid -> name, in the order of the 527 classes where their table is there, else all classes of the ontology."""
    if (root / NAMES).exists():
        return {row["mid"]: row["display_name"] for row in read_table(root / NAMES, ("index", "mid", "display_name"))}
    found = next((path for name in (ONTOLOGY, f"audioset_{ONTOLOGY}") if (path := root / name).exists()), None)
    if found is None:
        raise InputError(f"{root}: holds neither {NAMES} nor {ONTOLOGY}, so the classes have no names")
    try:
        return {entry["id"]: entry["name"] for entry in json.loads(read_text(found))}
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{found}: must be a list of classes with id and name: {error}") from error


def _tables(root: Path, config: AudiosetConfig) -> list[tuple[str, Path]]:
    wanted = [*FILES.items(), *([("train", UNBALANCED)] if config.unbalanced else [])]
    found = [(part, root / name) for part, name in wanted if (root / name).is_file()]
    if not found:
        raise InputError(f"{root}: holds none of {', '.join(FILES.values())}")
    return found


def _from_embeddings(root: Path, out: Path, config: AudiosetConfig) -> Prepared:
    """Every row of the npz; which videos test is drawn, since an npz does not say."""
    path = root / str(config.embeddings)
    arrays = read_arrays(path, ("X", "Y", "video_id", "start"))
    data, truth = arrays["X"], arrays["Y"].astype(bool)
    if data.ndim != 3 or len(truth) != len(data):
        raise InputError(f"{path}: X: must be (clips, seconds, features) with a row of Y for each clip")
    names = list(class_names(root).values()) if (root / NAMES).exists() else []
    if len(names) != truth.shape[1]:
        names = [f"class {place}" for place in range(truth.shape[1])]
    clips = []
    for row, (video, start) in enumerate(zip(arrays["video_id"].tolist(), arrays["start"].tolist(), strict=True)):
        file = out / "vggish" / f"{video}_{start:g}.npz"
        # A clip shorter than ten seconds is padded with zeros.
        real = data[row].any(axis=1)
        write_features(file, data[row].astype(np.float32), VGGISH_RATE, real)
        labels = tuple(names[place] for place in truth[row].nonzero()[0])
        clips.append(Clip(id=file.stem, media={"vggish": media_path(file, out)}, split="train", group=video,
                          end_s=float(data.shape[1]), labels=labels))  # fmt: skip
    drawn = _draw(clips, "train", "test", config.test_share, config)
    return write_set({out / "manifest.jsonl": _draw(drawn, "train", "val", config.val_share, config)})


def _draw(clips: list[Clip], source: str, target: str, share: float, config: AudiosetConfig) -> list[Clip]:
    """The clips with a share of the videos of `source` moved to `target`."""
    videos = sorted({clip.group for clip in clips if clip.split == source})
    moved = drawn(videos, share, config.seed, target)
    return [replace(clip, split=target) if clip.split == source and clip.group in moved else clip for clip in clips]
