from __future__ import annotations

import inspect

from llama4_core.plugins.hookspecs import SOCKETS, Hooks


def test_each_socket_has_exactly_one_hook() -> None:
    hooks = {name for name, _ in inspect.getmembers(Hooks, inspect.isfunction)}
    assert hooks == {socket.hook for socket in SOCKETS.values()}


def test_hooks_take_nothing_and_say_what_the_target_is() -> None:
    for socket in SOCKETS.values():
        hook = getattr(Hooks, socket.hook)
        assert str(inspect.signature(hook)) == "(self) -> 'Iterable[Component]'"
        assert "Target: " in (inspect.getdoc(hook) or ""), socket.hook


def test_contracts_are_ranges() -> None:
    for socket in SOCKETS.values():
        assert 1 <= socket.oldest <= socket.current
