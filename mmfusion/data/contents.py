"""What is in a media file, as a hash of its bytes, remembered so that a file is read for it only once.

A file whose path, size and modification time are as before is taken to hold what it held. The hash does not depend on
where the file lies, so a data set that is moved or listed by another manifest finds its decoded media again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from mmfusion.data.parts import write_whole

_SAVE_EVERY_S = 10.0


class Contents:
    """The hashes of files by path; `path` is where they are remembered."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, list] = self._read()

    def hash(self, files: Iterable[Path], workers: int, progress: bool) -> tuple[dict[Path, str], dict[Path, str]]:
        """(hashes, reasons) by file: each file is in one of the two; reasons say why it cannot be read.

        Files not seen before are hashed by `workers` threads (the hash function runs beside Python), with a bar.
        """
        hashes: dict[Path, str] = {}
        reasons: dict[Path, str] = {}
        new: list[Path] = []
        for file in dict.fromkeys(files):
            try:
                remembered = self._known.get(os.path.abspath(file))
                if remembered is not None and remembered[:2] == _stamp(file):
                    hashes[file] = remembered[2]
                else:
                    new.append(file)
            except OSError as error:
                reasons[file] = _reason(error)
        if new:
            self._hash_new(new, max(1, workers), progress, hashes, reasons)
        return hashes, reasons

    def _hash_new(self, files: list[Path], workers: int, progress: bool, hashes: dict, reasons: dict) -> None:
        saved = time.monotonic()
        pool = ThreadPoolExecutor(workers)
        try:
            results = pool.map(_hash_file, files)
            bar = tqdm(results, "hashing media", len(files), unit="file", disable=not progress, delay=1.0)
            for file, (stamp, digest, reason) in zip(files, bar, strict=True):
                if reason is not None:
                    reasons[file] = reason
                    continue
                hashes[file] = digest
                self._known[os.path.abspath(file)] = [*stamp, digest]
                if time.monotonic() - saved > _SAVE_EVERY_S:
                    self._save()
                    saved = time.monotonic()
        finally:
            pool.shutdown(cancel_futures=True)
            self._save()

    def _read(self) -> dict[str, list]:
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none yet, or damaged by a loss of power: it costs hashing again, no more
            return {}
        return known if isinstance(known, dict) else {}

    def _save(self) -> None:
        # Another process may have saved since; of what both know, either is right.
        self._known = {**self._read(), **self._known}
        write_whole(self._path, json.dumps(self._known).encode())


def _stamp(file: Path) -> list[int]:
    status = os.stat(file)
    return [status.st_size, status.st_mtime_ns]


def _hash_file(file: Path) -> tuple[list[int], str, str | None]:
    try:
        stamp = _stamp(file)  # before the bytes: a file that changes meanwhile is hashed again next time
        digest = hashlib.blake2b(digest_size=20)
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        return [], "", _reason(error)
    return stamp, digest.hexdigest(), None


def _reason(error: OSError) -> str:
    return "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or type(error).__name__).lower()
