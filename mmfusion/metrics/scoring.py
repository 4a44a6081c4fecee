"""Scores of files that any system wrote: captions in JSON, label predictions in JSON lines; and their table as text."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmfusion.types import InputError


def score_captions(
    candidates_path: str | Path,
    sources: Mapping[str, Mapping[str, Sequence[str]]],
    seen: Collection[str] | None = None,
) -> dict[str, dict[str, Any]]:
    """`caption_metrics` of a file C {clip: caption} against each source of sentences {clip: [caption, ...]}, by name.

    C must have a caption for every clip of every source, and none that no source knows; a source is scored on its own
    clips. `seen` are training captions. InputError names the file at fault.
    """
    candidates = _read_object(candidates_path)
    for clip, caption in candidates.items():
        if not isinstance(caption, str):
            raise InputError(f"{candidates_path}: clip {clip}: must be one caption in quotes")
    known = {clip for references in sources.values() for clip in references}
    needs = [(", ".join(sources), [clip for clip in candidates if clip not in known])]
    needs += [(str(candidates_path), [c for c in references if c not in candidates]) for references in sources.values()]
    for path, missing in needs:
        if missing:
            raise InputError(f"{path}: has no entry for clip {missing[0]} ({len(missing)} missing in all)")
    from mmfusion.metrics.captions import caption_metrics
    from mmfusion.metrics.meteor import Meteor

    with Meteor() as meteor:
        return {
            name: caption_metrics(references, {clip: candidates[clip] for clip in references}, meteor, seen)
            for name, references in sources.items()
        }


def score_labels(predictions_path: str | Path, target: Literal["multi", "single"] = "multi") -> dict[str, Any]:
    """`label_metrics` of a predictions file, one JSON object a line.

    Each has `id`, `labels` {class: probability}, and `truth` with either `labels` [class, ...] (all others are known
    to be absent), or `relevances` {class: number} (all others are unknown); where both are missing or null the clip is
    left out and counted as `num_unlabelled`. InputError names the file, line and field.
    """
    path = Path(predictions_path)
    rows = _read_lines(path)
    names = sorted(rows[0][1]["labels"])
    column = {name: position for position, name in enumerate(names)}
    shape = (len(rows), len(names))
    reference, scores, mask = np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=bool)
    for row, (where, line) in enumerate(rows):
        if sorted(line["labels"]) != names:
            raise InputError(f"{where}: labels: not the same classes as in the first line")
        scores[row] = [line["labels"][name] for name in names]
        _fill_truth(where, line.get("truth") or {}, column, reference[row], mask[row])
    from mmfusion.metrics.labels import label_metrics

    try:
        result = label_metrics(reference, scores, names, mask, target)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return {**result, "num_unlabelled": int((~mask.any(axis=1)).sum())}


def format_tables(tables: Mapping[str, Mapping[str, Any]], as_json: bool = False) -> str:
    """`format_scores` of each table, or JSON with all its figures; under its name where there are several."""
    if as_json:
        only = next(iter(tables.values()))
        return json.dumps(tables if len(tables) > 1 else only, indent=1, ensure_ascii=False, allow_nan=False)
    if len(tables) == 1:
        return format_scores(next(iter(tables.values())))
    return "\n\n".join(f"{name}\n{'-' * len(name)}\n{format_scores(result)}" for name, result in tables.items())


def format_scores(result: Mapping[str, Any]) -> str:
    """One line a figure, then one line a class or source where there are any; figures with 4 decimals."""
    single = {name: value for name, value in result.items() if not isinstance(value, dict)}
    wide = max([22, *(len(name) + 1 for name in single)])
    lines = [f"{name:<{wide}}{_cell(value)}" for name, value in single.items()]
    for kind in ("class", "source"):
        rows = result.get(f"per_{kind}")
        if not rows:
            continue
        columns = list(next(iter(rows.values())))
        width = max(len(kind), *map(len, rows))
        lines += ["", f"{kind:<{width}}" + "".join(f"{column:>19}" for column in columns)]
        for name, figures in rows.items():
            lines.append(f"{name:<{width}}" + "".join(f"{_cell(figures[column]):>19}" for column in columns))
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _fill_truth(where: str, truth: Any, column: dict[str, int], reference: np.ndarray, mask: np.ndarray) -> None:
    """Writes one clip's row of the reference and of what is known of it."""
    if not isinstance(truth, dict):
        raise InputError(f"{where}: truth: must be an object with labels or relevances")
    labels, relevances = truth.get("labels"), truth.get("relevances")
    if labels is not None and not (isinstance(labels, list) and all(isinstance(name, str) for name in labels)):
        raise InputError(f"{where}: truth: labels must be a list of classes, or null")
    if relevances is not None and not isinstance(relevances, dict):
        raise InputError(f"{where}: truth: relevances must be an object of class and number, or null")
    # Labels know every class of the clip; a rating says more of the class that it names.
    named = {} if labels is None else {**dict.fromkeys(column, 0.0), **dict.fromkeys(labels, 1.0)}
    rated: dict[str, Any] = {**named, **(relevances or {})}
    for name, value in rated.items():
        if name not in column:
            raise InputError(f"{where}: truth: class {name} is not among the predicted labels")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InputError(f"{where}: truth: class {name} must have a number")
        reference[column[name]], mask[column[name]] = value, True


def _read_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    rows: list[tuple[str, dict[str, Any]]] = []
    seen: set[str] = set()
    for number, text in enumerate(read_text(path).splitlines(), start=1):
        if not text.strip():
            continue
        where = f"{path}:{number}"
        line = _parse(text, where)
        clip, labels = line.get("id"), line.get("labels")
        if not isinstance(clip, str) or clip in seen:
            raise InputError(f"{where}: id: must be a text that no other line has, got {clip!r}")
        if not isinstance(labels, dict) or not labels:
            raise InputError(f"{where}: labels: must be an object of class and probability")
        if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in labels.values()):
            raise InputError(f"{where}: labels: every probability must be a number")
        seen.add(clip)
        rows.append((where, line))
    if not rows:
        raise InputError(f"{path}: holds no predictions")
    return rows


def _read_object(path: str | Path) -> dict[str, Any]:
    return _parse(read_text(Path(path)), str(path))


def read_text(path: Path) -> str:
    """The text of a UTF-8 file; InputError names a file that cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not UTF-8 text"
        raise InputError(f"{path}: cannot be read: {reason}") from error


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, where))
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not valid JSON: {error.msg} at line {error.lineno}") from error
    if not isinstance(value, dict):
        raise InputError(f"{where}: must be a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    """An object in which no key stands twice: the second would silently win."""
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        raise InputError(f"{where}: {next(key for key in keys if keys.count(key) > 1)} is given twice")
    return value
