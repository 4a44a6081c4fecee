"""`manifest.jsonl`, the one form of a data set: one JSON object a line, one line a clip, the keys of `Clip`.

    {"id": "a1", "media": "clips/a1.mp4", "split": "train", "group": "speaker 3", "labels": ["bell"]}

* `media` is an object from input name to file, or one string when "audio" and "video" are in the same file.
* Paths are relative to the manifest's folder, or absolute; times are seconds.
* Keys that hold their default are left out. Blank lines mean nothing.

Whatever is wrong with a manifest is one `InputError` that names `file:line` and the field.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from mmfusion.types import Clip, InputError, Source, did_you_mean

# Through a tuple, the strict rules reach the plain dataclasses inside; types.py stays free of pydantic.
_CLIPS = TypeAdapter(tuple[Clip], config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A manifest as read: where it lies, and its clips in the order of its lines."""

    path: Path
    clips: tuple[Clip, ...]

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits, in the order in which they first occur."""
        return tuple(dict.fromkeys(clip.split for clip in self.clips))

    def split(self, name: str) -> tuple[Clip, ...]:
        """The clips of one split, in order. InputError when there is none of that name."""
        clips = tuple(clip for clip in self.clips if clip.split == name)
        if not clips:
            raise InputError(f"{self.path}: split: no clip is in {name!r} (splits here: {', '.join(self.splits)})")
        return clips

    def label_names(self) -> tuple[str, ...]:
        """Every class in any split, sorted: named by a label, a relevance, or a source of a clip without labels."""
        names: set[str] = set()
        for clip in self.clips:
            names.update(clip.labels or (), clip.relevances or ())
            if clip.labels is None:
                names.update(source.label for source in clip.sources if source.label)
        return tuple(sorted(names))

    def resolve(self, clip: Clip, input_name: str) -> Path | None:
        """The file that `clip` has for an input, or None when it has none."""
        media = clip.media.get(input_name)
        return None if media is None else self.locate(media)

    def located(self, clip: Clip) -> Clip:
        """The clip with paths that can be opened from anywhere, in the place of those that start at the manifest."""
        return dataclasses.replace(clip, media={name: str(self.locate(own)) for name, own in clip.media.items()})

    def locate(self, media: str) -> Path:
        """A path as it stands in the manifest (of `Clip.media` or `Source.media`) -> a path that can be opened."""
        return self.path.parent / media

    def fingerprint(self, clips: Iterable[Clip]) -> str:
        """sha256 hex of the clips' ids in their order: equal for two lists only when they hold the same clips."""
        return hashlib.sha256(json.dumps([clip.id for clip in clips]).encode()).hexdigest()

    def file_hash(self) -> str:
        """sha256 hex of the manifest file as it lies on disk."""
        return hashlib.sha256(_read_bytes(self.path)).hexdigest()


def read_manifest(path: str | Path) -> Manifest:
    """The manifest in the file at `path`. Raises InputError naming `file:line` and the field at fault."""
    path = Path(path)
    clips: list[Clip] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(_read_bytes(path).split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        clip = _parse(line, where)
        if clip.id in lines:
            raise InputError(f"{where}: id: {clip.id!r} is already on line {lines[clip.id]}")
        lines[clip.id] = number
        clips.append(clip)
    if not clips:
        raise InputError(f"{path}: holds no clips")
    return Manifest(path, tuple(clips))


def write_manifest(path: str | Path, clips: Iterable[Clip], allow_shared: bool = False) -> None:
    """Writes the clips, one a line; `read_manifest` gives them back equal.

    The file appears whole or not at all. Raises InputError for what `read_manifest` would refuse, and for a group
    that is in two splits unless `allow_shared` (a set's traditional, leaky split).
    """
    path, clips = Path(path), tuple(clips)
    lines = [json.dumps(_to_tree(clip), ensure_ascii=False, allow_nan=False) for clip in clips]
    ids: set[str] = set()
    for clip, line in zip(clips, lines, strict=True):
        where = f"{path}: clip {clip.id!r}"
        try:
            _parse(line.encode(), where)
        except UnicodeEncodeError as error:
            raise InputError(f"{where}: has a name that is not UTF-8") from error
        if clip.id in ids:
            raise InputError(f"{where}: id: is given to two clips")
        ids.add(clip.id)
    if not clips:
        raise InputError(f"{path}: a manifest needs at least one clip")
    check_groups(clips, allow_shared, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial{os.getpid()}")
    try:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def check_groups(clips: Sequence[Clip], allow_shared: bool = False, where: str = "manifest") -> None:
    """Raises InputError when a group (speaker, source video, artist, ...) is in more than one split.

    `allow_shared` lets a traditional split through whose groups overlap; whoever sets it says so in the results.
    """
    split_of: dict[str, Clip] = {}
    for clip in clips:
        first = split_of.setdefault(clip.group, clip)
        if first.split != clip.split and not allow_shared:
            raise InputError(
                f"{where}: group: {clip.group!r} is in two splits, {first.split!r} (clip {first.id!r}) "
                f"and {clip.split!r} (clip {clip.id!r})"
            )


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such manifest") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _parse(line: bytes, where: str) -> Clip:
    try:
        tree = json.loads(line.decode("utf-8-sig"), object_pairs_hook=unique_keys)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"{where}: not a line of JSON: {error}") from error
    if not isinstance(tree, dict):
        raise InputError(f"{where}: must be a JSON object with the fields of a clip")
    if isinstance(tree.get("media"), str):
        tree["media"] = {"audio": tree["media"], "video": tree["media"]}
    try:
        (clip,) = _CLIPS.validate_json(json.dumps([tree]))
    except ValidationError as error:
        raise InputError(f"{where}: {_explain(error)}") from error
    for complaint in _complaints(clip):
        raise InputError(f"{where}: {complaint}")
    return clip


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A hook for `json.loads`: ValueError for an object in which a key stands twice."""
    tree = dict(pairs)
    if len(tree) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return tree


def _explain(error: ValidationError) -> str:
    # A misspelt key makes two errors, "unknown" and "missing"; the first says more.
    first = min(error.errors(), key=lambda item: item["type"] == "missing")
    loc = [str(part) for part in first["loc"][1:]]
    place = ".".join(loc)
    if first["type"] == "unexpected_keyword_argument":
        valid = [item.name for item in dataclasses.fields(Clip if len(loc) == 1 else Source)]
        return f"{place}: unknown key" + (did_you_mean(loc[-1], valid) or f" (valid: {', '.join(valid)})")
    message = first["msg"][0].lower() + first["msg"][1:]
    given = (
        "" if first["type"] == "missing" or isinstance(first["input"], (dict, list)) else f", got {first['input']!r}"
    )
    return f"{place}: {message}{given}"


def _complaints(clip: Clip) -> Iterator[str]:
    """What is wrong with a clip whose types are right."""
    for name in ("id", "split", "group"):
        if not getattr(clip, name):
            yield f"{name}: must not be empty"
    if not clip.media or not all(clip.media.values()):
        yield "media: must name at least one file, and none may be empty"
    if clip.start_s < 0:
        yield f"start_s: must not be negative, got {clip.start_s}"
    if clip.end_s is not None and clip.end_s <= clip.start_s:
        yield f"end_s: must be after start_s ({clip.start_s}), got {clip.end_s}"
    for name, relevance in (clip.relevances or {}).items():
        if not 0 <= relevance <= 1:
            yield f"relevances.{name}: must be between 0 and 1, got {relevance}"
    for index, caption in enumerate(clip.captions):
        if not any(letter.isalnum() for letter in caption):
            yield f"captions.{index}: has no word, got {caption!r}"
    for index, source in enumerate(clip.sources):
        if source.end_s < source.start_s:
            yield f"sources.{index}.end_s: must not be before start_s ({source.start_s}), got {source.end_s}"


def _to_tree(item: Clip | Source) -> dict[str, Any]:
    """The fields that differ from their defaults, as JSON values."""
    tree: dict[str, Any] = {}
    for field in dataclasses.fields(item):
        value = getattr(item, field.name)
        if field.default is not dataclasses.MISSING and value == field.default:
            continue
        if field.name == "sources":
            value = [_to_tree(source) for source in value]
        tree[field.name] = value
    return tree
