"""Plugins made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llama4_core.plugins import Component, hookimpl


def make_plugin(**hooks: Any) -> object:
    """An object with one hook implementation per keyword: ``caches=[Component(...), ...]``.

    A function is called in the hook's place; the keyword may be no socket at all.
    """
    namespace: dict[str, Any] = {}
    for socket, offer in hooks.items():
        namespace[f"llama4_{socket}"] = hookimpl(_bound(offer))
    return type("Plugin", (), namespace)()


def _bound(offer: Any) -> Callable[[object], Any]:
    def hook(self: object) -> Any:
        return offer() if callable(offer) else list(offer)

    return hook


@pytest.fixture(scope="session")
def plugin() -> Callable[..., object]:
    return make_plugin


@pytest.fixture(scope="session")
def component() -> Callable[..., Component]:
    """A component that builds a dict out of its arguments."""

    def make(name: str, **changes: Any) -> Component:
        return Component(name, changes.pop("target", "builtins:dict"), **changes)

    return make
