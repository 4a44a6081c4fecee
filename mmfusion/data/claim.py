"""A folder that files are added to belongs to one choice of settings, which is written down in it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmfusion.types import InputError


def claim(folder: Path, settings: Mapping[str, Any], what: str) -> None:
    """Notes the settings (JSON values) in `settings.json`, or checks that they are those of what is already there.

    InputError names the first that differs; OSError when the file cannot be written.
    """
    path = folder / "settings.json"
    if not path.exists():
        partial = path.with_suffix(f".partial{os.getpid()}")
        partial.write_text(json.dumps(settings, indent=1) + "\n")
        partial.replace(path)
        return
    try:
        found = json.loads(path.read_text())
        changed = [name for name in settings if found.get(name) != settings[name]]
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: not the settings of {what}; choose another folder") from error
    if changed:
        name = changed[0]
        raise InputError(
            f"{path}: {name} is {found.get(name)} in the set that is already there, not {settings[name]}; "
            "choose another folder or delete this one"
        )
