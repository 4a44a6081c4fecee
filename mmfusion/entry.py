"""How every tool ends: an exit status, and one sentence instead of a traceback for what the user can mend.

exit 0 done | 2 bad input, no room or no right to write | 130 interrupted (what was already written is kept)
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

from mmfusion.types import InputError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}


def first_process() -> bool:
    """True in the process that speaks for all of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def run_tool(main: Callable[[], int | None]) -> None:
    """Runs a tool's `main` and exits with its status; prints `error: <sentence>` on standard error for bad input.

    An InputError, a full disk and a refused file are the user's to mend: one sentence, status 2. Anything else is a
    fault of ours and keeps its traceback.
    """
    try:
        status = main() or 0
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    except (InputError, OSError) as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        status = 2
    sys.exit(status)


def _sentence(error: InputError | OSError) -> str | None:
    """What to tell the user, in one line; None for an error that is not the user's."""
    if isinstance(error, InputError):
        return " ".join(str(error).split())
    place = f"{error.filename}: " if error.filename else ""
    if error.errno in _FULL:
        return f"{place}the disk is full; free some space and run the same command again"
    if error.errno in _REFUSED:
        return f"{place}cannot be opened: {(error.strerror or 'refused').lower()}"
    return None
