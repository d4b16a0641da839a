"""Checks of the socket caches: the storage itself, and the contexts that use it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from llama4_core.attention.eager import EagerAttention
from llama4_core.contexts import ledger
from llama4_core.contexts.caches import Placement
from llama4_core.plugins.regimes import RegimeTable
from llama4_core.protocols.masks import Causal, Chunked, Mask, Place, SlidingWindow
from llama4_core.protocols.states import StateSpec
from llama4_core.protocols.views import AttentionKind
from llama4_core.testing.check import Check, Subject, check
from llama4_core.testing.compare import close, holds, same
from llama4_core.testing.layer_driver import memory, step
from llama4_core.testing.mutants import patched
from llama4_core.testing.strategies import DTYPES, Numbers, numbers

GROUPS, SIZE = 2, 4
BACKEND = EagerAttention()


# --- the storage ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class StorageCase:
    """A cache and what happens to it.

    Attributes:
        rows, capacity: at the start.
        dtype: of the entries.
        actions: ("uniform", index, length), ("ragged", ((row, index), ...)),
            ("move", row, source, target, count) or ("resize", capacity).
        numbers: source of what is written.
    """

    rows: int
    capacity: int
    dtype: str
    actions: tuple[tuple[Any, ...], ...]
    numbers: Numbers


@st.composite
def _storage(draw: Any) -> StorageCase:
    rows, capacity = draw(st.integers(1, 3)), draw(st.integers(0, 6))
    room = capacity
    actions: list[tuple[Any, ...]] = []
    if capacity and draw(st.booleans()):
        actions.append(("uniform", 0, capacity))
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(("uniform", "ragged", "move", "resize")))
        if kind == "resize" or not room:
            room = draw(st.integers(0, 9))
            actions.append(("resize", room))
        elif kind == "uniform":
            index = draw(st.integers(0, room - 1))
            actions.append(("uniform", index, draw(st.integers(1, room - index))))
        elif kind == "ragged":
            places = st.tuples(st.integers(0, rows - 1), st.integers(0, room - 1))
            chosen = draw(st.lists(places, min_size=1, max_size=6, unique=True))
            actions.append(("ragged", tuple(sorted(chosen))))
        else:
            source, target = draw(st.integers(0, room - 1)), draw(st.integers(0, room - 1))
            most = room - max(source, target)
            count = draw(st.one_of(st.just(most), st.integers(0, most)))
            actions.append(("move", draw(st.integers(0, rows - 1)), source, target, count))
    dtype = draw(st.sampled_from(("float32", "bfloat16")))
    return StorageCase(rows, capacity, dtype, tuple(actions), draw(numbers("plain")))


def _placement(action: tuple[Any, ...], rows: int) -> tuple[Placement, list[tuple[int, int]]]:
    if action[0] == "uniform":
        _, index, length = action
        places = [(row, index + i) for row in range(rows) for i in range(length)]
        return Placement((index, length), None, None), places
    places = list(action[1])
    row, index = (torch.tensor(column) for column in zip(*places, strict=True))
    return Placement(None, row, index), places


@check(
    properties=(4,),
    why="an entry in the wrong slot is another token's memory",
    cases=lambda subject: _storage(),
)
def storage(subject: Subject, case: StorageCase) -> None:
    """Any sequence of writes, moves and resizes keeps exactly what a table of entries keeps."""
    dtype = DTYPES[case.dtype]
    cache = subject.build(case.rows, GROUPS, SIZE, case.capacity, dtype, torch.device("cpu"))
    holds(isinstance(cache.bounded, bool), "the attribute `bounded` is missing")
    source, capacity = case.numbers.source(), case.capacity
    table: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    for action in case.actions:
        if action[0] == "resize":
            capacity = action[1]
            cache.resize(capacity)
            table = {place: kept for place, kept in table.items() if place[1] < capacity}
        elif action[0] == "move":
            _, row, origin, target, count = action
            moved = {i: table.get((row, origin + i)) for i in range(count)}
            cache.move(row, origin, target, count)
            for i, entry in moved.items():
                table.pop((row, target + i), None)
                if entry is not None:
                    table[row, target + i] = entry
        else:
            placement, places = _placement(action, case.rows)
            k, v = (source(len(places), GROUPS, SIZE, dtype=dtype) for _ in range(2))
            cache.write(k, v, placement)
            table.update({place: (k[n], v[n]) for n, place in enumerate(places)})
        shape = (case.rows, GROUPS, capacity, SIZE)
        for kept in (cache.keys, cache.values):
            holds(tuple(kept.shape) == shape, f"got shape {tuple(kept.shape)}, expected {shape}")
            holds(kept.dtype == dtype, f"got {kept.dtype}, expected {dtype}")
            holds(bool(kept.isfinite().all()), "an entry that nothing was written to is not finite")
        for (row, index), (k, v) in table.items():
            same(cache.keys[row, :, index], k, f"key {index} of row {row}")
            same(cache.values[row, :, index], v, f"value {index} of row {row}")


@st.composite
def _overlaps(draw: Any) -> StorageCase:
    rows, capacity = draw(st.integers(1, 2)), draw(st.integers(3, 9))
    distance = draw(st.integers(1, capacity - 2))
    source, target = draw(st.sampled_from(((0, distance), (distance, 0))))
    move = ("move", draw(st.integers(0, rows - 1)), source, target, capacity - distance)
    return StorageCase(
        rows, capacity, "float32", (("uniform", 0, capacity), move), draw(numbers("plain"))
    )


@check(
    why="dropping old entries moves the rest onto its own place; a copy that reads what it has "
    "just written repeats one token",
    cases=lambda subject: _overlaps(),
)
def overlapping_move(subject: Subject, case: StorageCase) -> None:
    """Moving a range onto a part of itself, either way, keeps every entry."""
    storage.body(subject, case)


@check(
    why="memory is planned, and shown to users, by this number",
    cases=lambda subject: st.tuples(st.integers(1, 3), st.integers(0, 9)),
)
def nbytes_is_true(subject: Subject, case: tuple[int, int]) -> None:
    """``nbytes`` is what keys and values occupy."""
    rows, capacity = case
    cache = subject.build(rows, GROUPS, SIZE, capacity, torch.float32, torch.device("cpu"))
    for size in (capacity, capacity + 3):
        cache.resize(size)
        held = cache.keys.nbytes + cache.values.nbytes
        holds(cache.nbytes == held, f"nbytes is {cache.nbytes}; keys and values hold {held}")


# --- in a context ---------------------------------------------------------------------------------


class Probe:
    """A mixer that is nothing but attention: hidden states are q, k and v side by side."""

    def __init__(self, mask: Mask) -> None:
        self.kind = AttentionKind(mask, (), RegimeTable.always(BACKEND), GROUPS, SIZE)
        self.state_spec = StateSpec(2 * GROUPS * SIZE, mask=mask, split="kv_heads")

    def __call__(self, x: Tensor, view: Any) -> Tensor:
        """Attends."""
        q, k, v = (part.unflatten(-1, (GROUPS, SIZE)) for part in x.chunk(3, dim=-1))
        out: Tensor = view.attend(q, k, v, scale=1.0)
        return out


@dataclass(frozen=True)
class ContextCase:
    """A cached batch and what happens to it.

    Attributes:
        mask: of the layer.
        rows: number of sequences.
        capacity: expected length, as ``model.cached`` gets it.
        actions: ("extend", lengths), ("commit", shares of what is provisional) or ("rollback",).
        numbers: source of the hidden states.
        slack: spare slots of a bounded ledger; with none, it drops at every step.
    """

    mask: Mask
    rows: int
    capacity: int
    actions: tuple[tuple[Any, ...], ...]
    numbers: Numbers
    slack: int


MASKS: tuple[Callable[[int], Mask], ...] = (
    lambda size: Causal(),
    lambda size: Causal() & Chunked(size),
    lambda size: Causal() & SlidingWindow(size),
)


@st.composite
def _contexts(draw: Any) -> ContextCase:
    rows = draw(st.integers(1, 3))
    # Long steps now and then: bounded caches drop entries only past some tens of tokens.
    lengths = st.one_of(st.integers(0, 3), st.integers(0, 9), st.integers(30, 50))
    extend = st.tuples(st.just("extend"), st.tuples(*[lengths] * rows))
    shares = st.one_of(st.just(1.0), st.sampled_from((0.0, 0.3, 0.6, 0.9, 1.0)))
    commit = st.tuples(st.just("commit"), st.tuples(*[shares] * rows))
    action = st.one_of(extend, commit, commit, st.just(("rollback",)))
    actions = draw(st.lists(st.tuples(extend, action), min_size=1, max_size=8))
    return ContextCase(
        draw(st.sampled_from(MASKS))(draw(st.integers(1, 12))),
        rows,
        draw(st.sampled_from((0, 0, 20, 200))),
        tuple(itertools.chain.from_iterable(actions)),
        draw(numbers("plain", "ties")),
        draw(st.sampled_from((0, 1, ledger.SLACK))),
    )


def _attended(mask: Mask, history: Tensor, new: int) -> Tensor:
    """Outputs of the last ``new`` of all tokens ``history [T, 3 G K]``, by the definition."""
    q, k, v = (x.double().unflatten(-1, (GROUPS, SIZE)) for x in history.chunk(3, dim=-1))
    at, zero = torch.arange(len(history)), torch.zeros(1)
    seen = mask.visible(Place(at[-new:, None], zero), Place(at[None], zero))
    scores = torch.einsum("igk,jgk->gij", q[-new:], k).masked_fill(~seen, float("-inf"))
    return torch.einsum("gij,jgk->igk", scores.softmax(-1), v)


def _replay(subject: Subject, case: ContextCase) -> None:
    """Runs the actions and compares every step."""
    probe, source = Probe(case.mask), case.numbers.source()
    context = memory(probe, case.rows, capacity=case.capacity, make_cache=subject.build)
    width = 3 * GROUPS * SIZE
    committed = [torch.empty(0, width) for _ in range(case.rows)]
    pending = [torch.empty(0, width) for _ in range(case.rows)]
    for action in case.actions:
        if action[0] == "extend":
            if not any(action[1]):
                continue
            pieces = [source(length, width) for length in action[1]]
            outputs = step(probe, context, pieces)
            for row, piece in enumerate(pieces):
                pending[row] = torch.cat([pending[row], piece])
                if len(piece):
                    history = torch.cat([committed[row], pending[row]])
                    expected = _attended(case.mask, history, len(piece))
                    close(outputs[row], expected, subject.tolerance("float32"), f"row {row}")
        else:
            shares = action[1] if action[0] == "commit" else (0.0,) * case.rows
            counts = [int(len(p) * share) for p, share in zip(pending, shares, strict=True)]
            if action[0] == "rollback":
                context.rollback()
            else:
                context.commit(counts)
            for row, count in enumerate(counts):
                committed[row] = torch.cat([committed[row], pending[row][:count]])
                pending[row] = pending[row][:0]
            lengths = tuple(len(history) for history in committed)
            holds(context.lengths == lengths, f"lengths are {context.lengths}, expected {lengths}")


@check(
    properties=(4,),
    why="drafts are taken back across chunk borders; a cache that dropped too much answers wrong "
    "from there on, a shape test never notices",
    cases=lambda subject: _contexts(),
)
def any_history(subject: Subject, case: ContextCase) -> None:
    """Extend, commit in part and roll back in any order: as a full pass over what was kept."""
    with patched(ledger, "SLACK", case.slack)():
        _replay(subject, case)


def _steady(draw_bound: int) -> tuple[Mask, ...]:
    return (Causal() & Chunked(draw_bound), Causal() & SlidingWindow(draw_bound), Causal())


@dataclass(frozen=True)
class LongCase:
    """A long generation.

    Attributes:
        mask: of the layer.
        prompt, steps: tokens of the prompt, and tokens generated one by one.
        numbers: source of the hidden states.
    """

    mask: Mask
    prompt: int
    steps: int
    numbers: Numbers


@check(
    why="bounded caches are what makes long contexts affordable; one that never drops runs out of "
    "memory, one that drops too much forgets",
    cases=lambda subject: st.builds(
        LongCase,
        st.integers(1, 12).flatmap(lambda bound: st.sampled_from(_steady(bound))),
        st.integers(1, 300),
        st.integers(1, 5),
        numbers("plain"),
    ),
)
def memory_as_stated(subject: Subject, case: LongCase) -> None:
    """A bounded cache holds at most twice the bound and its slack; another holds every token."""
    probe, source = Probe(case.mask), case.numbers.source()
    context = memory(probe, 1, make_cache=subject.build)
    cache = context.caches[0]
    for length in (case.prompt, *[1] * case.steps):
        step(probe, context, [source(length, 3 * GROUPS * SIZE)])
        context.commit()
    total = case.prompt + case.steps
    entry = 2 * GROUPS * SIZE * torch.float32.itemsize
    held = context.nbytes / entry
    needed = total - (case.mask.horizon(total) if cache.bounded else 0)
    holds(held >= needed, f"holds {held:.0f} tokens; {needed} may still be seen")
    if cache.bounded and not isinstance(case.mask, Causal):
        bound = min(total, probe.state_spec.tokens_kept(10**9))
        limit = 2 * (bound + ledger.SLACK) + 1
        holds(held <= limit, f"holds {held:.0f} tokens; at most {limit} are stated")


CHECKS: tuple[Check, ...] = (
    storage,
    overlapping_move,
    nbytes_is_true,
    any_history,
    memory_as_stated,
)
