"""Configuration: parents, overrides, and one clear sentence for whatever is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, model_validator

from mmfusion.config import configclass, load, load_tree, save, to_tree
from mmfusion.training.run import RunConfig
from mmfusion.types import InputError


@configclass
class Round:
    kind: Literal["round"] = "round"
    radius: float = 1.0


@configclass
class Square:
    kind: Literal["square"] = "square"
    sides: tuple[int, ...] = (1, 2)

    @model_validator(mode="after")
    def _is_square(self) -> Any:
        if len(set(self.sides)) > 2:
            raise ValueError("three sides differ")
        return self


@configclass
class Drawing:
    name: str
    rate: float = 1e-3
    shape: Annotated[Round | Square, Field(discriminator="kind")] = Round()
    more: dict[str, Annotated[Round | Square, Field(discriminator="kind")]] = Field(default_factory=dict)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_child_changes_what_it_names_and_null_removes_a_block(tmp_path: Path) -> None:
    write(tmp_path, "parent.yaml", "name: a\nrate: 2e-3\nmore: {x: {kind: round}, y: {kind: square}}\n")
    child = write(
        tmp_path, "child.yaml", "extends: parent.yaml\nname: b\nmore: {y: null, z: {kind: round, radius: 2}}\n"
    )
    found = load(Drawing, child)
    assert found == Drawing(name="b", rate=0.002, more={"x": Round(), "z": Round(radius=2.0)})
    assert load(Drawing, child, ["more.x=null", "shape={kind: square, sides: [3]}"]).more.keys() == {"z"}


def test_save_and_load_give_the_same(tmp_path: Path) -> None:
    drawing = Drawing(name="a", shape=Square(sides=(4, 5)), more={"x": Round(radius=1e-7)})
    save(drawing, tmp_path / "c.yaml")
    assert load(Drawing, tmp_path / "c.yaml") == drawing
    assert to_tree(drawing)["shape"] == {"kind": "square", "sides": [4, 5]}


def test_scientific_notation_is_a_number(tmp_path: Path) -> None:
    path = write(tmp_path, "c.yaml", "name: a\nrate: 1e-3\n")
    assert load(Drawing, path).rate == 0.001
    assert load(Drawing, path, ["rate=5e-4"]).rate == 0.0005


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\nrat: 1\n", "c.yaml: rat: unknown key (did you mean rate?)"),
        ("name: a\nrate: fast\n", "c.yaml: rate: input should be a valid number, got 'fast'"),
        ("name: 3\n", "c.yaml: name: input should be a valid string, got 3"),
        ("rate: 1\n", "c.yaml: name: field required"),
        ("name: a\nmore: {x: {kind: round, sides: [1]}}\n", "more.x.sides: unknown key (valid here: kind, radius)"),
        ("name: a\nmore: {x: {kind: square, sides: [1, 2, 3]}}\n", "c.yaml: more.x: value error, three sides"),
        ("name: a\nmore: {x: {kind: square, sides: [1.5]}}\n", "more.x.sides.0: input should be a valid integer"),
        ("name: a\nshape: {kind: oval}\n", "c.yaml: shape: input tag 'oval'"),
        ("name: [a\n", "c.yaml: not a readable YAML file"),
        ("- a\n", "c.yaml: must hold keys and values"),
        ("extends: missing.yaml\n", "missing.yaml: no such file"),
        ("extends: c.yaml\nname: a\n", "extends itself"),
    ],
)  # fmt: skip
def test_one_sentence_names_file_and_field(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, "c.yaml", text)
    with pytest.raises(InputError) as caught:
        load(Drawing, path)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("override", ["rate", "=3", "rate=[1"])
def test_overrides_that_are_none(tmp_path: Path, override: str) -> None:
    path = write(tmp_path, "c.yaml", "name: a\n")
    with pytest.raises(InputError, match="override"):
        load_tree(path, [override])


def test_a_block_for_another_depth_is_refused(root: Path) -> None:
    with pytest.raises(InputError, match=r"model\.fusion\.mix: unknown key"):
        load(RunConfig, root / "configs/synthetic/early.yaml", ["model.fusion.mix={rule: linear}"])
    with pytest.raises(InputError, match=r"model\.fusion\.join: unknown key"):
        load(RunConfig, root / "configs/synthetic/late.yaml", ["model.fusion.join={kind: sum}"])


def test_every_run_configuration_of_the_project_is_valid(root: Path) -> None:
    paths = [path for path in sorted((root / "configs").rglob("*.yaml")) if path.parent.name not in ("compare", "lm")]
    named = [
        path
        for path in paths
        if path.name not in ("base.yaml", "synthetic.yaml", "avmnist.yaml", "drone.yaml", "mosi.yaml", "msvd.yaml")
    ]
    assert len(named) >= 5
    for path in named:
        assert load(RunConfig, path).name


def test_events_are_for_heads_that_classify_seconds(root: Path) -> None:
    with pytest.raises(InputError, match=r"events are those of label heads with per_second, and there is none"):
        load(RunConfig, root / "configs/esc50.yaml", ["events.min_gap_s=2"])
    seconds = ["model.heads.labels.per_second=true", "model.heads.labels.pooling=mean"]
    assert load(RunConfig, root / "configs/esc50.yaml", ["events.min_gap_s=2", *seconds]).events.min_gap_s == 2
