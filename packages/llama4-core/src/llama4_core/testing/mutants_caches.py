"""Bugs of caches and of the ledger that tells them what to keep."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from llama4_core.contexts.caches import HeadMajorCache
from llama4_core.contexts.ledger import Ledger
from llama4_core.protocols.masks import Chunked, SlidingWindow
from llama4_core.testing.check import Subject
from llama4_core.testing.mutants import Mutant, patched


class MovesWithoutCopy(HeadMajorCache):
    """Overlapping moves read what they have just written."""

    def move(self, row: int, source: int, target: int, count: int) -> None:
        """Moves one entry after the other, upwards."""
        for stored in (self.keys, self.values):
            for i in range(count):
                stored[row, :, target + i] = stored[row, :, source + i]


class LosesOnResize(HeadMajorCache):
    """Forgets the last entry when it grows."""

    def resize(self, capacity: int) -> None:
        """Resizes by way of one entry less."""
        super().resize(max(0, min(capacity, self.keys.shape[2]) - 1))
        super().resize(capacity)


class Uninitialised(HeadMajorCache):
    """Leaves new entries as memory happens to be."""

    def resize(self, capacity: int) -> None:
        """Fills what is new with NaN."""
        before = self.keys.shape[2]
        super().resize(capacity)
        self.keys[:, :, before:] = float("nan")


class WrongRows(HeadMajorCache):
    """Ragged writes go to the neighbouring row."""

    def write(self, k: Tensor, v: Tensor, placement: Any) -> None:
        """Writes."""
        if placement.rows is not None:
            rows = (placement.rows + 1) % self.keys.shape[0]
            placement = type(placement)(None, rows, placement.indices)
        super().write(k, v, placement)


class HalfTheBytes(HeadMajorCache):
    """Counts keys and forgets values."""

    @property
    def nbytes(self) -> int:
        """Bytes of the keys."""
        return int(self.keys.nbytes)


def _drops_by_pending(self: Ledger, committed: Any, first: Any) -> None:
    for row, length in enumerate(first):
        horizon = self.mask.horizon(length)
        gone = horizon - self.start[row]
        if gone > 0:
            for cache in self.caches:
                cache.move(row, gone, 0, first[row] - horizon)
            self.start[row] = horizon


def _moves_one_less(self: Ledger, committed: Any, first: Any) -> None:
    for row, length in enumerate(committed):
        horizon = self.mask.horizon(length)
        gone = horizon - self.start[row]
        if gone > 0:
            for cache in self.caches:
                cache.move(row, gone, 0, max(0, first[row] - horizon - 1))
            self.start[row] = horizon


def _nothing(self: Ledger, *arguments: Any) -> None:
    return None


def _mutant(bug: str, check: str, cache: type = HeadMajorCache, **planted: Any) -> Mutant:
    return Mutant(bug, check, Subject("caches", f"{cache.__name__}, {bug}", cache), **planted)


MUTANTS: tuple[Mutant, ...] = (
    _mutant("move entry by entry", "overlapping-move", MovesWithoutCopy),
    _mutant("last entry lost on resize", "storage", LosesOnResize),
    _mutant("new entries not finite", "storage", Uninitialised),
    _mutant("ragged write to the wrong row", "storage", WrongRows),
    _mutant("values not counted", "nbytes-is-true", HalfTheBytes),
    _mutant(
        "drops what a draft has passed",
        "any-history",
        planted=patched(Ledger, "_drop", _drops_by_pending),
    ),
    _mutant(
        "one entry left behind",
        "any-history",
        planted=patched(Ledger, "_drop", _moves_one_less),
    ),
    _mutant(
        "horizon of the next chunk",
        "any-history",
        planted=patched(
            Chunked, "horizon", lambda self, position: (position + 1) // self.size * self.size
        ),
    ),
    _mutant(
        "window one too short",
        "any-history",
        planted=patched(
            SlidingWindow, "horizon", lambda self, position: max(0, position - self.size + 2)
        ),
    ),
    _mutant(
        "never gives memory back", "memory-as-stated", planted=patched(Ledger, "trim", _nothing)
    ),
    _mutant(
        "keeps one token",
        "memory-as-stated",
        type(
            "Short",
            (HeadMajorCache,),
            {
                "resize": lambda self, capacity: HeadMajorCache.resize(self, min(capacity, 1)),
            },
        ),
    ),
)
