"""Specs as TOML: the file ``spec.toml`` beside native weights, and what people write by hand.

Keys are the fields of :mod:`llama4_core.specs.model`; a field that is None is left out. Layers are
a pattern that repeats::

    [layers]
    repeat = 12

    [[layers.pattern]]
    count = 3
    attention = { variant = "irope-chunked", heads = 40, ... }
    feed_forward = { kind = "moe", experts = 16, ... }

Floats are written with as many digits as give back the same number.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama4_core.errors import SpecError
from llama4_core.specs.layers import check_depth
from llama4_core.specs.model import DenseSpec, LayerSpec, ModelSpec, MoESpec
from llama4_core.specs.suggest import nearest

_FEED_FORWARDS: dict[str, type] = {"dense": DenseSpec, "moe": MoESpec}


def read_toml(path: str | Path) -> ModelSpec:
    """Read a spec from a file.

    Raises:
        SpecError: the file cannot be read, is no TOML, or describes no valid model.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read as text: {error}") from error
    return spec_from_toml(text, str(path))


def write_toml(spec: ModelSpec, path: str | Path) -> None:
    """Write a spec to a file."""
    Path(path).write_text(toml_from_spec(spec), encoding="utf-8")


def spec_from_toml(text: str, where: str = "spec.toml") -> ModelSpec:
    """Read a spec from the text of a TOML file; ``where`` begins every error.

    Raises:
        SpecError: no TOML, or a key is unknown, missing, or has a wrong value.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{where}: this is no TOML: {error}") from error
    values["layers"] = _layers(values.get("layers"), f"{where}, layers")
    return typing.cast(ModelSpec, _build(ModelSpec, values, where))


def toml_from_spec(spec: ModelSpec) -> str:
    """The text of a TOML file.

    Raises:
        SpecError: ``source`` or ``vision.extra`` holds something that TOML has no form for.
    """
    plain: list[str] = []
    tables: list[str] = []
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        if field.name == "layers" or value is None:
            continue
        if dataclasses.is_dataclass(value) or isinstance(value, Mapping):
            inner = _table(value)
            if inner:
                tables += ["", f"[{field.name}]"]
                tables += [f"{_key(key)} = {_value(item)}" for key, item in inner.items()]
        else:
            plain.append(f"{field.name} = {_value(value)}")
    return "\n".join([*plain, *tables, *_layer_lines(spec.layers)]) + "\n"


# --- layers ------------------------------------------------------------


def _layer_lines(layers: tuple[LayerSpec, ...]) -> list[str]:
    """The shortest repeating pattern, equal neighbours counted."""
    count = len(layers)
    period = next(
        p
        for p in range(1, count + 1)
        if count % p == 0 and all(layers[i] == layers[i - p] for i in range(p, count))
    )
    lines = ["", "[layers]", f"repeat = {count // period}"]
    start = 0
    while start < period:
        end = start + 1
        while end < period and layers[end] == layers[start]:
            end += 1
        lines += ["", "[[layers.pattern]]", f"count = {end - start}"]
        lines += [f"{key} = {_value(item)}" for key, item in _table(layers[start]).items()]
        start = end
    return lines


def _layers(values: Any, where: str) -> list[Any]:
    if not isinstance(values, dict) or not isinstance(values.get("pattern"), list):
        raise SpecError(
            f"{where} is {values!r}; expected a table with 'pattern' (a list of layers) and "
            "optionally 'repeat'"
        )
    _known(values, ("repeat", "pattern"), where)
    layers: list[Any] = []
    for index, entry in enumerate(values["pattern"]):
        place = f"{where}, pattern {index}"
        if not isinstance(entry, dict):
            raise SpecError(f"{place} is {entry!r}; expected a table")
        _known(entry, ("count", "attention", "feed_forward"), place)
        layer = {key: value for key, value in entry.items() if key != "count"}
        built = _build(LayerSpec, layer, place)
        count = _positive(entry.get("count", 1), f"{place}, count")
        check_depth(len(layers) + count, where)
        layers += [built] * count
    repeat = _positive(values.get("repeat", 1), f"{where}, repeat")
    check_depth(len(layers) * repeat, where)
    return layers * repeat


def _positive(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SpecError(f"{where} is {value!r}; expected a whole number of at least 1")
    return value


# --- reading ------------------------------------------------------------


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _known(values: Mapping[str, Any], known: typing.Iterable[str], where: str) -> None:
    for key in values:
        if key not in known:
            raise SpecError(
                f"{where}: unknown key {key!r}{nearest(key, known)}; known are {', '.join(known)}"
            )


def _build(cls: type, values: Any, where: str) -> Any:
    """An instance of a spec dataclass from a table."""
    if dataclasses.is_dataclass(values):
        return values
    if not isinstance(values, dict):
        raise SpecError(f"{where} is {values!r}; expected a table")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    _known(values, tuple(fields), where)
    for name, field in fields.items():
        needed = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if needed and name not in values:
            raise SpecError(f"{where}: {name} is missing; add it")
    arguments = {
        name: _typed(_hints(cls)[name], value, f"{where}, {name}") for name, value in values.items()
    }
    try:
        return cls(**arguments)
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from error


def _typed(kind: Any, value: Any, where: str) -> Any:
    """``value`` as the annotated type of a field."""
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        options = [option for option in typing.get_args(kind) if option is not type(None)]
        if len(options) > 1:
            return _feed_forward(value, where)
        kind, origin = options[0], typing.get_origin(options[0])
    if origin is tuple:
        if not isinstance(value, list):
            raise SpecError(f"{where} is {value!r}; expected a list")
        return tuple(_typed(typing.get_args(kind)[0], item, where) for item in value)
    if dataclasses.is_dataclass(kind):
        return _build(typing.cast(type, kind), value, where)
    if origin is not None:  # free tables: source, vision.extra
        if not isinstance(value, dict):
            raise SpecError(f"{where} is {value!r}; expected a table")
        return value
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        names = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
        raise SpecError(f"{where} is {value!r}; expected {names[kind]}")
    return value


def _feed_forward(value: Any, where: str) -> Any:
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in _FEED_FORWARDS:
        raise SpecError(
            f"{where}: kind is {kind!r}; expected one of {', '.join(map(repr, _FEED_FORWARDS))}"
        )
    return _build(_FEED_FORWARDS[kind], value, where)


# --- writing ------------------------------------------------------------


def _table(value: Any) -> dict[str, Any]:
    """Keys and values of a dataclass or mapping, without those that are None."""
    if dataclasses.is_dataclass(value):
        pairs = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    else:
        pairs = [(str(key), item) for key, item in value.items()]
    return {key: item for key, item in pairs if item is not None and item != {}}


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, Mapping) or dataclasses.is_dataclass(value):
        inner = [f"{_key(key)} = {_value(item)}" for key, item in _table(value).items()]
        return f"{{ {', '.join(inner)} }}" if inner else "{}"
    raise SpecError(
        f"a spec holds {value!r}, which TOML has no form for; expected numbers, strings, lists and "
        "tables"
    )
