"""What the sets of sentences share: their captions lie here, their media elsewhere or nowhere.

With a folder of media such a set becomes a manifest, like any other. Without one it becomes `references.<split>.json`
{clip: [caption, ...]}, which `tools/score.py captions` reads: a manifest needs media. Captions stay as they were given,
repeats included, since published scores count them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmfusion.data.catalog.prepared import Prepared, media_path, write_set
from mmfusion.types import Clip, InputError

SOUND = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac")
PICTURES = (".mp4", ".mkv", ".webm", ".avi", ".mov")

Captions = dict[str, list[str]]


@dataclass(frozen=True)
class Captioned:
    """A clip and its sentences; `stems` are the names that its file may have, without suffix, likeliest first."""

    id: str
    split: str
    group: str
    captions: Sequence[str]
    stems: tuple[str, ...]


def write_captioned(out: Path, clips: Sequence[Captioned], media: str | None, remarks: Mapping[str, Sequence[str]]
                    ) -> Prepared:  # fmt: skip
    """Writes `out/manifest.jsonl` of the clips whose file lies under the folder `media`, at any depth.

    A sound file is the clip's audio; a video file is its video, and its audio where no sound file lies beside it.
    Without `media` writes `out/references.<split>.json` for each split. InputError when no clip has a file.
    """
    if media is None:
        return _write_references(out, clips, remarks)
    files = find_media(Path(media))
    there: list[Clip] = []
    missing: list[str] = []
    for clip in clips:
        stem = next((stem for stem in clip.stems if stem in files), None)
        if stem is None:
            missing.append(clip.id)
            continue
        own = {name: media_path(path, out) for name, path in files[stem].items()}
        there.append(Clip(id=clip.id, media=own, split=clip.split, group=clip.group, captions=tuple(clip.captions)))
    if not there:
        raise InputError(f"{media}: holds no file of any clip (the first would be {clips[0].stems[0]}.*)")
    return write_set({out / "manifest.jsonl": there}, {**remarks, f"clips have no file under {media}": missing})


def _write_references(out: Path, clips: Sequence[Captioned], remarks: Mapping[str, Sequence[str]]) -> Prepared:
    counts = Counter(clip.split for clip in clips)
    for split in counts:
        tree = {clip.id: list(clip.captions) for clip in clips if clip.split == split}
        text = json.dumps(tree, indent=1, ensure_ascii=False)
        (out / f"references.{split}.json").write_text(text + "\n", encoding="utf-8")
    told = {reason: tuple(names) for reason, names in remarks.items() if names}
    return Prepared(tuple(out / f"references.{s}.json" for s in counts), tuple({s: n} for s, n in counts.items()), told)


def find_media(folder: Path) -> dict[str, dict[str, Path]]:
    """Stem -> input name -> file, for every media file under the folder."""
    if not folder.is_dir():
        raise InputError(f"{folder}: media: no such folder")
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        suffix = path.suffix.lower()
        if suffix in SOUND:
            found.setdefault(path.stem, {})["audio"] = path
        elif suffix in PICTURES:
            found[path.stem] = {"audio": path, **found.get(path.stem, {}), "video": path}
    return found


def part_files(root: Path, names: Mapping[str, str]) -> tuple[dict[str, Path], dict[str, list[str]]]:
    """Split -> file under `root`, for those that are there, and a remark that names the others.

    InputError when none is.
    """
    there = {split: root / name for split, name in names.items() if (root / name).is_file()}
    if not there:
        raise InputError(f"{root}: holds none of {', '.join(names.values())}")
    return there, {"caption files are not there": [name for split, name in names.items() if split not in there]}
