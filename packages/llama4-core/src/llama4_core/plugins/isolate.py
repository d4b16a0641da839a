"""Loading one plugin so that nothing it does can take another one down."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pluggy

from llama4_core.plugins.component import Component
from llama4_core.plugins.hookspecs import PROJECT, SOCKETS, Hooks

_HOOKS = {socket.hook: socket.name for socket in SOCKETS.values()}


@dataclass(frozen=True)
class PluginSource:
    """A plugin that has not been loaded yet.

    Attributes:
        name: of the entry point, or the stem of a local file.
        distribution, version: who ships it.
        load: returns the module or object with hook implementations; may raise anything.
        origin: for people: entry point, module or file.
        local: the user named this file.
    """

    name: str
    distribution: str
    version: str
    load: Callable[[], Any]
    origin: str
    local: bool = False


@dataclass(frozen=True)
class Problem:
    """Something wrong with a plugin: who, where, what."""

    distribution: str
    origin: str
    reason: str


def offered(source: PluginSource) -> tuple[list[tuple[str, Component]], list[Problem]]:
    """What one plugin offers, as ``(socket, component)``, and what is wrong with it.

    Whatever the plugin raises, even SystemExit at import, becomes a problem.
    """
    problems: list[Problem] = []

    def wrong(reason: str) -> None:
        problems.append(Problem(source.distribution, source.origin, reason))

    found: list[tuple[str, Component]] = []
    # One manager per plugin: validation errors and exceptions stay with their author.
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Hooks)
    try:
        plugin = source.load()
        if plugin is None:
            wrong("loading it gave None; expected a module or object with hook implementations")
            return found, problems
        manager.register(plugin, source.name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code
        wrong(f"could not be loaded: {type(error).__name__}: {error}")
        return found, problems

    for reason in _misspelt(manager, plugin):
        wrong(reason)
    for hook, socket in _HOOKS.items():
        for implementation in getattr(manager.hook, hook).get_hookimpls():
            try:
                for item in _items(implementation.function()):
                    if isinstance(item, Component):
                        found.append((socket, item))
                    else:
                        wrong(f"hook {hook} yields {item!r}; expected Component values")
            except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code
                wrong(f"hook {hook} raised {type(error).__name__}: {error}")
    return found, problems


def _items(value: Any) -> Iterable[Any]:
    """What a hook gave: an iterable of components, one alone, or nothing."""
    if value is None:
        return ()
    if isinstance(value, Component) or not isinstance(value, Iterable):
        return (value,)
    return value


def _misspelt(manager: pluggy.PluginManager, plugin: Any) -> list[str]:
    """Hooks that nobody will ever call, each with the nearest that exists."""
    reasons = []
    # pluggy's check_pending raises at the first; all of them are wanted here.
    for caller in manager.get_hookcallers(plugin) or []:
        if not caller.has_spec() and not all(i.optionalhook for i in caller.get_hookimpls()):
            near = difflib.get_close_matches(caller.name, _HOOKS, 1, cutoff=0)
            reasons.append(f"unknown hook {caller.name}; did you mean {near[0]}?")
    for name in dir(plugin):
        value = inspect.getattr_static(plugin, name, None)
        if name.startswith(f"{PROJECT}_") and inspect.isfunction(value):
            marked = hasattr(value, f"{PROJECT}_impl") or hasattr(value, f"{PROJECT}_spec")
            if not marked and _defined_in(value, plugin):
                reasons.append(
                    f"function {name} looks like a hook but is not marked: decorate it with "
                    "llama4_core.plugins.hookimpl"
                )
    return sorted(reasons)


def _defined_in(function: Any, plugin: Any) -> bool:
    home = plugin.__name__ if inspect.ismodule(plugin) else type(plugin).__module__
    return inspect.isclass(plugin) or function.__module__ == home
