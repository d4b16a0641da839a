"""A check of the ledger that caches share: which slot holds what, and how much room there is."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st

from llama4_core.contexts import ledger
from llama4_core.errors import ContextError
from llama4_core.protocols.masks import Causal, Chunked, Mask, SlidingWindow, parts_of
from llama4_core.testing.caches import Probe
from llama4_core.testing.check import Subject, check
from llama4_core.testing.compare import holds
from llama4_core.testing.layer_driver import memory
from llama4_core.testing.mutants import patched

MASKS: tuple[Callable[[int, int], Mask], ...] = (
    lambda size, other: Causal(),
    lambda size, other: Causal() & Chunked(size),
    lambda size, other: Causal() & SlidingWindow(size),
    lambda size, other: Causal() & Chunked(size) & SlidingWindow(other),
)


@dataclass
class Notes:
    """A cache that only notes which position lies in which slot, and what it was asked to do."""

    bounded: bool
    rows: list[list[int | None]]
    moves: list[tuple[int, int, int, int]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def move(self, row: int, source: int, target: int, count: int) -> None:
        """Moves entries."""
        self.moves.append((row, source, target, count))
        kept = self.rows[row][source : source + count]
        holds(len(kept) == count, f"moves {count} entries, and row {row} has {len(kept)} there")
        self.rows[row][target : target + count] = kept

    def resize(self, capacity: int) -> None:
        """Cuts or fills up."""
        self.sizes.append(capacity)
        self.rows = [(row + [None] * capacity)[:capacity] for row in self.rows]

    def heard(self) -> tuple[int, int]:
        """How many moves and resizes were asked for since the last time."""
        count = len(self.moves), len(self.sizes)
        self.moves, self.sizes = [], []
        return count


@dataclass(frozen=True)
class LedgerCase:
    """A ledger and what happens to it.

    Attributes:
        mask: of its layers.
        bounded: of each of its caches.
        rows, hint, slack: number of sequences, expected length, spare slots.
        actions: ("extend", lengths), ("commit", shares of what is provisional), or an extension
            that just fills the slots, ("fill", excess), or twice the bound, ("double", excess).
    """

    mask: Mask
    bounded: tuple[bool, ...]
    rows: int
    hint: int
    slack: int
    actions: tuple[tuple[str, tuple[Any, ...]], ...]


@st.composite
def _cases(draw: Any) -> LedgerCase:
    rows = draw(st.integers(1, 3))
    lengths = st.one_of(st.integers(0, 2), st.integers(0, 9), st.integers(20, 30))
    extend = st.tuples(st.just("extend"), st.tuples(*[lengths] * rows))
    shares = st.one_of(st.just(1.0), st.sampled_from((0.0, 0.5, 1.0)))
    commit = st.tuples(st.just("commit"), st.tuples(*[shares] * rows))
    excess = st.tuples(*[st.sampled_from((0, 0, 0, 1, -1))] * rows)
    extend = st.one_of(extend, st.tuples(st.sampled_from(("fill", "double")), excess))
    pairs = st.tuples(extend, st.one_of(extend, commit, commit))
    steps = draw(st.lists(pairs, min_size=3, max_size=12))
    return LedgerCase(
        draw(st.sampled_from(MASKS))(draw(st.integers(1, 9)), draw(st.integers(1, 9))),
        draw(st.sampled_from(((True,), (True, True), (True, False), (False,)))),
        rows,
        draw(st.sampled_from((0, 0, 10, 60))),
        draw(st.sampled_from((0, 1, 5))),
        tuple(itertools.chain.from_iterable(steps)),
    )


class _Run:
    """A ledger beside a plain account of what it should do."""

    def __init__(self, case: LedgerCase) -> None:
        self.case = case
        self.caches = [Notes(flag, [[] for _ in range(case.rows)]) for flag in case.bounded]
        self.ledger = ledger.Ledger(case.mask, self.caches, case.rows, 0, case.hint)  # type: ignore[arg-type]
        self.committed = [0] * case.rows
        self.pending = [0] * case.rows
        sizes = [p.size for p in parts_of(case.mask) if isinstance(p, Chunked | SlidingWindow)]
        self.bound = min(sizes) if sizes and all(case.bounded) else None

    def dropped(self, before: list[int]) -> list[int]:
        """Where rows start after everything was dropped that nobody may see any more."""
        if self.bound is None:
            return before
        horizons = [self.case.mask.horizon(length) for length in self.committed]
        return [max(pair) for pair in zip(before, horizons, strict=True)]

    def extend(self, lengths: tuple[int, ...]) -> None:
        """Announces tokens; expects drops and growth only where there is no room."""
        first = [a + b for a, b in zip(self.committed, self.pending, strict=True)]
        ends = [begin + length for begin, length in zip(first, lengths, strict=True)]
        start, capacity = list(self.ledger.start), self.ledger.capacity
        if max(end - begin for end, begin in zip(ends, start, strict=True)) > capacity:
            start = self.dropped(start)
        needed = max(end - begin for end, begin in zip(ends, start, strict=True))
        if needed > capacity:
            # By half, or to the expected length; a bounded one not past its bound and one step.
            roomy = max(self.case.hint, capacity + capacity // 2)
            if self.bound is not None:
                roomy = min(roomy, self.bound + max(*lengths, self.case.slack))
            capacity = max(needed, roomy)
        self.ledger.reserve(self.committed, first, lengths)
        self.expect(start, capacity, "reserve")
        self.write(first, lengths)
        self.segments(first, lengths)
        self.pending = [a + b for a, b in zip(self.pending, lengths, strict=True)]

    def commit(self, shares: tuple[float, ...]) -> None:
        """Keeps some; expects memory back when more than twice the bound is held."""
        kept = [int(count * share) for count, share in zip(self.pending, shares, strict=True)]
        self.committed = [a + b for a, b in zip(self.committed, kept, strict=True)]
        self.pending = [0] * self.case.rows
        start, capacity = list(self.ledger.start), self.ledger.capacity
        if self.bound is not None and capacity > 2 * (self.bound + self.case.slack):
            start = self.dropped(start)
            held = max(a - b for a, b in zip(self.committed, start, strict=True))
            capacity = max(held, self.bound + self.case.slack)
        self.ledger.trim(self.committed)
        self.expect(start, capacity, "trim")

    def expect(self, start: list[int], capacity: int, what: str) -> None:
        """Compares the state; nothing is moved or resized without a need."""
        moved = sum(a != b for a, b in zip(self.before, start, strict=True))
        resized = int(capacity != self.capacity)
        holds(self.ledger.start == start, f"{what}: starts {self.ledger.start}, expected {start}")
        holds(
            self.ledger.capacity == capacity,
            f"{what}: capacity {self.ledger.capacity}, expected {capacity}",
        )
        for cache in self.caches:
            heard = cache.heard()
            holds(heard == (moved, resized), f"{what}: {heard} moves and resizes, not needed")
            holds(len(cache.rows[0]) == capacity, f"{what}: a cache of another capacity")

    def write(self, first: list[int], lengths: tuple[int, ...]) -> None:
        """Notes the new positions where the placement says."""
        where = self.ledger.placement(first, lengths, torch.device("cpu"))
        new = [(row, first[row] + i) for row, count in enumerate(lengths) for i in range(count)]
        same_slot = len({a - b for a, b in zip(first, self.ledger.start, strict=True)}) == 1
        holds(
            (where.uniform is not None) == (same_slot and len(set(lengths)) == 1),
            "one slice is for rows that get as many tokens at the same slot, and only for them",
        )
        if where.uniform is not None:
            index, length = where.uniform
            places = [(row, index + i) for row in range(self.case.rows) for i in range(length)]
        else:
            holds(where.rows is not None and where.indices is not None, "a placement of nothing")
            places = list(zip(where.rows.tolist(), where.indices.tolist(), strict=True))  # type: ignore[union-attr]
        holds(len(places) == len(new), f"{len(places)} places for {len(new)} tokens")
        for (row, slot), (own, position) in zip(places, new, strict=True):
            holds(row == own, f"a token of row {own} is written to row {row}")
            for cache in self.caches:
                cache.rows[row][slot] = position

    def segments(self, first: list[int], lengths: tuple[int, ...]) -> None:
        """Each row with new tokens reads exactly what its first query may see, and on."""
        found = {segment.slot: segment for segment in self.ledger.segments(first, lengths)}
        holds(set(found) == {row for row, n in enumerate(lengths) if n}, "rows of the segments")
        for row, segment in found.items():
            begin, end = first[row], first[row] + lengths[row]
            holds(segment.query_start == begin, f"queries start at {segment.query_start}")
            holds(segment.query_length == lengths[row], f"{segment.query_length} queries")
            seen = range(self.case.mask.horizon(begin), end)
            keys = range(segment.key_start, segment.key_start + segment.key_length)
            holds(keys == seen, f"reads keys {keys}, expected {seen}")
            slots = slice(segment.key_offset, segment.key_offset + segment.key_length)
            for cache in self.caches:
                held = cache.rows[row][slots]
                holds(held == list(seen), f"row {row} holds {held}, expected {seen}")

    def run(self) -> None:
        """All actions."""
        for name, numbers in self.case.actions:
            self.before, self.capacity = list(self.ledger.start), self.ledger.capacity
            if name in ("fill", "double"):
                size = self.capacity
                if name == "double":
                    size = 2 * ((self.bound or 0) + self.case.slack)
                ends = [
                    start + size + excess
                    for start, excess in zip(self.before, numbers, strict=True)
                ]
                held = [a + b for a, b in zip(self.committed, self.pending, strict=True)]
                numbers = tuple(max(0, end - have) for end, have in zip(ends, held, strict=True))
            if name == "commit":
                self.commit(numbers)
            elif any(numbers):
                self.extend(numbers)


@check(
    why="a key in the wrong slot is another token's memory; room for every token of a long "
    "context is what bounded caches are there to save",
    cases=lambda subject: _cases(),
)
def ledger_by_hand(subject: Subject, case: LedgerCase) -> None:
    """Slots, segments, drops and growth are as a plain account of positions says."""
    with patched(ledger, "SLACK", case.slack)():
        _Run(case).run()


@check(
    why="a number that is silently cut or repeated shifts every later position of a row",
    cases=lambda subject: st.integers(0, 5),
)
def lengths_by_hand(subject: Subject, case: int) -> None:
    """Rows are counted: other numbers of lengths, no token at all, or too many kept are refused."""
    for wrong in ((case,), (case, 1, 1), (0, 0)):
        context = memory(Probe(Causal()), 2, make_cache=subject.build)
        raises(ContextError, lambda w=wrong, c=context: c.extend(w), f"extend({wrong})")  # type: ignore[misc]
    for wrong in ((case,), (case, 0, 0), (case + 1, 0), (0, case + 1), (case + 1, case + 1)):
        context = memory(Probe(Causal()), 2, make_cache=subject.build)
        if case:
            context.extend((case, case)).begin(torch.zeros(2 * case, dtype=torch.int64), {})
        raises(ContextError, lambda w=wrong, c=context: c.commit(w), f"commit({wrong})")  # type: ignore[misc]


@check(
    why="a step that is left out, repeated or overtaken leaves holes or doubles in what is kept",
    cases=lambda subject: st.integers(1, 3),
)
def turns_by_hand(subject: Subject, case: int) -> None:
    """One forward for each step, in order; everything else is refused, and rolled back."""
    context = memory(Probe(Causal()), 2, make_cache=subject.build)
    tokens = torch.zeros(2 * case, dtype=torch.int64)
    lost = context.extend((case, case))
    raises(ContextError, lambda: context.extend((case, case)), "a step behind one never run")
    for kept in (None, (case, 0)):
        raises(ContextError, lambda k=kept: context.commit(k), "a step never run, committed")  # type: ignore[misc]
    context.rollback()
    raises(ContextError, lambda: lost.begin(tokens, {}), "a step after its rollback")
    for _ in range(2):
        step = context.extend((case, case))
        step.begin(tokens, {})
        raises(ContextError, lambda s=step: s.begin(tokens, {}), "a step run twice")  # type: ignore[misc]
    context.commit()
    holds(context.lengths == (2 * case, 2 * case), f"lengths {context.lengths} after two steps")


def raises(error: type[Exception], call: Callable[[], object], what: str) -> None:
    """Raises unless the call raises this."""
    try:
        call()
    except error:
        return
    raise AssertionError(f"{what} was accepted; expected {error.__name__}")
