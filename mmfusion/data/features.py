"""Precomputed features as files.

A `.npz` file with `data` float (T, F), `rate` in steps a second, and, where some steps are missing, `mask` bool (T,).
"""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from mmfusion.types import InputError


def read_features(path: str | Path) -> tuple[np.ndarray, np.ndarray, float]:
    """(data float32 (T, F), mask bool (T,), rate in steps a second) of a feature file; T >= 1.

    Values under a False mask come back as zeros. Raises InputError naming the file and the array at fault: a missing
    or misshapen array, a value that is not finite where the mask is True, pickled content.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if isinstance(arrays, np.ndarray):
                raise InputError(f"{path}: not a .npz file of features but one bare array")
            found = {name: arrays[name] for name in arrays.files}
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such feature file") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not a readable .npz file of features: {str(error).splitlines()[0]}") from error
    unknown = sorted(set(found) - {"data", "rate", "mask"})
    if unknown:
        raise InputError(f"{path}: {unknown[0]}: unknown array (valid: data, rate, mask)")
    for name in ("data", "rate"):
        if name not in found:
            raise InputError(f"{path}: {name}: array is missing")
    return _checked(str(path), found["data"], found["rate"], found.get("mask"))


def write_features(path: str | Path, data: np.ndarray, rate: float, mask: np.ndarray | None = None) -> None:
    """Writes a feature file that `read_features` gives back; the file appears whole or not at all."""
    path = Path(path)
    if path.suffix != ".npz":
        raise InputError(f"{path}: the name of a feature file must end in .npz")
    checked, real, rate = _checked(str(path), np.asarray(data), np.asarray(rate), mask)
    arrays = {"data": checked, "rate": np.float64(rate)} | ({} if mask is None else {"mask": real})
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial{os.getpid()}")
    try:
        with partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _checked(
    path: str, data: np.ndarray, rate: np.ndarray, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, float]:
    if data.ndim != 2 or 0 in data.shape or data.dtype.kind not in "fiu":
        raise InputError(f"{path}: data: must be numbers (steps, features), got {data.dtype} {data.shape}")
    if rate.ndim != 0 or rate.dtype.kind not in "fiu" or not (np.isfinite(rate) and rate > 0):
        raise InputError(f"{path}: rate: must be one positive number of steps a second, got {rate}")
    real = np.ones(len(data), dtype=bool) if mask is None else np.asarray(mask)
    if real.dtype != bool or real.shape != (len(data),):
        raise InputError(f"{path}: mask: must be bool ({len(data)},), got {real.dtype} {real.shape}")
    checked = np.where(real[:, None], data, 0).astype(np.float32)
    if not np.isfinite(checked).all():
        step = int(np.flatnonzero(~np.isfinite(checked).all(axis=1))[0])
        raise InputError(f"{path}: data: step {step} holds a value that is not finite")
    return checked, real, float(rate)
