"""The catalogue: every component that the installed packages offer, found without torch.

Entry points of the group ``llama4`` name modules or objects with hook implementations. Each one is
loaded in isolation: what is broken is recorded as a :class:`Problem` and takes nothing else down.
The result does not depend on the order of discovery.

Environment:
    LLAMA4_PLUGINS: comma-separated distributions; of the foreign ones only these are loaded, and
        these may be chosen by "auto". Unset: all are loaded, none is chosen unless named.
    LLAMA4_STRICT_PLUGINS: "1" makes the first problem an error; that a distribution is not listed
        in LLAMA4_PLUGINS is none.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import logging
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama4_core.errors import ComponentError, PluginError
from llama4_core.plugins.component import Component
from llama4_core.plugins.hookspecs import SOCKETS, Socket
from llama4_core.plugins.isolate import PluginSource, Problem, offered

logger = logging.getLogger(__name__)

GROUP = "llama4"
OURS = frozenset(
    f"llama4-{part}" for part in ("core", "moe", "vision", "serve", "train", "kernels", "tiny")
)
# What a sibling offers in a socket of ours: so that a missing package can be named.
KNOWN_ELSEWHERE = {
    ("feed_forwards", "moe"): "llama4-moe",
    ("models", "tiny"): "llama4-tiny",
    ("commands", "serve"): "llama4-serve",
    ("commands", "train"): "llama4-train",
    ("commands", "evaluate"): "llama4-train",
}


@dataclass(frozen=True)
class Entry:
    """A component and where it comes from.

    Attributes:
        socket: name of its socket.
        component: what the plugin yielded.
        distribution, version: who offers it; a local file is "local:<file>" and "sha256:<hash>".
        origin: the entry point or file that it was read from.
        allowed: "auto" may choose it: it is ours, allow-listed, or a local file that was asked for.
    """

    socket: str
    component: Component
    distribution: str
    version: str
    origin: str
    allowed: bool

    @property
    def name(self) -> str:
        """The bare name."""
        return self.component.name

    @property
    def full_name(self) -> str:
        """``distribution/name``, which is never ambiguous."""
        return f"{self.distribution}/{self.component.name}"


@dataclass(frozen=True)
class _Refused:
    socket: str
    name: str
    distribution: str
    reason: str


class Catalogue:
    """Entries per socket, and the problems met on the way.

    Attributes:
        problems: broken plugins, misspelt hooks, malformed or refused components.
        sources: what was loaded, sorted by distribution and entry point.
    """

    def __init__(
        self,
        sources: Iterable[PluginSource],
        *,
        allow: frozenset[str] | None = None,
        strict: bool = False,
    ) -> None:
        self._allow = allow
        self._strict = strict
        self.sources: tuple[PluginSource, ...] = tuple(sorted(sources, key=_sort_key))
        self.problems: list[Problem] = []
        self._entries: dict[str, list[Entry]] = {socket: [] for socket in SOCKETS}
        self._refused: list[_Refused] = []
        for source in self.sources:
            self._take(source)
        for entries in self._entries.values():
            entries.sort(key=lambda entry: (entry.name, entry.distribution))

    # --- construction ---------------------------------------------------------------------------

    @classmethod
    def discover(cls) -> Catalogue:
        """Reads the entry points of the installed distributions and the environment."""
        from importlib import metadata

        sources = [
            PluginSource(
                name=point.name,
                distribution=normalised(point.dist.name) if point.dist else "unknown",
                version=point.dist.version if point.dist else "unknown",
                load=point.load,
                origin=f"entry point {point.name} = {point.value}",
            )
            for point in metadata.entry_points(group=GROUP)
        ]
        if not any(source.distribution == "llama4-core" for source in sources):
            # Run from a source tree without metadata.
            from llama4_core import __version__

            sources.append(_importing("core", "llama4-core", __version__, _BUILTIN))
        return cls(sources, allow=_allow_list(), strict=_strict())

    @classmethod
    def from_plugins(
        cls,
        plugins: Iterable[tuple[str, str, str, Any]],
        *,
        allow: Iterable[str] | None = None,
        strict: bool = False,
    ) -> Catalogue:
        """A catalogue of just these plugins, for tests and for embedding.

        Args:
            plugins: ``(entry point name, distribution, version, plugin)``; the plugin is a module
                or object with hook implementations, or the name of a module to import.
            allow: as ``LLAMA4_PLUGINS``; None for unset.
            strict: the first problem is an error.
        """
        sources = [
            _importing(name, distribution, version, plugin)
            if isinstance(plugin, str)
            else PluginSource(
                name, normalised(distribution), version, functools.partial(_same, plugin), name
            )
            for name, distribution, version, plugin in plugins
        ]
        listed = None if allow is None else frozenset(normalised(name) for name in allow)
        return cls(sources, allow=listed, strict=strict)

    def with_local(self, *files: str | Path) -> Catalogue:
        """The same catalogue and the user's own plugin files.

        Raises:
            PluginError: a file is missing, cannot be run or offers something malformed. Whoever
                names a file wants it, so its problems are always errors.
        """
        from llama4_core.plugins.local import local_source

        local = [local_source(Path(file)) for file in files]
        wider = Catalogue((*self.sources, *local), allow=self._allow, strict=self._strict)
        origins = {source.origin for source in local}
        for problem in wider.problems:
            if problem.origin in origins:
                raise PluginError(f"{problem.origin}: {problem.reason}")
        return wider

    def _take(self, source: PluginSource) -> None:
        ours = source.distribution in OURS
        listed = self._allow is not None and source.distribution in self._allow
        if self._allow is not None and not (ours or listed or source.local):
            # What was asked for, and so no error when strict.
            left_out = "not loaded: LLAMA4_PLUGINS does not list this distribution"
            self.problems.append(Problem(source.distribution, source.origin, left_out))
            return
        found, problems = offered(source)
        for problem in problems:
            self._report(source, problem.reason)
        for socket_name, component in found:
            reason = self._unfit(SOCKETS[socket_name], component, source)
            if reason:
                self._refused.append(
                    _Refused(socket_name, component.name, source.distribution, reason)
                )
                self._report(source, f"{SOCKETS[socket_name].one} {component.name!r}: {reason}")
                continue
            self._entries[socket_name].append(
                Entry(
                    socket_name,
                    component,
                    source.distribution,
                    source.version,
                    source.origin,
                    allowed=ours or listed or source.local,
                )
            )

    def _unfit(self, socket: Socket, component: Component, source: PluginSource) -> str | None:
        if not socket.oldest <= component.contract <= socket.current:
            return (
                f"written for contract {component.contract} of {socket.name}; this "
                f"{socket.owner} understands {socket.oldest} to {socket.current}: install a "
                f"version of {source.distribution} or of {socket.owner} that fits"
            )
        if component.contract < socket.current:
            logger.warning(
                "%s: %s %r is written for contract %d of %s; it still works, the current one is %d",
                source.distribution,
                socket.one,
                component.name,
                component.contract,
                socket.name,
                socket.current,
            )
        for entry in self._entries[socket.name]:
            if (entry.name, entry.distribution) == (component.name, source.distribution):
                return "offered twice by the same distribution; the first one is kept"
        return None

    def _report(self, source: PluginSource, reason: str) -> None:
        if self._strict:
            raise PluginError(
                f"{source.distribution} ({source.origin}): {reason} "
                "(an error because LLAMA4_STRICT_PLUGINS is set)"
            )
        self.problems.append(Problem(source.distribution, source.origin, reason))

    # --- use ------------------------------------------------------------------------------------

    def components(self, socket: str) -> list[Entry]:
        """Entries of one socket, sorted by name, then distribution.

        Raises:
            ComponentError: there is no such socket.
        """
        return list(self._entries[_socket(socket).name])

    def clashes(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """Socket -> bare name -> the distributions that all offer it."""
        found: dict[str, dict[str, tuple[str, ...]]] = {}
        for socket, entries in self._entries.items():
            for name in sorted({entry.name for entry in entries}):
                distributions = tuple(e.distribution for e in entries if e.name == name)
                if len(distributions) > 1:
                    found.setdefault(socket, {})[name] = distributions
        return found

    def find(self, socket: str, name: str, *, needed_by: str = "") -> Entry:
        """The component ``name`` or ``distribution/name`` of a socket.

        Args:
            socket: plural name of the socket.
            name: as a spec, an override or a command line has it.
            needed_by: who asks, for the message, e.g. "Scout".

        Raises:
            ComponentError: unknown (with what exists, the nearest name, or the package to install),
                refused by its contract, or ambiguous.
        """
        place = _socket(socket)
        distribution, _, bare = name.rpartition("/")
        matches = [
            entry
            for entry in self._entries[place.name]
            if entry.name == bare and distribution in ("", entry.distribution)
        ]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise ComponentError(
                f"{place.one} {name!r} is offered by several distributions; write one of "
                + ", ".join(repr(entry.full_name) for entry in matches)
            )
        raise ComponentError(self._unknown(place, name, bare, needed_by))

    def _unknown(self, socket: Socket, name: str, bare: str, needed_by: str) -> str:
        for refused in self._refused:
            if name in (refused.name, f"{refused.distribution}/{refused.name}"):
                return f"{socket.one} {name!r} of {refused.distribution}: {refused.reason}"
        kind = socket.one.replace("_", "-")
        offered_here = self._entries[socket.name]
        package = KNOWN_ELSEWHERE.get((socket.name, bare))
        if package is None and not any(e.distribution == socket.owner for e in offered_here):
            package = socket.owner
        if package is not None:
            subject = f"{needed_by} needs {kind} {name!r}" if needed_by else f"{kind} {name!r}"
            broken = [p.reason for p in self.problems if p.distribution == package]
            if broken:
                return f"{subject} of {package}, which is installed but broken: {broken[0]}"
            return f"{subject}, which no installed package offers: pip install {package}"
        names = [entry.name for entry in offered_here]
        shown = sorted({e.full_name if names.count(e.name) > 1 else e.name for e in offered_here})
        near = difflib.get_close_matches(name, shown, 1) or difflib.get_close_matches(
            bare, names, 1
        )
        hint = f"did you mean {near[0]!r}? " if near else ""
        asked = f"{needed_by} needs {kind}" if needed_by else f"unknown {kind}"
        return f"{asked} {name!r}: {hint}installed are {', '.join(shown) or 'none'}"


@functools.cache
def catalogue() -> Catalogue:
    """The catalogue of this environment; read once, without importing torch."""
    return Catalogue.discover()


def normalised(distribution: str) -> str:
    """The canonical spelling of a distribution's name: lower case, words joined by "-"."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def socket_named(name: str) -> Socket:
    """A socket by its plural or singular name, "-" or "_" alike.

    Raises:
        ComponentError: there is none; the nearest is suggested.
    """
    wanted = name.replace("-", "_")
    for socket in SOCKETS.values():
        if wanted in (socket.name, socket.one):
            return socket
    return _socket(wanted)


def _socket(name: str) -> Socket:
    if name not in SOCKETS:
        near = difflib.get_close_matches(name, SOCKETS, 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ComponentError(f"unknown socket {name!r}: {hint}there are {', '.join(SOCKETS)}")
    return SOCKETS[name]


_BUILTIN = "llama4_core.plugins.builtin"


def _importing(name: str, distribution: str, version: str, module: str) -> PluginSource:
    load: Callable[[], Any] = functools.partial(importlib.import_module, module)
    return PluginSource(name, normalised(distribution), version, load, f"module {module}")


def _same(plugin: Any) -> Any:
    return plugin


def _sort_key(source: PluginSource) -> tuple[str, ...]:
    return (source.distribution, source.name, source.version, source.origin)


def _allow_list() -> frozenset[str] | None:
    value = os.environ.get("LLAMA4_PLUGINS")
    if value is None:
        return None
    return frozenset(normalised(part.strip()) for part in value.split(",") if part.strip())


def _strict() -> bool:
    return os.environ.get("LLAMA4_STRICT_PLUGINS", "") not in ("", "0")
