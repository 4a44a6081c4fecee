"""Work in several processes that can be interrupted: no traceback of theirs, and none that is left behind."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

from mmfusion.types import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")


def in_processes(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    workers: int,
    tasks_a_turn: int = 1,
    initializer: Callable[..., None] | None = None,
    initargs: tuple[Any, ...] = (),
) -> Generator[Result, None, None]:
    """`function` of every task, in their order; `initializer(*initargs)` runs once in each process before.

    Close the iterator (`contextlib.closing`) when it may not be read to its end: the processes then finish the turn
    that they are at and end. Raises what a task raises, and InputError when a process is ended from outside.
    """
    # Fresh interpreters: to fork one that has threads may hang it.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer, initargs)
    try:
        with interrupts_held():
            results = pool.map(function, tasks, chunksize=tasks_a_turn)
        yield from results
    except BrokenProcessPool as error:
        raise InputError("a process was ended from outside; run the same command again") from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """An interrupt waits until this ends; processes that are started inside never see one, from their first moment on.

    The terminal sends an interrupt to all processes at once; only the one that started the others may answer it. Use
    it in the main thread.
    """
    came: list[int] = []
    # The mask is what the new processes inherit. The handler is for our other threads, which the mask does not reach.
    handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
        if came:
            raise KeyboardInterrupt
