"""Where checks and subjects are found."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llama4_core.errors import ComponentError
from llama4_core.plugins.catalogue import Catalogue, Entry, catalogue, socket_named
from llama4_core.plugins.hookspecs import SOCKETS, Socket
from llama4_core.testing.check import Check, Outcome, Subject, run


def checks_of(socket: str) -> tuple[Check, ...]:
    """The checks of a socket: ``CHECKS`` of its owner's module ``testing.<socket>``.

    Raises:
        ComponentError: there is no such socket, its owner is not installed or publishes no checks.
    """
    place = socket_named(socket)
    module = _module(place)
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        checked = ", ".join(known.name for known in checked_sockets())
        raise ComponentError(
            f"no checks for socket {place.name!r}: {place.owner} would publish them as {module}, "
            f"which is not installed; there are checks for {checked}"
        ) from error
    return tuple(found.CHECKS)


def checks_for(subject: Subject) -> tuple[Check, ...]:
    """The checks of a subject's socket, and those that its distribution adds for its own parts.

    A distribution that is not the socket's owner adds checks by a tuple ``CHECKS`` in its module
    ``<distribution>.testing.<socket>``; nobody else's components are held to them.
    """
    place = socket_named(subject.socket)
    common = checks_of(subject.socket)
    module = f"{subject.distribution.replace('-', '_')}.testing.{place.name}"
    if not subject.distribution or subject.distribution == place.owner or not _found(module):
        return common
    return (*common, *importlib.import_module(module).CHECKS)


@functools.cache
def checked_sockets() -> tuple[Socket, ...]:
    """The sockets whose installed owners publish checks."""
    return tuple(socket for socket in SOCKETS.values() if _found(_module(socket)))


def subject_of(entry: Entry, device: str = "cpu") -> Subject:
    """A registered component as a subject."""
    component = entry.component
    return Subject(
        socket=entry.socket,
        name=entry.name,
        build=component.build,
        refusal=component.refusal,
        tolerances=component.tolerances,
        expected_failures=component.expected_failures,
        device=device,
        distribution=entry.distribution,
    )


def subjects(known: Catalogue | None = None, device: str = "cpu") -> list[Subject]:
    """Every registered component of every socket that has checks."""
    found = known or catalogue()
    return [
        subject_of(entry, device)
        for socket in checked_sockets()
        for entry in found.components(socket.name)
    ]


def check_component(
    socket: str,
    name: str | None = None,
    *,
    target: Callable[..., Any] | None = None,
    supports: Callable[[Any], str | None] | None = None,
    tolerances: Mapping[str, float] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    only: Sequence[str] = (),
    examples: int | None = None,
    seed: int | None = None,
    device: str = "cpu",
) -> list[Outcome]:
    """Runs the checks of a socket on a registered component, or on any object.

    Args:
        socket: plural or singular name.
        name: of a registered component; or, with ``target``, how to call the object.
        target: class or function that need not be registered.
        supports: of ``target``, as a Component would declare it.
        tolerances: likewise.
        expected_failures: likewise.
        only: names of checks; empty for all.
        examples: cases per check; None for the profile's.
        seed: of the drawing of cases; None for the profile's choice.
        device: type of device to run on.

    Returns:
        One outcome per check, in order.

    Raises:
        ComponentError: unknown socket, component or check; or neither name nor target.
    """
    subject = make_subject(
        socket,
        name,
        target=target,
        supports=supports,
        tolerances=tolerances,
        expected_failures=expected_failures,
        device=device,
    )
    checks = selected(subject, only)
    return [run(check, subject, examples=examples, seed=seed) for check in checks]


def make_subject(
    socket: str,
    name: str | None = None,
    *,
    target: Callable[..., Any] | None = None,
    supports: Callable[[Any], str | None] | None = None,
    tolerances: Mapping[str, float] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    device: str = "cpu",
) -> Subject:
    """A subject from a registered name or an object: see :func:`check_component`."""
    place = socket_named(socket)
    if target is None:
        if name is None:
            raise ComponentError(
                "check_component got neither a name nor a target; expected a registered "
                "component's name, or target=YourClass"
            )
        return subject_of(catalogue().find(place.name, name), device)
    return Subject(
        socket=place.name,
        name=name or str(getattr(target, "__name__", "object")),
        build=target,
        refusal=supports or (lambda problem: None),
        tolerances=tolerances or {},
        expected_failures=expected_failures or {},
        device=device,
    )


def selected(subject: Subject | str, only: Sequence[str] = ()) -> list[Check]:
    """The checks of a subject, or those of a socket, that ``only`` names (empty: all).

    Raises:
        ComponentError: a name is none of these checks.
    """
    socket = subject if isinstance(subject, str) else subject.socket
    checks = checks_of(subject) if isinstance(subject, str) else checks_for(subject)
    names = [check.name for check in checks]
    for name in only:
        if name not in names:
            raise ComponentError(f"unknown check {name!r}; {socket} has {', '.join(names)}")
    return [check for check in checks if not only or check.name in only]


def _module(socket: Socket) -> str:
    return f"{socket.owner.replace('-', '_')}.testing.{socket.name}"


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ModuleNotFoundError, ValueError):  # no such package; a name that is none
        return False
