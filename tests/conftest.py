"""What every test shares: one thread a process, and the folder of real data when it is at hand."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True, scope="session")
def interrupts_are_heard() -> None:
    """A shell that starts the tests in the background makes them deaf to interrupts, and so what they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; the test is skipped where it is not there."""
    path = Path(os.environ.get("MMFUSION_DATA", ROOT.parent / "shared" / "data"))
    if not (path / "README.md").exists():
        pytest.skip(f"needs the real data sets: set MMFUSION_DATA (looked in {path})")
    return path


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT
