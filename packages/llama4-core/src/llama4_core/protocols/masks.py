"""Attention masks as frozen values without tensors.

A mask answers one question: may the token at ``query`` see the token at ``key``?
:meth:`Mask.visible` is the one brute-force definition; the eager backend, the conformance kit and
``llama4 show mask`` evaluate it, every other backend has to agree with it. Masks are hashable, so
plans can be cached by them, and are composed with ``&``.

The fields of a :class:`Place` may be ints or integer tensors that broadcast: the definitions use
only operators that both have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from llama4_core.errors import SpecError


class Place(NamedTuple):
    """Where a token stands: its position within its document, and the document's number."""

    position: Any
    document: Any


class Mask(Protocol):
    """A rule of visibility between two places."""

    def visible(self, query: Place, key: Place) -> Any:
        """True where ``query`` may see ``key``; a bool tensor if the fields are tensors."""

    def horizon(self, position: int) -> int:
        """The lowest key position that any query at ``position`` or later may see.

        Caches drop what lies before it, and only at commit.
        """

    def __and__(self, other: Mask) -> Mask: ...


class _Composable:
    def __and__(self, other: Mask) -> Mask:
        return both(self, other)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Everything(_Composable):
    """Every query sees every key (vision encoders)."""

    def visible(self, query: Place, key: Place) -> Any:
        return (query.position == query.position) & (key.position == key.position)

    def horizon(self, position: int) -> int:
        return 0


@dataclass(frozen=True)
class Causal(_Composable):
    """A query sees its own position and what came before it."""

    def visible(self, query: Place, key: Place) -> Any:
        return key.position <= query.position

    def horizon(self, position: int) -> int:
        return 0


@dataclass(frozen=True)
class Chunked(_Composable):
    """Query and key lie in the same block of ``size`` positions (Llama 4's local layers).

    A block mask, not a sliding window: the first token of a chunk sees, with :class:`Causal`, only
    itself. The origin is position 0 of the document.
    """

    size: int

    def __post_init__(self) -> None:
        _positive("Chunked", self.size)

    def visible(self, query: Place, key: Place) -> Any:
        return query.position // self.size == key.position // self.size

    def horizon(self, position: int) -> int:
        return position // self.size * self.size


@dataclass(frozen=True)
class SlidingWindow(_Composable):
    """A query sees the last ``size`` positions, its own included (compose with :class:`Causal`)."""

    size: int

    def __post_init__(self) -> None:
        _positive("SlidingWindow", self.size)

    def visible(self, query: Place, key: Place) -> Any:
        return key.position > query.position - self.size

    def horizon(self, position: int) -> int:
        return max(0, position - self.size + 1)


@dataclass(frozen=True)
class SameDocument(_Composable):
    """Query and key belong to the same document of a packed stream."""

    def visible(self, query: Place, key: Place) -> Any:
        return query.document == key.document

    def horizon(self, position: int) -> int:
        return 0


@dataclass(frozen=True)
class Both(_Composable):
    """The conjunction of several masks; made by ``&``, flat, sorted and without repeats."""

    masks: tuple[Mask, ...]

    def visible(self, query: Place, key: Place) -> Any:
        seen = self.masks[0].visible(query, key)
        for mask in self.masks[1:]:
            seen = seen & mask.visible(query, key)
        return seen

    def horizon(self, position: int) -> int:
        return max(mask.horizon(position) for mask in self.masks)


def both(left: Mask, right: Mask) -> Mask:
    """``left & right``, in the one canonical form, so that equal conjunctions are equal values."""
    parts = dict.fromkeys((*parts_of(left), *parts_of(right)))
    if len(parts) > 1:
        parts.pop(Everything(), None)
    masks = tuple(sorted(parts, key=repr))
    return masks[0] if len(masks) == 1 else Both(masks)


def parts_of(mask: Mask) -> tuple[Mask, ...]:
    """The simple masks that ``mask`` is made of."""
    return mask.masks if isinstance(mask, Both) else (mask,)


def kinds_of(mask: Mask) -> frozenset[str]:
    """Names of the kinds in ``mask``, for example ``{"Causal", "Chunked", "SameDocument"}``."""
    return frozenset(type(part).__name__ for part in parts_of(mask))


def _positive(name: str, size: int) -> None:
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise SpecError(f"{name} got size {size!r}; expected a whole number of at least 1")
