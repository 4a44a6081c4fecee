"""METEOR 1.5 (Denkowski and Lavie 2014, "Meteor Universal"), English, by the jar that pycocoevalcap brings.

Conventions: scores in [0, 1]; candidates and references are already tokenized (captions_tokenizer). The corpus score is
the formula on the *summed* statistics of all segments, as the jar's EVAL computes it; it is not the mean of the segment
scores. METEOR as nltk computes it is another metric and is not offered here.

A segment's statistics are the 23 numbers that the jar's SCORE prints, for the best of its references:
    0 candidate words, 1 reference words, 2 and 3 function words of each,
    4..19 for exact, stem, synonym, paraphrase in turn: content words matched in candidate and in reference, function
          words matched in candidate and in reference,
    20 chunks, 21 and 22 words matched in candidate and in reference.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmfusion.metrics.java import find_java, scorer_file
from mmfusion.types import InputError

NUM_STATISTICS = 23
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
STAGE_WEIGHTS = (1.0, 0.6, 0.8, 0.6)
# So few that their answers fit in any pipe: the jar can never wait for us to read while we wait for it to read.
QUESTIONS_AT_ONCE = 32
# The jar reads numbers by the machine's locale, so that EVAL dies where a comma stands for the point.
JAVA_OPTIONS = ("-Xmx2G", "-Duser.language=en", "-Duser.country=US")


@dataclass(frozen=True)
class MeteorScores:
    """`corpus`, `segments` in the order of the candidates, and their `statistics` (N, 23) float64."""

    corpus: float
    segments: tuple[float, ...]
    statistics: np.ndarray


class Meteor:
    """A running METEOR process; use it as a context manager, or call `close`.

    Every answer has to arrive within `deadline_s` of its question (32 are asked at a time). A process that dies or is
    late is killed and started again once in the life of this object, and the question is asked again; after that it is
    an InputError. Starting takes some seconds (the jar reads its paraphrase table), so share one object among several
    corpora. Not for use by two threads at once.
    """

    def __init__(self, java: str | None = None, deadline_s: float = 60.0) -> None:
        self.java = java or find_java()
        self.deadline_s = deadline_s
        self._restarts_left = 1
        self._closed = False
        self._start()

    def __enter__(self) -> Meteor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process; further questions are an error."""
        self._closed = True
        self._end()

    @property
    def pid(self) -> int:
        """The process that answers at the moment."""
        return self._process.pid

    def score(self, references: Mapping[str, Sequence[str]], candidates: Mapping[str, str]) -> MeteorScores:
        """Corpus and segment scores of tokenized captions, in the order of `candidates`; equal to pycocoevalcap's.

        Raises InputError when a candidate has no references, or when Java cannot be had or does not answer.
        """
        if not candidates:
            raise InputError("METEOR: there are no captions to score")
        missing = [clip for clip in candidates if not references.get(clip)]
        if missing:
            raise InputError(f"METEOR: clip {missing[0]} has no references")
        lines = self._statistics_lines([_question(references[clip], caption) for clip, caption in candidates.items()])
        answers = self._ask("EVAL ||| " + " ||| ".join(lines), len(lines) + 1)
        scores = [_numbers(answer, 1)[0] for answer in answers]
        statistics = np.array([_numbers(line, NUM_STATISTICS) for line in lines])
        return MeteorScores(scores[-1], tuple(scores[:-1]), statistics)

    def _statistics_lines(self, questions: list[str]) -> list[str]:
        lines: list[str] = []
        for first in range(0, len(questions), QUESTIONS_AT_ONCE):
            block = questions[first : first + QUESTIONS_AT_ONCE]
            lines += self._ask("\n".join(block), len(block))
        return lines

    def _ask(self, question: str, num_answers: int) -> list[str]:
        if self._closed:
            raise ValueError("this METEOR process has been closed")
        while True:
            try:
                return self._exchange(question, num_answers)
            except _LostError as lost:
                said = self._end()
                if not self._restarts_left:
                    reason = f" ({said})" if said else ""
                    raise InputError(f"METEOR: Java at {self.java} {lost}, also after a restart{reason}") from None
                self._restarts_left -= 1
                self._start()

    def _exchange(self, question: str, num_answers: int) -> list[str]:
        process, overdue = self._process, threading.Event()

        def expire() -> None:
            # Killing is what ends a blocked write or read in the asking thread, whatever the process is doing.
            overdue.set()
            _kill_group(process)

        watchdog = threading.Timer(self.deadline_s, expire)
        watchdog.daemon = True
        watchdog.start()
        try:
            process.stdin.write(question.encode("utf-8", errors="replace") + b"\n")
            process.stdin.flush()
            answers = [_next_answer(process.stdout) for _ in range(num_answers)]
        except (OSError, _LostError):
            raise _LostError(f"gave no answer within {self.deadline_s:g} s" if overdue.is_set() else "ended") from None
        except BaseException:
            # Interrupted between a question and its answer: what comes next would be the answer to something else.
            self.close()
            raise
        finally:
            watchdog.cancel()
        return answers

    def _start(self) -> None:
        jar = scorer_file("meteor/meteor-1.5.jar")
        command = [self.java, *JAVA_OPTIONS, "-jar", jar.name, "-", "-", "-stdio", "-l", "en", "-norm"]
        pipe = subprocess.PIPE
        try:
            # A session of its own: `java` may be a script, and all that it started has to be killed with it.
            self._process: Any = subprocess.Popen(
                command, cwd=jar.parent, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
            )
        except OSError as error:
            raise InputError(f"METEOR: Java at {self.java} cannot be started: {error.strerror or error}") from error
        self._said: deque[str] = deque(maxlen=5)
        self._drain = threading.Thread(target=_drain, args=(self._process.stderr, self._said), daemon=True)
        self._drain.start()
        self._finalizer = weakref.finalize(self, _end_process, self._process)

    def _end(self) -> str:
        """Kills the process; the last thing that it said on stderr."""
        self._finalizer()
        self._drain.join(timeout=1)
        return self._said[-1] if self._said else ""


class _LostError(Exception):
    """The process is of no more use: what happened to it, as the rest of a sentence."""


def summable(statistics: np.ndarray) -> np.ndarray:
    """Segment statistics (..., 23) as the jar adds them up: a segment that is wholly one match brings no chunk."""
    rows = np.array(statistics, dtype=np.float64)
    matched = rows[..., 4:20].reshape(*rows.shape[:-1], 8, 2).sum(axis=-2)
    whole = (matched == rows[..., 0:2]).all(axis=-1) & (rows[..., 20] == 1)
    rows[..., 20] = np.where(whole, 0.0, rows[..., 20])
    return rows


def meteor_from_sums(sums: np.ndarray) -> np.ndarray:
    """METEOR 1.5 (English, ranking weights) of added `summable` statistics (..., 23) -> (...), as the jar's EVAL.

    F = P R / (alpha P + (1 - alpha) R), penalty = gamma (chunks / matches)^beta, score = F (1 - penalty), with content
    words weighted by delta and function words by 1 - delta (Denkowski and Lavie 2014, section 2); 0 without a match.
    """
    totals = np.asarray(sums, dtype=np.float64)
    matches = totals[..., 4:20].reshape(*totals.shape[:-1], 4, 2, 2)  # stage, content or function, side
    weighted = np.einsum("...skc,s,k->...c", matches, np.array(STAGE_WEIGHTS), np.array([DELTA, 1 - DELTA]))
    lengths, function_words = totals[..., 0:2], totals[..., 2:4]
    weighted_lengths = DELTA * (lengths - function_words) + (1 - DELTA) * function_words
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = np.moveaxis(weighted / weighted_lengths, -1, 0)
        mean = 1 / ((1 - ALPHA) / precision + ALPHA / recall)
        score = mean * (1 - GAMMA * (totals[..., 20] / totals[..., 21:23].mean(axis=-1)) ** BETA)
    return np.where(np.isnan(score), 0.0, np.maximum(score, 0.0))


def _question(references: Sequence[str], candidate: str) -> str:
    return "SCORE ||| " + " ||| ".join([*map(_one_line, references), _one_line(candidate)])


def _one_line(text: str) -> str:
    """Text that can be one field of a question: no separators and no line breaks of any kind."""
    return " ".join(text.replace("|||", " ").split())


def _next_answer(pipe: Any) -> str:
    """The next line that holds numbers; the virtual machine's own warnings on the same pipe are passed over."""
    for raw in pipe:
        line = raw.decode("utf-8", errors="replace").strip()
        if line.startswith("Error"):
            raise InputError(f"METEOR: {line}")
        if line and raw.endswith(b"\n") and _are_numbers(line):
            return line
    raise _LostError


def _are_numbers(line: str) -> bool:
    try:
        return bool([float(part) for part in line.split()])
    except ValueError:
        return False


def _numbers(line: str, count: int) -> tuple[float, ...]:
    values = tuple(float(part) for part in line.split())
    if len(values) != count:
        raise InputError(f"METEOR: expected {count} numbers from the jar, got {line!r}")
    return values


def _drain(pipe: Any, said: deque[str]) -> None:
    """Reads stderr to its end, so that the process can never block on it; the last lines are kept for a message."""
    for raw in pipe:
        line = raw.decode("utf-8", errors="replace").strip()
        if line:
            said.append(line)


def _kill_group(process: Any) -> None:
    """SIGKILL to the process and all that it started; only valid while it has not been waited for."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _end_process(process: Any) -> None:
    """Kills and reaps; no locks, so that it may run in a finalizer at any moment."""
    if process.returncode is None:
        _kill_group(process)
        process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            pipe.close()
