"""Frozen dataclasses from the tables of a TOML file, and back: specs, recipes.

Every key is a field; an unknown one is an error that suggests the nearest. A union of dataclasses
is told apart by the field ``kind`` that each of them has a default for.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from llama4_core.errors import SpecError
from llama4_core.specs.suggest import nearest


def refuse_unknown(values: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Raises for the first key that is not among ``known``.

    Raises:
        SpecError: names it, and the nearest that exists.
    """
    names = tuple(known)
    for key in values:
        if key not in names:
            raise SpecError(
                f"{where}: unknown key {key!r}{nearest(key, names)}; known are {', '.join(names)}"
            )


def build(cls: type, values: Any, where: str) -> Any:
    """An instance of a dataclass from a table; instances pass.

    Raises:
        SpecError: a key is unknown, missing, or has a wrong value; ``where`` begins the message.
    """
    if dataclasses.is_dataclass(values):
        return values
    if not isinstance(values, dict):
        raise SpecError(f"{where} is {values!r}; expected a table")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    refuse_unknown(values, fields, where)
    for name, field in fields.items():
        needed = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if needed and name not in values:
            raise SpecError(f"{where}: {name} is missing; add it")
    hints = _hints(cls)
    arguments = {
        name: _typed(hints[name], value, f"{where}, {name}") for name, value in values.items()
    }
    try:
        return cls(**arguments)
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from error


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _typed(kind: Any, value: Any, where: str) -> Any:
    """``value`` as the annotated type of a field."""
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        options = [option for option in typing.get_args(kind) if option is not type(None)]
        if len(options) > 1:
            return _one_of(options, value, where)
        kind, origin = options[0], typing.get_origin(options[0])
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise SpecError(f"{where} is {value!r}; expected a list")
        one = typing.get_args(kind)[0]
        return tuple(_typed(one, item, f"{where} {index}") for index, item in enumerate(value))
    if dataclasses.is_dataclass(kind):
        return build(typing.cast(type, kind), value, where)
    if origin is not None:
        return _free_table(kind, value, where)
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        names = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
        raise SpecError(f"{where} is {value!r}; expected {names[kind]}")
    return value


def _free_table(kind: Any, value: Any, where: str) -> Any:
    """A mapping whose keys are the user's own."""
    if not isinstance(value, dict):
        raise SpecError(f"{where} is {value!r}; expected a table")
    inner = typing.get_args(kind)[1]
    if inner in (Any, object):
        return value
    return {key: _typed(inner, item, f"{where}, {key}") for key, item in value.items()}


def _one_of(options: list[Any], value: Any, where: str) -> Any:
    if any(isinstance(value, option) for option in options):
        return value
    tables = [option for option in options if dataclasses.is_dataclass(option)]
    if len(tables) == 1:  # told apart from the plain values by its form
        if not isinstance(value, dict):
            raise SpecError(f"{where} is {value!r}; expected a plain value or a table")
        return build(typing.cast(type, tables[0]), value, where)
    by_kind = {
        field.default: option
        for option in options
        for field in dataclasses.fields(option)
        if field.name == "kind"
    }
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in by_kind:
        raise SpecError(
            f"{where}: kind is {kind!r}; expected one of {', '.join(map(repr, by_kind))}"
        )
    return build(by_kind[kind], value, where)


def table(value: Any) -> dict[str, Any]:
    """Keys and values of a dataclass or mapping, without those that are None or empty tables."""
    if dataclasses.is_dataclass(value):
        pairs = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    else:
        pairs = [(str(key), item) for key, item in value.items()]
    return {key: item for key, item in pairs if item is not None and item != {}}


def key_text(key: str) -> str:
    """A key as TOML writes it."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else value_text(key)


def value_text(value: Any) -> str:
    """A value as TOML writes it, on one line; floats with as many digits as give them back.

    Raises:
        SpecError: TOML has no form for it.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(value_text(item) for item in value)}]"
    if isinstance(value, Mapping) or dataclasses.is_dataclass(value):
        inner = [f"{key_text(key)} = {value_text(item)}" for key, item in table(value).items()]
        return f"{{ {', '.join(inner)} }}" if inner else "{}"
    raise SpecError(
        f"a spec holds {value!r}, which TOML has no form for; expected numbers, strings, lists and "
        "tables"
    )
