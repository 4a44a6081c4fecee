"""The commands that the documents print: their configurations are there and valid, settings and all."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from mmfusion.config import load
from mmfusion.report.comparison import jobs_of, load_comparison
from mmfusion.training.run import RunConfig

ROOT = Path(__file__).resolve().parents[1]
COMMAND = re.compile(r"python tools/(train|compare)\.py (configs/[^`\n]*)")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOUND = [(page.name, *found) for page in PAGES for found in COMMAND.findall(page.read_text(encoding="utf-8"))]


def test_commands_are_found() -> None:
    assert sum(tool == "train" for _, tool, _ in FOUND) >= 5
    assert sum(tool == "compare" for _, tool, _ in FOUND) >= 5


@pytest.mark.parametrize(("page", "tool", "rest"), sorted(set(FOUND)))
def test_what_a_command_names_can_be_made(page: str, tool: str, rest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config, *more = shlex.split(rest, comments=True)
    overrides = [word for word in more if not word.startswith("-")]
    if tool == "train":
        assert load(RunConfig, config, overrides).name
    else:
        assert jobs_of(load_comparison(config, tuple(overrides)), config)
