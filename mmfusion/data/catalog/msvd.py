"""MSVD (Chen and Dolan 2011): about 40 captions a clip, features of 476 clips, and 549 clips as silent video.

The splits are the standard ones (1200 / 100 / 670 clips); a result on a part of them must name the part ("MSVD-476").
"""

from __future__ import annotations

import math
import string
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from mmfusion.config import configclass
from mmfusion.data.catalog.prepared import Prepared, media_path, read_arrays, write_set
from mmfusion.data.features import write_features
from mmfusion.types import Clip, InputError

# Steps a second of each feature stream. R(2+1)D saw windows of about one second; `feat1000` has 20 steps a clip,
# however long the clip is, and is averaged onto one rate for all.
RATES = {"r2plus1d": 1.0, "feat1000": 2.0}
ARRAYS = {"r2plus1d": "r2plus1d_359", "feat1000": "feat1000"}
MAX_WINDOWS_S = 20.0
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@configclass
class MsvdConfig:
    subset: Literal["features", "clips", "all"] = "features"
    """Clips to take: those with features (MSVD-476), those with a video file, or those with either."""


def prepare(root: Path, out: Path, config: MsvdConfig) -> Prepared:
    """Writes `out/manifest.jsonl` and the feature files; the streams are r2plus1d (359), feat1000 (1000) and video.

    The group is the YouTube video; a training clip whose video is also in another split is left out. Raises
    InputError naming what is missing.
    """
    names = read_mapping(root / "youtube_mapping.txt")
    captions, split_of, num_repeated = read_captions(root)
    features = read_arrays(root / "features_476.npz", ("vid", *ARRAYS.values()))
    row_of = {vid: row for row, vid in enumerate(features["vid"].tolist())}
    videos = {path.stem: path for path in (root / "clips").glob("vid*.mp4")}
    wanted = {"features": set(row_of), "clips": set(videos), "all": set(row_of) | set(videos)}[config.subset]
    unknown = sorted(wanted - set(names), key=_number)
    if unknown:
        raise InputError(f"{root / 'youtube_mapping.txt'}: {unknown[0]}: has features or a clip, but is not mapped")
    shared = _shared_with_test(sorted(wanted & set(captions), key=_number), names, split_of)
    clips = []
    for vid in sorted((wanted & set(captions)) - set(shared), key=_number):
        source, duration_s = names[vid]
        media = {"video": media_path(videos[vid], out)} if vid in videos else {}
        for stream in ARRAYS if vid in row_of else ():
            file = out / "features" / stream / f"{vid}.npz"
            write_features(file, on_clock(stream, features[ARRAYS[stream]][row_of[vid]], duration_s), RATES[stream])
            media[stream] = media_path(file, out)
        clips.append(Clip(id=vid, media=media, split=split_of[vid], group=source, captions=captions[vid]))
    kept = {clip.id for clip in clips}
    remarks = {
        "clips with captions are not in this subset": sorted(set(captions) - wanted, key=_number),
        "clips without captions were left out": sorted(wanted - set(captions), key=_number),
        "training clips were left out, as their source video is in another split": shared,
        "clips have no features": sorted(kept - set(row_of), key=_number),
        "clips have no video file": sorted(kept - set(videos), key=_number),
        "training clips had repeated captions, which were left out (how many)": [
            f"{vid} ({num_repeated[vid]})" for vid in num_repeated if vid in kept
        ],
    }
    return write_set({out / "manifest.jsonl": clips}, remarks)


def on_clock(stream: str, steps: np.ndarray, duration_s: float) -> np.ndarray:
    """(20, F) as stored -> (T, F) float32 at the stream's rate in the clip's own seconds.

    r2plus1d is padded by repeating its last step, which is undone first. A step is the mean of the stored steps that
    overlap it, weighted by the overlap.
    """
    if stream == "r2plus1d":
        steps = steps[: num_distinct(steps)]
        if len(steps) == 20:
            duration_s = min(duration_s, MAX_WINDOWS_S)
    rate = RATES[stream]
    starts = np.arange(math.ceil(duration_s * rate - 1e-9))[:, None] / rate
    edges = np.linspace(0, duration_s, len(steps) + 1)
    overlap = np.minimum(edges[1:], starts + 1 / rate) - np.maximum(edges[:-1], starts)
    weights = overlap.clip(min=0)
    return (weights / weights.sum(axis=1, keepdims=True) @ steps.astype(np.float64)).astype(np.float32)


def num_distinct(steps: np.ndarray) -> int:
    """How many steps there are before the last one begins to repeat."""
    changes = np.flatnonzero((steps[1:] != steps[:-1]).any(axis=1))
    return int(changes[-1]) + 2 if len(changes) else 1


def read_mapping(path: Path) -> dict[str, tuple[str, float]]:
    """vidN -> (YouTube id, seconds of the clip), from lines `<YouTube id>_<start>_<end> vidN`."""
    found = {}
    for number, line in enumerate(_lines(path), start=1):
        try:
            name, vid = line.split()
            source, start, end = name.rsplit("_", 2)
            found[vid] = (source, float(int(end) - int(start)))
        except ValueError as error:
            raise InputError(f"{path}:{number}: must read <YouTube id>_<start>_<end> vidN, got {line!r}") from error
        if found[vid][1] <= 0:
            raise InputError(f"{path}:{number}: the clip ends before it starts")
    return found


def read_captions(root: Path) -> tuple[dict[str, tuple[str, ...]], dict[str, str], dict[str, int]]:
    """Captions of each clip, in training without repeats; the split of each clip; and how many each clip lost.

    Captions are compared in lower case, without punctuation, single-spaced.
    """
    captions: dict[str, list[str]] = defaultdict(list)
    seen: dict[str, set[str]] = defaultdict(set)
    split_of: dict[str, str] = {}
    num_repeated: dict[str, int] = defaultdict(int)
    for split in ("train", "val", "test"):
        path = root / f"sents_{split}_lc_nopunc.txt"
        for number, line in enumerate(_lines(path), start=1):
            vid, tab, caption = line.partition("\t")
            if not tab or not caption.strip():
                raise InputError(f"{path}:{number}: must read vidN<TAB>caption, got {line!r}")
            if split_of.setdefault(vid, split) != split:
                raise InputError(f"{path}:{number}: {vid} is also in {split_of[vid]}")
            plain = " ".join(caption.lower().translate(_NO_PUNCTUATION).split())
            # References are scored as they are published: how often a caption was given weighs in CIDEr.
            repeated = split == "train" and plain in seen[vid]
            num_repeated[vid] += repeated
            seen[vid].add(plain)
            if not repeated:
                captions[vid].append(" ".join(caption.split()))
    told = {vid: number for vid, number in num_repeated.items() if number}
    return {vid: tuple(found) for vid, found in captions.items()}, split_of, told


def _shared_with_test(
    vids: list[str], names: Mapping[str, tuple[str, float]], split_of: Mapping[str, str]
) -> list[str]:
    """Training clips that are cut from the same YouTube video as a clip of another split."""
    elsewhere = {names[vid][0] for vid in vids if split_of[vid] != "train"}
    return [vid for vid in vids if split_of[vid] == "train" and names[vid][0] in elsewhere]


def _number(vid: str) -> tuple[int, str]:
    digits = vid.removeprefix("vid")
    return (int(digits) if digits.isdigit() else 0, vid)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text") from error
