"""Nested states (of optimizers) as named tensors and a JSON outline of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from llama4_core.errors import CheckpointError


def outline(tree: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """JSON from which :func:`rebuilt` makes ``tree`` again, types of containers and keys included.

    Args:
        tree: dictionaries with strings or whole numbers as keys, lists, tuples, tensors and plain
            values.
        name: of the tree, for the names of its tensors: ``name.key.key``.
        tensors: gets the tensors.

    Raises:
        CheckpointError: something else is in the tree, or two tensors would have one name.
    """
    if isinstance(tree, Tensor):
        if name in tensors:
            raise CheckpointError(f"two tensors of the state are named {name!r}; rename a key")
        tensors[name] = tree
        return {"tensor": name}
    if isinstance(tree, Mapping):
        pairs = []
        for key, value in tree.items():
            if type(key) not in (str, int):
                raise CheckpointError(
                    f"{name} has the key {key!r:.40}; expected strings or whole numbers"
                )
            pairs.append([key, outline(value, f"{name}.{key}", tensors)])
        return {"map": pairs}
    if isinstance(tree, list | tuple):
        kind = "list" if isinstance(tree, list) else "tuple"
        return {kind: [outline(one, f"{name}.{i}", tensors) for i, one in enumerate(tree)]}
    if tree is None or type(tree) in (bool, int, float, str):
        return tree
    raise CheckpointError(
        f"{name} is a {type(tree).__name__}, which is not stored; expected tensors, numbers, "
        "strings, None, and containers of these"
    )


def rebuilt(drawn: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The tree that :func:`outline` drew.

    Raises:
        CheckpointError: it is no such outline, or a tensor is missing.
    """
    if not isinstance(drawn, Mapping):
        return drawn
    if len(drawn) == 1:
        ((kind, content),) = drawn.items()
        if kind == "tensor" and content in tensors:
            return tensors[content]
        if kind == "map" and isinstance(content, list):
            return {key: rebuilt(value, tensors) for key, value in content}
        if kind in ("list", "tuple") and isinstance(content, list):
            items = [rebuilt(one, tensors) for one in content]
            return items if kind == "list" else tuple(items)
    raise CheckpointError(f"the outline of a stored state has {drawn!r:.80}; it is not understood")


def first_difference(stored: Any, own: Any, name: str) -> str | None:
    """Where two trees differ in keys, or in dtype or shape of tensors; None if they do not.

    Other values may differ: learning rates and the like are set anew before every step.
    """
    if isinstance(stored, Tensor) or isinstance(own, Tensor):
        what = [
            f"{one.dtype} {tuple(one.shape)}" if isinstance(one, Tensor) else type(one).__name__
            for one in (stored, own)
        ]
        return None if what[0] == what[1] else f"{name} is {what[1]}; stored was {what[0]}"
    if isinstance(stored, Mapping) and isinstance(own, Mapping):
        if list(map(str, stored)) != list(map(str, own)) and set(stored) != set(own):
            odd = sorted(map(str, set(stored) ^ set(own)))
            return f"{name} differs in its keys: {', '.join(odd[:5])}"
        pairs = [(f"{name}.{key}", stored[key], own[key]) for key in stored]
    elif isinstance(stored, list | tuple) and isinstance(own, list | tuple):
        if len(stored) != len(own):
            return f"{name} has {len(own)} entries; stored were {len(stored)}"
        pairs = [(f"{name}.{i}", *both) for i, both in enumerate(zip(stored, own, strict=True))]
    else:
        return None
    return next(filter(None, (first_difference(a, b, where) for where, a, b in pairs)), None)
