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
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama4_core.errors import SpecError
from llama4_core.specs.layers import check_depth
from llama4_core.specs.model import LayerSpec, ModelSpec
from llama4_core.specs.tables import build, key_text, refuse_unknown, table, value_text


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
    return typing.cast(ModelSpec, build(ModelSpec, values, where))


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
            inner = table(value)
            if inner:
                tables += ["", f"[{field.name}]"]
                tables += [f"{key_text(key)} = {value_text(item)}" for key, item in inner.items()]
        else:
            plain.append(f"{field.name} = {value_text(value)}")
    return "\n".join([*plain, *tables, *_layer_lines(spec.layers)]) + "\n"


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
        lines += [f"{key} = {value_text(item)}" for key, item in table(layers[start]).items()]
        start = end
    return lines


def _layers(values: Any, where: str) -> list[Any]:
    if not isinstance(values, dict) or not isinstance(values.get("pattern"), list):
        raise SpecError(
            f"{where} is {values!r}; expected a table with 'pattern' (a list of layers) and "
            "optionally 'repeat'"
        )
    refuse_unknown(values, ("repeat", "pattern"), where)
    layers: list[Any] = []
    for index, entry in enumerate(values["pattern"]):
        place = f"{where}, pattern {index}"
        if not isinstance(entry, dict):
            raise SpecError(f"{place} is {entry!r}; expected a table")
        refuse_unknown(entry, ("count", "attention", "feed_forward"), place)
        layer = {key: value for key, value in entry.items() if key != "count"}
        built = build(LayerSpec, layer, place)
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
