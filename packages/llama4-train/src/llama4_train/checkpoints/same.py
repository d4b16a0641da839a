"""Whether two recipes, or two descriptions of models, are the same. Imports no torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from llama4_core.specs.tables import table
from llama4_train.recipe import Recipe

MAY_CHANGE = (
    "name",
    "description",
    "steps",
    "checkpoints",
    "trackers",
    "evaluation",
    "data.on_error",
)
"""What may differ in the recipe that a run is resumed with.

None of it changes what a step does, but that ``steps`` stretches the schedule of the learning rate
and ``data.on_error`` lets a run that stopped at an unusable record go on without it.
"""


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Path -> value of everything in nested dataclasses, mappings and lists."""
    if dataclasses.is_dataclass(value) or isinstance(value, Mapping):
        entries = table(value)
    elif isinstance(value, list | tuple):
        entries = {str(index): one for index, one in enumerate(value)}
    else:
        return {name: value}
    found: dict[str, Any] = {}
    for key, one in entries.items():
        found.update(flat(one, f"{name}.{key}" if name else key))
    return found


def differing(one: Any, other: Any) -> list[str]:
    """Paths whose values differ, in order."""
    left, right = flat(one), flat(other)
    absent = object()
    return [
        path
        for path in dict.fromkeys([*left, *right])
        if left.get(path, absent) != right.get(path, absent)
    ]


def differing_recipes(one: Recipe, other: Recipe) -> list[str]:
    """Paths that differ and must not."""
    return [path for path in differing(one, other) if not _may_change(path)]


def fingerprint(recipe: Recipe) -> str:
    """SHA-256 of everything in a recipe that must not change while it runs, hexadecimal."""
    kept = {path: value for path, value in flat(recipe).items() if not _may_change(path)}
    text = json.dumps(kept, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _may_change(path: str) -> bool:
    return any(path == one or path.startswith(f"{one}.") for one in MAY_CHANGE)
