"""Texts that numpy stored as an array of Python objects, read without numpy's own unpickling.

Published sets have such arrays (OpenMIC's `sample_key`). numpy reads them with `allow_pickle` alone, which runs any
code that a file brings, and its own parts can be made to read any address. So a pickle is read with stand-ins for what
an array of texts is made of, which keep texts and do nothing; it may name nothing else.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np


class _Array:
    """Stands in for an array: keeps the shape and the list of its items."""

    def __init__(self, *_: Any) -> None:
        self.texts: list[str] = []
        self.shape: tuple[int, ...] = ()

    def __setstate__(self, state: Any) -> None:
        _, self.shape, _, _, self.texts = state


class _Kind:
    """Stands in for the kind of the items."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def _encode(text: str, encoding: str) -> bytes:
    """What protocol 2 makes bytes by, of which an array has one."""
    if encoding != "latin1" or len(text) > 1:
        raise ValueError("more than a byte")
    return text.encode("latin1")


_PARTS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _encode,
}


class _Texts(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        return _PARTS[module_name, global_name]


def read_texts(path: Path, name: str) -> list[str]:
    """The texts of the one-dimensional array `name` of a .npz file. ValueError when it holds anything else."""
    with zipfile.ZipFile(path) as archive:
        with archive.open(f"{name}.npy") as file:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(file)
            if len(shape) != 1 or dtype.kind not in "OUS":
                raise ValueError(f"{name}: not a list of texts but an array {shape} of {dtype}")
            if dtype.hasobject:
                return _unpickled(file, name, shape)
        with archive.open(f"{name}.npy") as file:
            found = np.lib.format.read_array(file, allow_pickle=False)
            return found.astype(str).tolist()


def _unpickled(file: IO[bytes], name: str, shape: tuple[int, ...]) -> list[str]:
    try:
        found = _Texts(file).load()
        texts = found.texts
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError("other things than texts")
        if tuple(found.shape) != shape or len(texts) != math.prod(shape):
            raise ValueError(f"not {shape} of them")
    except Exception as error:  # a pickle can fail in any way
        raise ValueError(f"{name}: not a list of texts: {type(error).__name__}: {error}") from error
    return texts
