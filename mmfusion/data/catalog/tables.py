"""Files of text as the sets have them: tables, JSON objects, lines. InputError always names the file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmfusion.data.manifest import unique_keys
from mmfusion.types import InputError


def read_table(path: Path, columns: Collection[str], aliases: Mapping[str, str] | None = None) -> list[dict[str, str]]:
    """The rows of a CSV file (UTF-8, else cp949), each with a word or more in all of `columns`. Raises InputError.

    A column that is missing may stand under its alias.
    """
    rows = list(csv.DictReader(io.StringIO(read_text(path, ("utf-8-sig", "cp949")), newline="")))
    if not rows:
        raise InputError(f"{path}: holds no rows")
    for column, alias in (aliases or {}).items():
        if column not in rows[0] and alias in rows[0]:
            rows = [{**row, column: row[alias]} for row in rows]
    for column in columns:
        if column not in rows[0]:
            raise InputError(f"{path}: {column}: column is missing (there are {', '.join(map(str, rows[0]))})")
        for number, row in enumerate(rows, start=1):
            if not (row[column] or "").strip():
                raise InputError(f"{path}: row {number}: {column}: must not be empty")
    return rows


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file, in which no key may stand twice. Raises InputError."""
    try:
        tree = json.loads(read_text(path), object_pairs_hook=unique_keys)
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(tree, dict) or not tree:
        raise InputError(f"{path}: must be a JSON object of clips and their captions")
    return tree


def read_text(path: Path, encodings: Sequence[str] = ("utf-8-sig",)) -> str:
    """The text of a file in the first of the encodings that it is in. InputError names the file."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    for encoding in encodings:
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise InputError(f"{path}: not {' or '.join(encodings)} text")
