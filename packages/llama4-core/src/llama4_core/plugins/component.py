"""Components: what a plugin offers to a socket."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llama4_core.errors import PluginError

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*\Z")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*\Z")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\Z")


@dataclass(frozen=True)
class Component:
    """One named implementation of a socket's part.

    Attributes:
        name: lower-case words joined by "-"; unique within its socket and distribution.
        target: ``"package.module:Attribute"``, imported when the component is used.
        summary: one line for listings.
        requires: modules that must be importable, else the component is refused with their names.
        supports: takes the socket's problem and returns None, or the reason for refusing it. Must
            not import torch. None means: every problem.
        priority: rank among the candidates of ``"auto"``, higher first; an int, or a function of
            the problem. 0 or less: never chosen unless named.
        tolerances: dtype name -> largest relative error against the socket's reference
            implementation; what is missing falls back to the conformance kit's own.
        contract: the version of the socket's contract that this was written for.
        expected_failures: conformance check -> reason, for limits that are known and documented.
        settings: keyword arguments that the target is called with.
    """

    name: str
    target: str
    summary: str = ""
    requires: tuple[str, ...] = ()
    supports: Callable[[Any], str | None] | None = None
    priority: int | Callable[[Any], int] = 0
    tolerances: Mapping[str, float] = field(default_factory=dict)
    contract: int = 1
    expected_failures: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.match(self.name):
            raise PluginError(
                f"component name {self.name!r} is not usable: expected lower-case letters, digits, "
                "'.', '_' or '-', starting with a letter or digit"
            )
        if not isinstance(self.target, str) or not _TARGET.match(self.target):
            raise PluginError(
                f"component {self.name!r} has target {self.target!r}; "
                "expected 'package.module:Attribute'"
            )
        if not isinstance(self.requires, tuple | list) or not all(
            isinstance(module, str) and _MODULE.match(module) for module in self.requires
        ):
            raise PluginError(
                f"component {self.name!r} has requires {self.requires!r}; expected a tuple of "
                "names of importable modules, such as ('xformers.ops',): versions belong into the "
                "metadata of the plugin's distribution"
            )
        if not isinstance(self.contract, int) or isinstance(self.contract, bool):
            raise PluginError(
                f"component {self.name!r} has contract {self.contract!r}; expected a whole number"
            )
        # Listings and assembly read these of every component: one that is malformed is its own
        # plugin's problem, and must not show up later as everybody's.
        for field_name, kind, fits in (
            ("summary", "a line of text", isinstance(self.summary, str)),
            ("supports", "a function or None", self.supports is None or callable(self.supports)),
            ("tolerances", "a mapping", isinstance(self.tolerances, Mapping)),
            ("expected_failures", "a mapping", isinstance(self.expected_failures, Mapping)),
            ("settings", "a mapping", isinstance(self.settings, Mapping)),
        ):
            if not fits:
                raise PluginError(
                    f"component {self.name!r} has {field_name} {getattr(self, field_name)!r}; "
                    f"expected {kind}"
                )

    def rank(self, problem: Any) -> int:
        """Priority for one problem."""
        return self.priority(problem) if callable(self.priority) else self.priority

    def refusal(self, problem: Any) -> str | None:
        """Why this component cannot take ``problem`` here, or None if it can.

        A ``supports`` that raises refuses: whoever wrote it, assembly goes on without it.
        """
        missing = [name for name in self.requires if not _importable(name)]
        if missing:
            return f"needs the module(s) {', '.join(missing)}, not installed here"
        if self.supports is None:
            return None
        try:
            reason: Any = self.supports(problem)
        except Exception as error:  # noqa: BLE001 - foreign code
            return f"its supports() raised {type(error).__name__}: {error}"
        if reason is None or (isinstance(reason, str) and reason):
            return reason
        return f"its supports() returned {reason!r}; expected None or the reason for refusing"

    def load(self) -> Any:
        """Imports the target.

        Raises:
            PluginError: the module raises when it is imported, or lacks the attribute.
        """
        module_name, _, attribute = self.target.partition(":")
        try:
            found: Any = importlib.import_module(module_name)
            for part in attribute.split("."):
                found = getattr(found, part)
        except Exception as error:  # foreign code: a module may raise anything when it is imported
            raise PluginError(
                f"component {self.name!r} cannot be used: importing {self.target!r} failed with "
                f"{type(error).__name__}: {error}"
            ) from error
        return found

    def build(self, *args: Any, **kwargs: Any) -> Any:
        """Imports the target and calls it with its settings."""
        return self.load()(*args, **{**self.settings, **kwargs})


def _importable(module: str) -> bool:
    """Whether ``module`` can be found, without running it (its parents are imported)."""
    try:
        return importlib.util.find_spec(module) is not None
    except Exception:  # noqa: BLE001 - a parent is missing, is no package, or raises at import
        return False
