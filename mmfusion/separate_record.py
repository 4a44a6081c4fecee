"""What was separated from a file, beside the sources: a record that says which files of a folder are ours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmfusion.data.parts import as_file_name, write_whole
from mmfusion.types import InputError

NAME = "separated.json"


def source_names(num: int) -> list[str]:
    """Names of the files of `num` sources, numbered from 1 with equal width: sorted, they are in their order."""
    width = len(str(num))
    return [f"source{number:0{width}d}.wav" for number in range(1, num + 1)]


def class_names(sounds: Sequence[str]) -> list[str]:
    """Names of the files of sounds that are called like their classes. InputError when two would go into one file."""
    names = [as_file_name(sound) for sound in sounds]
    for place, name in enumerate(names):
        if name in names[:place]:
            both = f"{sounds[names.index(name)]!r} and {sounds[place]!r}"
            raise InputError(f"--classes: {both} would both go into {name}.wav")
    return [f"{name}.wav" for name in names]


class Record:
    """The record of the sources of the file at `path`, in `folder`.

    A file is overwritten or removed only when a record says that it was written for the same `path` before. InputError
    when the folder holds the sources of another file, and when its record cannot be read.
    """

    def __init__(self, folder: Path, path: Path) -> None:
        self.folder, self.path = folder, path.resolve()
        self._before: list[str] = []
        self._claimed = False
        try:
            found = json.loads((folder / NAME).read_text(encoding="utf-8"))
            of, names = Path(found["path"]), found["sources"]
            if not all(isinstance(name, str) and name == Path(name).name and name.endswith(".wav") for name in names):
                raise ValueError("sources")
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{folder / NAME}: not the record of separated sources; choose another folder") from error
        if of != self.path:
            raise InputError(f"{folder}: holds the sources of {of}; choose another folder or delete this one")
        self._before = names

    def claim(self, names: Sequence[str]) -> None:
        """Says that the files are about to be written. InputError when one is there that no record names."""
        for name in names:
            if name not in self._before and (self.folder / name).exists():
                raise InputError(f"{self.folder / name}: was not written by this tool; choose another folder")
        self._before, self._claimed = sorted({*self._before, *names}), True
        self._write({})

    def finish(self, names: Sequence[str], facts: Mapping[str, Any]) -> None:
        """Removes what an earlier call wrote and this one did not, and notes the files with what is known of them."""
        for name in set(self._before) - set(names):
            (self.folder / name).unlink(missing_ok=True)
        self._before = list(names)
        self._write(facts)

    def abandon(self) -> None:
        """After a failure: the record names what is there; where nothing is, neither is a record nor the folder."""
        if not self._claimed:
            return
        self._before = [name for name in self._before if (self.folder / name).exists()]
        if self._before:
            self._write({})
            return
        (self.folder / NAME).unlink(missing_ok=True)
        with suppress(OSError):  # something of somebody else's is in it
            self.folder.rmdir()

    def _write(self, facts: Mapping[str, Any]) -> None:
        tree = {"path": str(self.path), "sources": self._before, **facts}
        write_whole(self.folder / NAME, (json.dumps(tree, indent=1) + "\n").encode())
