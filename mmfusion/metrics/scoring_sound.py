"""Scores of what any system wrote to sound files and event lists: separated sources in wav, sound events as text."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import wavfile

from mmfusion.metrics.events import Event, event_metrics, segment_metrics
from mmfusion.metrics.intersection import intersection_metrics
from mmfusion.metrics.scoring import read_text
from mmfusion.metrics.separation import PermuteBy, separation_metrics
from mmfusion.types import InputError

# Where the onset may stand in a line of so many columns: file, scene and an identifier are optional.
ONSET_COLUMNS: dict[int, tuple[int, ...]] = {3: (0,), 4: (1,), 5: (2, 1), 6: (2,)}


def score_separation(
    references_path: str | Path,
    estimates_path: str | Path,
    permute_by: PermuteBy = "si_sdr",
    mixture_path: str | Path | None = None,
) -> dict[str, Any]:
    """`separation_metrics` of two folders with as many wav files each.

    The mixture, over which improvements are counted, is the sum of the references unless a wav file of it is given.
    Files are taken in the order of their names, channels averaged (`num_channels`), and all must have one sample rate
    (`sample_rate_hz`) and one length. `per_source` names the file of each reference and of its estimate. InputError
    names what cannot be read or does not fit.
    """
    files = [_wav_files(Path(path)) for path in (references_path, estimates_path)]
    if len(files[0]) != len(files[1]):
        raise InputError(
            f"{references_path} holds {len(files[0])} wav files and {estimates_path} {len(files[1])}: "
            "as many estimates as references are needed"
        )
    every = [*files[0], *files[1], *([] if mixture_path is None else [Path(mixture_path)])]
    rates, channels, signals = zip(*(read_wav(file) for file in every), strict=True)
    for file, rate, signal in zip(every, rates, signals, strict=True):
        if rate != rates[0] or len(signal) != len(signals[0]):
            raise InputError(
                f"{file}: has {len(signal)} samples at {rate} Hz, "
                f"but {files[0][0]} has {len(signals[0])} at {rates[0]} Hz"
            )
    num = len(files[0])
    names = [file.name for file in files[0]]
    mixture = None if mixture_path is None else signals[-1]
    result = separation_metrics(np.stack(signals[:num]), np.stack(signals[num : 2 * num]), mixture, names, permute_by)
    for row in result["per_source"].values():
        row["estimate"] = files[1][row["estimate"]].name
    return {**result, "sample_rate_hz": rates[0], "num_channels": max(channels)}


def score_events(
    references_path: str | Path,
    estimates_path: str | Path,
    lengths_path: str | Path | None = None,
    resolution_s: float = 1.0,
    collar_s: float = 0.2,
) -> dict[str, dict[str, Any]]:
    """`segment_based`, `event_based` and `intersection_based` figures of two event lists (see `read_events`).

    `lengths_path` is a list of files and their lengths in seconds, one a line, if segments without events behind the
    last one are to count. InputError names the file and line at fault.
    """
    truth, said = read_events(references_path), read_events(estimates_path)
    named = [{event.file for event in events} for events in (truth, said)]
    if all(named) and not named[0] & named[1]:
        raise InputError(f"{references_path} and {estimates_path} have no file in common")
    lengths_s = None if lengths_path is None else read_lengths(lengths_path)
    try:
        return {
            "segment_based": segment_metrics(truth, said, resolution_s, lengths_s),
            "event_based": event_metrics(truth, said, collar_s),
            "intersection_based": intersection_metrics(truth, said, lengths_s=lengths_s),
        }
    except InputError as error:
        raise InputError(f"{references_path} and {estimates_path}: {error}") from error


def read_events(path: str | Path) -> list[Event]:
    """The events of a list as sed_eval and DCASE write them: one a line, columns parted by tabs (or else ; or ,).

    Columns are onset and offset in seconds and label, before them the file where there are several, and a scene, which
    is not read; or what a first line with the names filename, onset, offset, event_label says. A line with a file alone
    is a file without events. Raises InputError for anything else, with the line.
    """
    lines = [(number, text) for number, text in enumerate(read_text(Path(path)).splitlines(), 1) if text.strip()]
    mark = next((mark for mark in "\t;," if any(mark in text for _, text in lines)), "\t")
    rows = [(f"{path}:{number}", [cell.strip() for cell in text.split(mark)]) for number, text in lines]
    header = [cell.lower() for cell in rows[0][1]] if rows else []
    if {"onset", "offset"} <= set(header):
        return [event for where, cells in rows[1:] for event in _by_name(where, header, cells)]
    return [event for where, cells in rows for event in _by_place(where, cells)]


def _by_name(where: str, header: Sequence[str], cells: Sequence[str]) -> list[Event]:
    row = dict(zip(header, cells, strict=False))
    label, file = row.get("event_label", row.get("label", "")), row.get("filename", row.get("file", ""))
    if file and not any((row.get("onset"), row.get("offset"), label)):
        return []
    return [_event(where, file, row.get("onset", ""), row.get("offset", ""), label)]


def _by_place(where: str, cells: Sequence[str]) -> list[Event]:
    if not any(cells[1:]):
        return []
    for at in ONSET_COLUMNS.get(len(cells), ()):
        if _is_number(cells[at]) and _is_number(cells[at + 1]):
            return [_event(where, cells[0] if at else "", cells[at], cells[at + 1], cells[at + 2])]
    raise InputError(f"{where}: must be onset, offset and label, with the file before them where there are several")


def _event(where: str, file: str, onset: str, offset: str, label: str) -> Event:
    if not (_is_number(onset) and _is_number(offset) and 0 <= float(onset) <= float(offset) < np.inf):
        raise InputError(
            f"{where}: onset and offset must be seconds, 0 <= onset <= offset, got {onset!r} and {offset!r}"
        )
    if not label:
        raise InputError(f"{where}: event_label: is missing")
    return Event(file, float(onset), float(offset), label)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_lengths(path: str | Path) -> dict[str, float]:
    """{file: seconds} of lines with a file and its length; a first line with other words is a header."""
    lengths: dict[str, float] = {}
    for number, text in enumerate(read_text(Path(path)).splitlines(), 1):
        cells = [cell.strip() for cell in text.split("\t")]
        if not text.strip() or (number == 1 and not _is_number(cells[-1])):
            continue
        if len(cells) != 2 or not _is_number(cells[1]) or not 0 < float(cells[1]) < np.inf:
            raise InputError(f"{path}:{number}: must be a file and its length in seconds, parted by a tab")
        lengths[cells[0]] = float(cells[1])
    return lengths


def _wav_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".wav")
    if not files:
        raise InputError(f"{folder}: holds no wav files")
    return files


def read_wav(path: Path) -> tuple[int, int, np.ndarray]:
    """Sample rate in Hz, channels, and their mean as float64 (N,), full scale 1."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks that hold no sound
            rate, samples = wavfile.read(path)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as wav: {error}") from error
    values = samples.astype(np.float64)
    if samples.dtype == np.uint8:
        values = values / 128 - 1
    elif np.issubdtype(samples.dtype, np.integer):
        values /= -float(np.iinfo(samples.dtype).min)
    if not values.size or not np.isfinite(values).all():
        raise InputError(f"{path}: holds {'no samples' if not values.size else 'a sample that is not a finite number'}")
    values = values.reshape(len(values), -1)
    return int(rate), values.shape[1], values.mean(axis=1)
