"""Texts that numpy stored as an array of Python objects, read without running what a pickle may hold.

Published sets have such arrays (OpenMIC's `sample_key`). numpy reads them with `allow_pickle` alone, which runs any
code that a file brings; here a pickle may name what an array of texts is made of and nothing else.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

# `numpy.core` became `numpy._core` with numpy 2; a file says the name of the numpy that wrote it.
_PARTS = {"_reconstruct": np.empty(0, object).__reduce__()[0], "scalar": np.float64(0).__reduce__()[0]}  # type: ignore[index]
_ALLOWED = {(f"numpy.{core}.multiarray", name): part for core in ("core", "_core") for name, part in _PARTS.items()}
_ALLOWED |= {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}


class _Texts(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        try:
            return _ALLOWED[module_name, global_name]
        except KeyError as error:
            raise ValueError(f"holds {module_name}.{global_name}, and only texts are read") from error


def read_texts(path: Path, name: str) -> np.ndarray:
    """The array `name` of a .npz file as an array of str. ValueError when it holds anything but texts."""
    with zipfile.ZipFile(path) as archive:
        with archive.open(f"{name}.npy") as file:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(file)
            found = _unpickled(file, name) if dtype.hasobject else None
        if found is None:
            with archive.open(f"{name}.npy") as file:
                return np.lib.format.read_array(file, allow_pickle=False).astype(str)
    if not isinstance(found, np.ndarray) or found.shape != shape or not all(isinstance(one, str) for one in found.flat):
        raise ValueError(f"{name}: not an array of texts")
    return found.astype(str)


def _unpickled(file: IO[bytes], name: str) -> Any:
    try:
        return _Texts(file).load()
    except (pickle.UnpicklingError, AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"{name}: not an array of texts: {error}") from error
