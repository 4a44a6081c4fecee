"""Several processes: the same results in order, and a quiet end at any moment."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import pytest

from mmfusion.data.processes import in_processes, interrupts_held
from mmfusion.types import InputError

SCRIPT = """
import sys, time
from contextlib import closing
from mmfusion.data.processes import in_processes
from mmfusion.entry import run_tool

def main():
    print("started", flush=True)
    with closing(in_processes(time.sleep, [0.3] * 400, 2)) as results:
        for _ in results:
            print("one", flush=True)

if __name__ == "__main__":
    run_tool(main)
"""


def test_results_come_in_order():
    with closing(in_processes(math.sqrt, [9.0, 4.0, 1.0, 0.0], 2, 2)) as results:
        assert list(results) == [3.0, 2.0, 1.0, 0.0]


def test_what_a_task_raises_is_raised():
    with pytest.raises(ValueError), closing(in_processes(math.sqrt, [1.0, -1.0], 2)) as results:
        list(results)


def test_a_process_that_is_ended_from_outside_is_one_sentence():
    with pytest.raises(InputError, match="ended from outside"), closing(in_processes(os._exit, [1], 1)) as results:
        list(results)


def test_an_interrupt_waits_and_then_comes():
    reached = []
    with pytest.raises(KeyboardInterrupt), interrupts_held():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        reached.append(True)
    assert reached
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.parametrize("after", ["started", "one"])
def test_an_interrupt_leaves_no_traceback_and_no_process(after, tmp_path):
    script = tmp_path / "tool.py"
    script.write_text(SCRIPT)
    tool = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert tool.stdout is not None
    while tool.stdout.readline().strip() != after:
        assert tool.poll() is None
    time.sleep(0.1)
    os.killpg(tool.pid, signal.SIGINT)  # as the terminal does: to every process of the tool
    # Ends only when every process has closed its end of the pipe.
    _, said = tool.communicate(timeout=60)
    assert (tool.returncode, said) == (130, "interrupted\n")
