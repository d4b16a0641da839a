"""Overrides: which slots of a model get something else than the spec says.

A slot is a dotted path, e.g. ``layers.13.feed_forward.router``. A glob addresses slots segment by
segment:

=============== =====================================================================
``*``           any one segment; also within one, as in ``feed_*``
``**``          any number of segments, none included
``[13]``        the index 13, as a whole segment
``[1,3,8-11]``  any of these indices; ranges include both ends
``name``        itself
=============== =====================================================================

Values are names of components (strings), names with settings (:class:`Named`) or objects (a class
or function that builds the part, or the part itself). There is no precedence: two globs that give
one slot different values are an error, and so is a glob that addresses nothing.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llama4_core.errors import OverrideError

_INDICES = re.compile(r"\[\s*\d+(\s*-\s*\d+)?(\s*,\s*\d+(\s*-\s*\d+)?)*\s*\]\Z")
_SEGMENT = re.compile(r"[A-Za-z0-9_*?-]+\Z")


@dataclass(frozen=True)
class Named:
    """A component by name, built with settings of one's own.

    Attributes:
        name: as a string alone would say it.
        settings: keyword arguments of the component's target; they win over those it comes with.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Override:
    """What one glob puts into a slot."""

    glob: str
    value: Any

    @property
    def part(self) -> Any:
        """The name of a component, or an object."""
        return self.value.name if isinstance(self.value, Named) else self.value

    @property
    def settings(self) -> Mapping[str, Any]:
        """What a named component is built with beside its own."""
        return self.value.settings if isinstance(self.value, Named) else {}


class Overrides:
    """The overrides of one assembly; remembers which globs were used.

    Args:
        values: glob -> name, name with settings, or object.
        what: what to call one in errors.
        place: what to call in errors what one addresses.

    Raises:
        OverrideError: a glob is malformed, or a value is neither a name nor something callable.
    """

    def __init__(
        self,
        values: Mapping[str, Any] | None = None,
        what: str = "override",
        place: str = "slot",
    ) -> None:
        self._what = what
        self._place = place
        self._overrides = [Override(glob, value) for glob, value in (values or {}).items()]
        self._patterns = {o.glob: _parse(o.glob) for o in self._overrides}
        self._used: set[str] = set()
        for override in self._overrides:
            _check_value(override)

    def take(self, slot: str) -> Override | None:
        """The override of ``slot``, or None; its globs count as used.

        Raises:
            OverrideError: two globs give the slot different values.
        """
        path = slot.split(".")
        matching = [o for o in self._overrides if _matches(self._patterns[o.glob], path)]
        self._used.update(override.glob for override in matching)
        for other in matching[1:]:
            if not _same(matching[0].value, other.value):
                raise OverrideError(
                    f"{self._what}s {matching[0].glob!r} and {other.glob!r} both address "
                    f"{slot}, with {_shown(matching[0].value)} and {_shown(other.value)}: narrow "
                    "one of them"
                )
        return matching[0] if matching else None

    def check_all_used(self, slots: Iterable[str]) -> None:
        """Complains about the globs that addressed none of ``slots``.

        Raises:
            OverrideError: names each unused glob and the nearest slots that exist.
        """
        known = list(slots)
        unused = [o.glob for o in self._overrides if o.glob not in self._used]
        if not unused:
            return
        raise OverrideError(
            "; ".join(
                f"{self._what} {glob!r} addresses no {self._place} of this model; "
                f"{_nearest(glob, known)}"
                for glob in unused
            )
        )


def _parse(glob: Any) -> tuple[str | frozenset[int], ...]:
    if not isinstance(glob, str) or not glob:
        raise OverrideError(
            f"override path {glob!r} is not usable; expected a path such as "
            "'layers.*.attention.backend'"
        )
    pattern: list[str | frozenset[int]] = []
    for segment in glob.split("."):
        if _INDICES.match(segment):
            pattern.append(_indices(glob, segment))
        elif _SEGMENT.match(segment) and ("**" not in segment or segment == "**"):
            pattern.append(segment)
        else:
            raise OverrideError(
                f"override path {glob!r} has the segment {segment!r}; expected a name, '*', '**', "
                "or indices as a whole segment: '[13]', '[1,3]', '[0-7]'"
            )
    return tuple(pattern)


def _indices(glob: str, segment: str) -> frozenset[int]:
    found: set[int] = set()
    for part in segment[1:-1].split(","):
        first, _, last = (text.strip() for text in part.partition("-"))
        low, high = int(first), int(last or first)
        if high < low or high - low > 100_000:
            raise OverrideError(
                f"override path {glob!r} has the range {part.strip()!r}; expected low-high"
            )
        found.update(range(low, high + 1))
    return frozenset(found)


def _matches(pattern: tuple[str | frozenset[int], ...], path: list[str]) -> bool:
    if not pattern:
        return not path
    head, rest = pattern[0], pattern[1:]
    if head == "**":
        return any(_matches(rest, path[start:]) for start in range(len(path) + 1))
    if not path:
        return False
    if isinstance(head, frozenset):
        fits = path[0].isdecimal() and int(path[0]) in head
    else:
        fits = fnmatch.fnmatchcase(path[0], head)
    return fits and _matches(rest, path[1:])


def _check_value(override: Override) -> None:
    if isinstance(override.part, str):
        if override.part == "auto" and override.settings:
            raise OverrideError(
                f"override {override.glob!r} gives settings to 'auto'; expected the name of the "
                "component that they are for"
            )
        if override.part:
            return
    elif callable(override.value):
        return
    raise OverrideError(
        f"override {override.glob!r} has the value {_shown(override.value)}; expected the name of "
        "a component, a class or function that builds the part, or the part itself"
    )


def _same(left: Any, right: Any) -> bool:
    plain = (str, Named)
    if isinstance(left, plain) and isinstance(right, plain):
        return bool(left == right)
    return left is right


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _nearest(glob: str, slots: list[str]) -> str:
    if not slots:
        return "it has no slots"
    # Compared without numbers, so that 'layers.*.attention.backnd' finds the slot of every layer.
    shapes: dict[str, str] = {}
    for slot in slots:
        shapes.setdefault(_shape(slot), slot)
    near = difflib.get_close_matches(_shape(glob), shapes, 3, cutoff=0.5) or sorted(shapes)
    layers = [int(m[1]) for slot in slots if (m := re.match(r"layers\.(\d+)\.", slot))]
    extent = f" (layers are 0 to {max(layers)})" if layers else ""
    return f"the nearest are {', '.join(near)}{extent}"


def _shape(path: str) -> str:
    return ".".join(
        "*" if segment.isdecimal() or segment[:1] in "[*" else segment
        for segment in path.split(".")
    )
