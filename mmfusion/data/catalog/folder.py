"""One's own files, a folder a class: `root/<class>/*`, or `root/train|val|test/<class>/*` where they are split already.

Any file that holds sound or pictures is a clip with that one class. Files that were cut from one recording belong into
one split: `group` finds the recording in a file's name.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mmfusion.config import configclass
from mmfusion.data.catalog.prepared import Prepared, drawn, media_path, write_set
from mmfusion.data.media import probe
from mmfusion.types import Clip, InputError

SPLITS = ("train", "val", "test")
UNREAD = "files without sound and pictures, or with a name that is not UTF-8"


@configclass
class FolderConfig:
    group: str | None = None
    """Regular expression whose first group, found in a file's name, is its recording; null: each file is its own."""
    val_share: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Part of each class's recordings that validates, where the folder is not split already; at least one of three."""
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Part of each class's recordings that tests, where the folder is not split already; at least one of three."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Draws the recordings."""


def prepare(root: Path, out: Path, config: FolderConfig) -> Prepared:
    """Writes `out/manifest.jsonl`. InputError when no class folder holds a file that can be read."""
    pattern = _pattern(config.group)
    # A class may be called "train" too: only folders that are splits and nothing else, of classes, are splits.
    split_already = all(top.name in SPLITS and _folders(top) for top in _folders(root))
    clips: list[Clip] = []
    unread: list[str] = []
    for top in _folders(root) if split_already else [root]:
        for folder in _folders(top):
            clips += _class_clips(folder, root, out, pattern, unread)
    if not clips:
        raise InputError(f"{root}: no folder in it holds a file with sound or pictures (one folder a class)")
    clips = [replace(clip, split=clip.id.split("/")[0]) for clip in clips] if split_already else _split(clips, config)
    return write_set({out / "manifest.jsonl": clips}, {UNREAD: unread})


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _pattern(text: str | None) -> re.Pattern[str] | None:
    if text is None:
        return None
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise InputError(f"folder: group: {text!r} is no regular expression: {error}") from error
    if not pattern.groups:
        raise InputError(f"folder: group: {text!r} has no group in round brackets, which would be the recording")
    return pattern


def _class_clips(folder: Path, root: Path, out: Path, pattern: re.Pattern[str] | None, unread: list[str]) -> list[Clip]:
    clips = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
        name = file.relative_to(root).as_posix()
        try:
            name.encode()
            info = probe(file)
        except (InputError, UnicodeEncodeError):  # a name in another encoding cannot stand in a manifest
            unread.append(os.fsencode(name).decode(errors="backslashreplace"))
            continue
        path = media_path(file, out)
        media = {key: path for key, there in (("audio", info.has_audio), ("video", info.has_video)) if there}
        found = pattern.search(file.stem) if pattern else None
        group = f"recording {found[1]}" if found else name
        clips.append(Clip(id=name, media=media, split="", group=group, labels=(folder.name,)))
    return clips


def _share(share: float, number: int) -> float:
    """The share that gives one at least, where something is asked for and enough is there."""
    return max(share, 1.001 / number) if share and number >= 2 else share


def _split(clips: list[Clip], config: FolderConfig) -> list[Clip]:
    """Recordings are drawn class by class; one with several classes goes where its first class puts it."""
    split_of: dict[str, str] = {}
    for label in sorted({clip.labels[0] for clip in clips if clip.labels}):
        groups = sorted({clip.group for clip in clips if clip.labels == (label,)} - set(split_of))
        testing = drawn(groups, _share(config.test_share, len(groups)), config.seed, "test", label)
        rest = [group for group in groups if group not in testing]
        share = config.val_share * len(groups) / max(1, len(rest))
        validating = drawn(rest, _share(min(share, 1.0), len(rest)), config.seed, "val", label)
        split_of |= {
            group: "test" if group in testing else "val" if group in validating else "train" for group in groups
        }
    return [replace(clip, split=split_of[clip.group]) for clip in clips]
