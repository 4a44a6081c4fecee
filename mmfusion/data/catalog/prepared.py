"""What a catalogue reader hands back, and the small things that every reader needs."""

from __future__ import annotations

import json
import os
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from mmfusion.config import to_tree
from mmfusion.data.catalog.pickled_texts import read_texts
from mmfusion.data.manifest import write_manifest
from mmfusion.types import Clip, InputError

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Prepared:
    """A data set that is ready: its manifests, clips a manifest by split, and what could not be used.

    `remarks` maps a reason to the names of everything that was left out, or is incomplete, for that reason.
    """

    manifests: tuple[Path, ...]
    counts: tuple[Mapping[str, int], ...]
    remarks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def summary(self, num_named: int = 3) -> str:
        """One line a manifest and one a reason, with the first few names of each."""
        lines = []
        for path, count in zip(self.manifests, self.counts, strict=True):
            splits = ", ".join(f"{split} {number}" for split, number in count.items())
            lines.append(f"{path}: {sum(count.values())} clips ({splits})")
        for reason, names in self.remarks.items():
            more = ", ..." if len(names) > num_named else ""
            lines.append(f"{len(names)} {reason}: {', '.join(names[:num_named])}{more}")
        return "\n".join(lines)

    def save(self, path: Path, name: str, config: Any) -> None:
        """Writes what was made, from which settings, and every remark in full, as JSON beside the manifests."""
        tree = {
            "name": name,
            "settings": to_tree(config),
            "manifests": [media_path(manifest, path.parent) for manifest in self.manifests],
            "counts": [dict(count) for count in self.counts],
            "remarks": {reason: list(names) for reason, names in self.remarks.items()},
        }
        path.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")


def write_set(manifests: Mapping[Path, Sequence[Clip]], remarks: Mapping[str, Sequence[str]] | None = None) -> Prepared:
    """Writes each manifest, which checks its clips and their groups, and says what was written.

    Reasons without a name are dropped.
    """
    for path, clips in manifests.items():
        write_manifest(path, clips)
    counts = tuple(count_splits(clips) for clips in manifests.values())
    told = {reason: tuple(names) for reason, names in (remarks or {}).items() if names}
    return Prepared(tuple(manifests), counts, told)


def count_splits(clips: Sequence[Clip]) -> dict[str, int]:
    """Split -> number of clips; train, val and test first."""
    found = Counter(clip.split for clip in clips)
    return {split: found[split] for split in (*_SPLITS, *found) if split in found}


def read_arrays(path: Path, names: Sequence[str], texts: Sequence[str] = ()) -> dict[str, Any]:
    """The named arrays of a .npz file. InputError names the file, and the array that is missing.

    Those in `texts` are lists of texts, which may be stored as objects.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for name in names:
                if name not in arrays:
                    raise InputError(f"{path}: {name}: array is missing")
            return {name: read_texts(path, name) if name in texts else arrays[name] for name in names}
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a readable .npz file: {str(error).splitlines()[0]}") from error


def media_path(file: Path, folder: Path) -> str:
    """`file` as it stands in a manifest in `folder`: relative, with forward slashes."""
    return Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix()


def seeded(seed: int, *key: str | int) -> np.random.Generator:
    """A generator of its own for every key, so that one draw more in one place changes nothing elsewhere."""
    return np.random.default_rng([seed, *(crc32(str(part).encode()) for part in key)])


def drawn(names: Sequence[Any], share: float, seed: int, *key: str | int) -> set[Any]:
    """A share (rounded down) of the names, drawn by a generator of its own for the key."""
    order = seeded(seed, *key).permutation(len(names))
    return {names[at] for at in order[: int(share * len(names))]}
