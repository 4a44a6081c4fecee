"""Reads media into shards with several processes, so that nothing that was finished is lost when it is interrupted.

Each process takes a few jobs at a time, reads for a few seconds, and commits what it read as one shard; what it did not
get to goes back in the queue. When a decoder takes its process down with it, the jobs that were under way are halved
again and again in processes of their own until the file at fault is found, which is then noted as unreadable.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from mmfusion.data.inputs import FramesInput, InputConfig, WaveformInput
from mmfusion.data.processes import interrupts_held
from mmfusion.data.raw import Raw
from mmfusion.data.reading import read_raw
from mmfusion.data.shards import Absent, Failed, ShardWriter
from mmfusion.types import InputError

_CHUNK_JOBS = 256
_CANNOT_BEGIN = (
    "the processes that read the clips cannot begin; a script that starts such work must do so under "
    '`if __name__ == "__main__":`'
)
_CHUNK_S = 4.0
_CHUNK_BYTES = 256 << 20


@dataclass(frozen=True)
class Job:
    """One input to read from one file, and the key to store it under."""

    key: str
    path: Path
    input: InputConfig
    start_s: float
    end_s: float


# A failure of this "reader" is of no known version, so it is tried again at the next build.
PASSING = "passing"
ITS_FILE = "<its file>"
"""stands in the reason of a failure for the path of the file"""
# What readers report as a file's fault and may be another's: the disk's, the network's, or of too many open files.
_PASSING_ERRORS = frozenset(
    (errno.EIO, errno.EACCES, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT, errno.ENOMEM, errno.EINTR)
)


@cache
def reader_version(config: InputConfig) -> str:
    """The decoder that reads an input and its version; a failure is noted for this decoder only."""
    package = "numpy"
    if isinstance(config, FramesInput) and config.backend == "decord":
        package = "decord"
    elif isinstance(config, WaveformInput | FramesInput):
        package = "av"
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


def build_shards(jobs: Sequence[Job], folder: Path, workers: int, progress: bool) -> None:
    """Reads all jobs into shards in `folder`, in `workers` processes (0: in this one).

    A file that cannot be read is noted as `Failed`. OSError when a shard cannot be written.
    """
    with tqdm(total=len(jobs), desc="decoding media", unit="input", disable=not progress, delay=0.5) as bar:
        if workers > 0:
            _Builder(folder, workers, bar).run(jobs)
            return
        while jobs:
            num_done = build_shard(folder, jobs)
            bar.update(num_done)
            jobs = jobs[num_done:]


def build_shard(folder: Path, jobs: Sequence[Job]) -> int:
    """Reads the first jobs, for a few seconds, into one shard; returns how many (0 once the build is to stop)."""
    started = time.monotonic()
    num_done = 0
    with ShardWriter(folder) as shard:
        while num_done < len(jobs) and not _stop.is_set():
            try:
                shard.put(jobs[num_done].key, _read(jobs[num_done]))
            except OSError:  # no room: keep what there was room for
                with suppress(OSError):
                    shard.commit()
                raise
            num_done += 1
            if time.monotonic() - started > _CHUNK_S or shard.num_bytes > _CHUNK_BYTES:
                break
        if num_done:
            shard.commit()
    return num_done


def _read(job: Job) -> Raw | Absent | Failed:
    try:
        raw = read_raw(job.path, job.input, job.start_s, job.end_s)
    except InputError as error:
        passing = isinstance(error.__cause__, OSError) and error.__cause__.errno in _PASSING_ERRORS
        # Files of the same content share the entry: each is named where it is reported.
        reason = str(error).replace(str(job.path), ITS_FILE)
        return Failed(reason, PASSING if passing else reader_version(job.input))
    except (OSError, MemoryError) as error:
        return Failed(f"{ITS_FILE}: {error or type(error).__name__}", PASSING)
    except Exception as error:  # one odd file must not end the build of thousands; it is named in the report
        reason = f"{ITS_FILE}: the decoder failed with {type(error).__name__}: {error}"
        return Failed(reason, reader_version(job.input))
    return Absent() if raw is None else raw


class _Builder:
    """Keeps a pool of processes busy, and survives the loss of one."""

    def __init__(self, folder: Path, workers: int, bar: tqdm) -> None:
        self.folder, self.workers, self.bar = folder, workers, bar

    def run(self, jobs: Sequence[Job]) -> None:
        size = max(1, min(_CHUNK_JOBS, -(-len(jobs) // (4 * self.workers))))
        waiting = deque(list(jobs[start : start + size]) for start in range(0, len(jobs), size))
        while waiting:
            self._isolate(self._until_broken(waiting))

    def _until_broken(self, waiting: deque[list[Job]]) -> list[list[Job]]:
        """Works on the chunks until none is left or a process dies; returns the chunks that were under way then."""
        running: dict[Future[int], list[Job]] = {}
        lost: list[list[Job]] = []
        with _processes(min(self.workers, len(waiting))) as (pool, _):
            while (waiting or running) and not lost:
                while waiting and len(running) < 2 * self.workers and not lost:
                    chunk = waiting.popleft()
                    try:
                        running[_submit(pool, self.folder, chunk)] = chunk
                    except BrokenProcessPool:
                        lost.append(chunk)
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    self._collect(future, running.pop(future), waiting, lost)
        for future, chunk in running.items():  # all ended with their pool, some before a process died
            self._collect(future, chunk, waiting, lost)
        return lost

    def _collect(self, future: Future[int], chunk: list[Job], waiting: deque[list[Job]], lost: list[list[Job]]) -> None:
        try:
            rest = self._account(future.result(), chunk)
        except (BrokenProcessPool, CancelledError):
            lost.append(chunk)
        else:
            if rest:
                waiting.append(rest)

    def _account(self, num_done: int, chunk: list[Job]) -> list[Job]:
        """Counts the jobs that are done; returns the rest of the chunk."""
        self.bar.update(num_done)
        return chunk[num_done:]

    def _isolate(self, chunks: list[list[Job]]) -> None:
        """Works on one chunk at a time; one that ends its process is halved until a single file is to blame."""
        while chunks:
            with _processes(1) as (pool, began):
                while chunks:
                    jobs = chunks.pop()
                    try:
                        rest = self._account(_submit(pool, self.folder, jobs).result(), jobs)
                    except BrokenProcessPool:
                        if not began.is_set():
                            raise InputError(_CANNOT_BEGIN) from None
                        if len(jobs) == 1:
                            self._note_crash(jobs[0])
                        else:
                            chunks += [jobs[len(jobs) // 2 :], jobs[: len(jobs) // 2]]
                        break
                    if rest:
                        chunks.append(rest)

    def _note_crash(self, job: Job) -> None:
        with ShardWriter(self.folder) as shard:
            reason = f"{ITS_FILE}: the decoder crashed on this file"
            shard.put(job.key, Failed(reason, reader_version(job.input)))
            shard.commit()
        self.bar.update(1)


@contextmanager
def _processes(num: int) -> Iterator[tuple[ProcessPoolExecutor, _Flag]]:
    """A pool whose processes end soon, with what they have read kept, when the block is left by an exception.

    With it a flag that is set once a process has begun: without it, no file can be to blame.
    """
    # A fresh interpreter for each process: to fork one that has threads (torch's) may hang it.
    context = multiprocessing.get_context("spawn")
    stop, began = context.Event(), context.Event()
    pool = ProcessPoolExecutor(num, context, initializer=_begin_process, initargs=(stop, began))
    try:
        yield pool, began
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, folder: Path, jobs: list[Job]) -> Future[int]:
    # The first call starts the processes, which must not see an interrupt even while they begin.
    in_main = threading.current_thread() is threading.main_thread()
    with interrupts_held() if in_main else nullcontext():
        return pool.submit(build_shard, folder, jobs)


class _Flag(Protocol):
    def is_set(self) -> bool: ...
    def set(self) -> None: ...


# Set when the build is to stop; in a process of a pool, the flag that all of the pool share.
_stop: _Flag = threading.Event()


def _begin_process(stop: _Flag, began: _Flag) -> None:
    """An interrupt is the parent's to handle; a process whose parent was killed ends instead of waiting for ever."""
    global _stop  # noqa: PLW0603 - set once, when the process begins
    _stop = stop
    began.set()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
