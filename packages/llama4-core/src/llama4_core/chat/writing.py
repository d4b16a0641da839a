"""Tool calls as text: the forms that the parsers of :mod:`llama4_core.chat.tools` read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from llama4_core.chat.messages import ToolCall


def write_pythonic(calls: Iterable[ToolCall]) -> str:
    """``[f(a=1, b="x"), g()]``.

    Arguments whose names are no identifiers follow as ``**{"not a name": 1}``.
    """
    return f"[{', '.join(map(_pythonic_call, calls))}]"


def write_json(calls: Iterable[ToolCall]) -> str:
    """``{"name": "f", "parameters": {...}}``, several of them one to a line."""
    return "\n".join(
        _json({"name": call.name, "parameters": call.arguments}, "null", "true", "false")
        for call in calls
    )


def _pythonic_call(call: ToolCall) -> str:
    names = [name for name in call.arguments if name.isascii() and name.isidentifier()]
    written = [f"{name}={_pythonic(call.arguments[name])}" for name in names]
    others = {name: value for name, value in call.arguments.items() if name not in names}
    if others:
        written.append(f"**{_pythonic(others)}")
    return f"{call.name}({', '.join(written)})"


def _pythonic(value: Any) -> str:
    return _json(value, "None", "True", "False")


def _json(value: Any, none: str, true: str, false: str) -> str:
    """A JSON value with the given words; strings are the same in Python and JSON."""
    if value is None:
        return none
    if isinstance(value, bool):
        return true if value else false
    if isinstance(value, Mapping):
        items = value.items()
        inner = (f"{_json(k, '', '', '')}: {_json(v, none, true, false)}" for k, v in items)
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_json(item, none, true, false) for item in value)}]"
    return json.dumps(value, ensure_ascii=False)
