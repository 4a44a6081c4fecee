"""How tools end: exit status, and what the user reads."""

from __future__ import annotations

import errno
import subprocess
import sys
import time

import pytest

from mmfusion.entry import run_tool
from mmfusion.types import InputError


def _ending(main, capsys) -> tuple[object, str]:
    with pytest.raises(SystemExit) as stop:
        run_tool(main)
    return stop.value.code, capsys.readouterr().err


def _raising(error: BaseException):
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (2, 2)])
def test_the_status_of_main_is_the_tools(returned, status, capsys):
    assert _ending(lambda: returned, capsys) == (status, "")


def test_bad_input_is_one_sentence(capsys):
    status, said = _ending(_raising(InputError("a.yaml: seed: must be a number,\ngot 'x'")), capsys)
    assert (status, said) == (2, "error: a.yaml: seed: must be a number, got 'x'\n")


def test_a_subclass_of_bad_input_is_bad_input(capsys):
    class Broken(InputError):
        pass

    assert _ending(_raising(Broken("b.mp4: no frames")), capsys) == (2, "error: b.mp4: no frames\n")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_sentence(number, capsys):
    status, said = _ending(_raising(OSError(number, "No space left on device", "cache/a.bin")), capsys)
    assert status == 2
    assert said.startswith("error: cache/a.bin: the disk is full") and said.count("\n") == 1


def test_a_full_disk_without_a_file_name_is_one_sentence(capsys):
    status, said = _ending(_raising(OSError(errno.ENOSPC, "No space left on device")), capsys)
    assert status == 2 and said.startswith("error: the disk is full")


def test_a_refused_file_is_one_sentence(capsys):
    status, said = _ending(_raising(PermissionError(errno.EACCES, "Permission denied", "runs")), capsys)
    assert (status, said) == (2, "error: runs: cannot be opened: permission denied\n")


def test_an_interrupt_is_130(capsys):
    assert _ending(_raising(KeyboardInterrupt()), capsys) == (130, "interrupted\n")


@pytest.mark.parametrize("fault", [ValueError("our own"), OSError(errno.EBADF, "Bad file descriptor")])
def test_our_own_faults_keep_their_traceback(fault):
    with pytest.raises(type(fault)):
        run_tool(_raising(fault))


def test_a_reader_that_leaves_ends_the_tool_quietly():
    code = "from mmfusion.entry import run_tool\nrun_tool(lambda: [print(i) for i in range(100000)] and None)"
    tool = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert tool.stdout is not None and tool.stderr is not None
    tool.stdout.readline()
    tool.stdout.close()
    assert (tool.wait(30), tool.stderr.read()) == (141, b"")
    tool.stderr.close()


def test_prepare_answers_help_at_once(root):
    def seconds() -> float:
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "tools/prepare.py", "--help"], cwd=root, capture_output=True, text=True, check=True
        )
        assert "avmnist" in done.stdout and "synthetic" in done.stdout
        return time.perf_counter() - start

    # The best of three: other work on the machine is not the tool's.
    assert min(seconds() for _ in range(3)) < 1.0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nothing"], "no such data set"),
        (["mosi"], "--root"),
        (["mosi", "--root", "nowhere"], "nowhere: no such folder"),
        (["mosi", "sed=1"], "did you mean seed?"),
        (["mosi", "seed=x"], "mosi: seed"),
        (["mosi", "seed"], "key=value"),
        (["mosi", "--root", "."], "mosi_utterance_features.npz: no such file"),
    ],
)
def test_prepare_says_what_is_wrong_in_one_sentence(arguments, named, root, tmp_path):
    command = [sys.executable, "tools/prepare.py", *arguments, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and named in done.stderr
