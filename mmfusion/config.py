"""Strict, typed configuration: YAML files with one parent (`extends`), overrides `a.b.c=value`, validated dataclasses.

A child's value replaces its parent's, blocks are merged key by key, and `block: null` removes a block that the parent
has (so does the override `a.block=null`). `${...}` interpolates as in OmegaConf, `${oc.env:NAME,default}` included.

OmegaConf reads, merges and interpolates; pydantic checks. An unknown key, a wrong type or a value out of range raises
`InputError` with one sentence that names the file, the dotted path and, for a misspelt key, the nearest valid name.

A component declares its settings beside its code:

    @configclass
    class ConcatConfig:
        kind: Literal["concat"] = "concat"
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from typing_extensions import dataclass_transform
from yaml import YAMLError

from mmfusion.types import InputError, did_you_mean

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def configclass(cls: type[T]) -> type[T]:
    """A frozen keyword-only dataclass that refuses unknown keys and silent conversions (a string is not a number)."""
    rules = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)
    return pydantic_dataclass(cls, frozen=True, kw_only=True, config=rules)  # type: ignore[call-overload]


def load(schema: type[T], path: str | Path, overrides: Sequence[str] = ()) -> T:
    """The configuration in the YAML file at `path`, with its parents and the overrides, as a `schema` object.

    Overrides are strings "a.b.c=value" with YAML values. Raises InputError.
    """
    return validate(schema, load_tree(path, overrides), str(path))


def load_tree(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The same as plain nested dicts, merged and interpolated but not yet checked against a schema."""
    tree = _read_with_parents(Path(path), ())
    for override in overrides:
        tree = _override(tree, override, path)
    try:
        plain = OmegaConf.to_container(tree, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise InputError(f"{path}: {_first_line(error)}") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def validate(schema: type[T], tree: Any, where: str) -> T:
    """`tree` as a `schema` object; InputError names `where` and the dotted path of the first thing that is wrong."""
    try:
        # JSON mode lets a YAML list stand for a tuple while every scalar is still checked strictly.
        return TypeAdapter(schema).validate_json(json.dumps(tree))
    except ValidationError as error:
        raise InputError(f"{where}: {_explain(error, schema, tree)}") from error
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {_first_line(error)}") from error


def to_tree(config: Any) -> dict[str, Any]:
    """A configuration object as plain nested dicts and lists, ready for YAML or JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def save(config: Any, path: str | Path) -> None:
    """Writes the resolved configuration as YAML; `load` reads it back unchanged."""
    OmegaConf.save(OmegaConf.create(to_tree(config)), Path(path))


def _read_with_parents(path: Path, children: tuple[Path, ...]) -> DictConfig:
    if path.resolve() in children:
        raise InputError(f"{path}: extends itself through {' -> '.join(str(child) for child in children)}")
    tree = _read(path)
    parent = tree.pop("extends", None)
    if parent is None:
        return tree
    if not isinstance(parent, str):
        raise InputError(f"{path}: extends must be one file name, got {parent!r}")
    inherited = _read_with_parents(path.parent / parent, (*children, path.resolve()))
    try:
        _drop_nulled(inherited, tree)
        merged = OmegaConf.merge(inherited, tree)
    except (OmegaConfBaseException, TypeError) as error:
        raise InputError(f"{path}: does not fit its parent {parent}: {_first_line(error)}") from error
    assert isinstance(merged, DictConfig)
    return merged


def _drop_nulled(inherited: DictConfig, tree: DictConfig) -> None:
    """Removes the blocks of `inherited` that `tree` sets to null (and the null), at any depth."""
    for key in list(tree):
        there = OmegaConf.to_container(inherited).get(key) if key in inherited else None  # type: ignore[union-attr]
        if not isinstance(there, dict) or OmegaConf.is_interpolation(tree, str(key)):
            continue
        if tree[key] is None:
            del inherited[key], tree[key]
        elif isinstance(tree[key], DictConfig):
            _drop_nulled(inherited[key], tree[key])


def _read(path: Path) -> DictConfig:
    try:
        tree = OmegaConf.load(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (YAMLError, OSError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise InputError(f"{path}: not a readable YAML file: {_first_line(error)}") from error
    if not isinstance(tree, DictConfig):
        raise InputError(f"{path}: must hold keys and values")
    return tree


def _override(tree: DictConfig, override: str, path: str | Path) -> DictConfig:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise InputError(f"{path}: override {override!r} is not of the form a.b.c=value")
    try:
        # YAML's own reading of the value; only this key is touched: a mapping replaces what was there.
        given = OmegaConf.create(f"value: {value}").value
        if given is None and isinstance(OmegaConf.select(tree, key), DictConfig):
            parent, _, last = key.rpartition(".")
            del (OmegaConf.select(tree, parent) if parent else tree)[last]
        else:
            OmegaConf.update(tree, key, given, merge=False, force_add=True)
    except (OmegaConfBaseException, YAMLError) as error:
        raise InputError(f"{path}: override {override!r} cannot be applied: {_first_line(error)}") from error
    return tree


def _explain(error: ValidationError, schema: Any, tree: Any) -> str:
    first = min(error.errors(), key=lambda e: (e["type"] == "missing", len(e["loc"])))
    loc = first["loc"]
    unknown = first["type"] in ("unexpected_keyword_argument", "extra_forbidden")
    place = _dotted(loc, tree, ends_in_name=unknown or first["type"] == "missing")
    if unknown:
        return f"{place}: unknown key{_suggestion(str(loc[-1]), _names_at(schema, loc[:-1]))}"
    message = first["msg"][0].lower() + first["msg"][1:]
    given = first.get("input")
    shown = "" if first["type"] == "missing" or isinstance(given, (dict, list)) else f", got {given!r}"
    return f"{place}: {message}{shown}"


def _dotted(loc: tuple[int | str, ...], tree: Any, ends_in_name: bool) -> str:
    """The location in the user's own file: pydantic adds the tags of unions, which stand nowhere in it.

    Nor does a name that is missing there: whether the last part is a name or may be a tag has to be said.
    """
    parts: list[str] = []
    node = tree
    for position, part in enumerate(loc):
        inside = (isinstance(node, dict) and part in node) or (isinstance(node, list) and isinstance(part, int))
        if inside:
            node = node[part]  # type: ignore[index]
        elif position < len(loc) - 1 or not ends_in_name:
            continue
        parts.append(str(part))
    return ".".join(parts) or "the file"


def _suggestion(name: str, valid: list[str]) -> str:
    return did_you_mean(name, valid) or (f" (valid here: {', '.join(sorted(valid))})" if valid else "")


def _names_at(schema: Any, loc: tuple[int | str, ...]) -> list[str]:
    """The field names that are valid at a pydantic error location below `schema`."""
    kind = get_origin(schema)
    if kind is Annotated:
        return _names_at(get_args(schema)[0], loc)
    if kind in (Union, UnionType):
        members = [member for member in get_args(schema) if member is not type(None)]
        tagged = [member for member in members if loc and loc[0] in _tags(member)]
        return _names_at(tagged[0], loc[1:]) if tagged else _names_at(members[0], loc)
    if kind is not None:
        return _names_at(get_args(schema)[-1], loc[1:]) if loc else []
    if not dataclasses.is_dataclass(schema):
        return []
    hints = get_type_hints(schema, include_extras=True)
    if not loc:
        return [field.name for field in dataclasses.fields(schema)]
    return _names_at(hints[str(loc[0])], loc[1:]) if loc[0] in hints else []


def _tags(member: Any) -> set[Any]:
    """The values that a `kind` or `depth` field of a union's member may take."""
    if get_origin(member) is Annotated:
        member = get_args(member)[0]
    if not dataclasses.is_dataclass(member):
        return set()
    hints = get_type_hints(member)
    return {value for hint in hints.values() if get_origin(hint) is Literal for value in get_args(hint)}


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
