"""Files that appear whole or not at all, and traces of those that never did.

A file is written under a temporary name that ends in .part and renamed when it is complete. It is locked for as long as
its writer lives, however that ends, so that what a killed process left behind can be told from what another process is
writing at this moment.
"""

from __future__ import annotations

import fcntl
import os
import re
import uuid
from contextlib import suppress
from io import FileIO
from pathlib import Path


def as_file_name(label: str) -> str:
    """A label as part of a file's name: what is no letter, digit, dot or hyphen becomes an underscore."""
    return re.sub(r"[^\w.-]+", "_", label)


def open_part(folder: Path) -> FileIO:
    """A new temporary file in the folder, locked for as long as it is open.

    Unbuffered: what a failed write leaves behind in a buffer could not be taken back.
    """
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        file = FileIO(str(folder / f"{uuid.uuid4().hex}.part"), "x")
        lost = False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lost = True
        except OSError:  # a file system without locks: what is abandoned there stays
            pass
        if not lost and os.path.exists(file.name):
            return file
        file.close()  # it was taken for abandoned before it was locked


def write_all(file: FileIO, data: memoryview | bytes) -> int:
    """Writes everything (an unbuffered file may take a part at a time); returns the number of bytes."""
    view = memoryview(data)
    written = 0
    while written < len(view):
        written += file.write(view[written:])
    return written


def write_whole(path: Path, data: bytes) -> None:
    """Puts the data at `path`, in place of what was there; OSError leaves that as it was."""
    with open_part(path.parent) as part:
        try:
            write_all(part, data)
            os.replace(part.name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(part.name)
            raise


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files that nobody has open any more."""
    for part in folder.glob("*.part"):
        with suppress(OSError), part.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink(missing_ok=True)
