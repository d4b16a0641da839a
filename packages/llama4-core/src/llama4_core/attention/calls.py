"""Stacks pieces of one shape into few kernel calls, as views of the tensors where that can be.

Everything here is host work on ints, except for the index and mask tensors that a plan carries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from llama4_core.attention.pieces import Piece
from llama4_core.protocols.attention import Segment

# A run of equal pieces that lie evenly in memory is a call of its own, without a copy, from this
# many queries on; smaller ones are gathered into shared, padded calls.
VIEW_QUERIES = 512
# Pieces up to this length are padded to each other whatever their ratio: the CPU kernel works in
# blocks of 32 queries anyway.
SMALL = 32
# Rows of a head-major cache share a call while padding at most doubles the work.
LARGEST_WASTE = 2.0


@dataclass(frozen=True)
class Part:
    """A piece with its place in memory: what one batch entry of one call computes.

    Attributes:
        row: index of the first query in the stream.
        queries, keys: numbers of them, T and S.
        slot, key: where the first key is (slot 0 for flat keys).
        causal, banded: as in :class:`~llama4_core.attention.pieces.Piece`.
    """

    row: int
    queries: int
    slot: int
    key: int
    keys: int
    causal: bool
    banded: bool = False


@dataclass(frozen=True)
class Queries:
    """Which rows of the stream a call computes: ``q [N, H, K] -> [B, T, H, K]``.

    Rows ``start .. start + batch * length - 1``, or those of ``index``.
    """

    batch: int
    length: int
    start: int = 0
    index: Tensor | None = None

    def take(self, q: Tensor) -> Tensor:
        """The rows; a view without an index."""
        if self.index is None:
            rows = q.narrow(0, self.start, self.batch * self.length)
        else:
            rows = q.index_select(0, self.index)
        return rows.unflatten(0, (self.batch, self.length))


@dataclass(frozen=True)
class Keys:
    """Which keys a call reads, as ``[B, G, S, K]``.

    Without an index a view: batch entry b starts ``b * step`` keys after ``start``, in the same
    slot, or, with ``step == 0``, in the b-th slot after ``slot``.
    """

    batch: int
    length: int
    slot: int = 0
    start: int = 0
    step: int = 0
    slots: Tensor | None = None
    index: Tensor | None = None

    def take(self, keys: Tensor, layout: str) -> Tensor:
        """Reads ``[sum S, G, K]`` ("flat") or ``[slots, G, S, K]`` ("head_major")."""
        if layout == "flat":
            if self.index is not None:
                return (
                    keys.index_select(0, self.index.flatten())
                    .unflatten(0, (self.batch, self.length))
                    .transpose(1, 2)
                )
            return self._windows(keys, 0).transpose(2, 3)
        if self.index is not None:
            return keys[self.slots, :, self.index].transpose(1, 2)
        if self.step:
            return self._windows(keys[self.slot], 1).permute(1, 0, 3, 2)
        rows = keys.narrow(0, self.slot, self.batch)
        return rows.narrow(2, self.start, self.length)

    def _windows(self, keys: Tensor, dim: int) -> Tensor:
        """Windows of ``length`` keys, ``step`` apart: flat [B, G, K, S], slot [G, B, K, S]."""
        reach = (self.batch - 1) * self.step + self.length
        return keys.narrow(dim, self.start, reach).unfold(dim, self.length, max(self.step, 1))


@dataclass(frozen=True)
class Call:
    """One kernel call: B pieces of T queries and S keys.

    Attributes:
        queries, keys: what it reads.
        causal: a causal square (T == S).
        mask: bool, ``[T, S]`` (a window's band) or ``[B, 1, 1, S]`` (padding), or None.
    """

    queries: Queries
    keys: Keys
    causal: bool
    mask: Tensor | None = None


@dataclass(frozen=True)
class Half:
    """Calls that together compute each of some rows once.

    Attributes:
        calls: in any order.
        order: for each row, its index among the concatenated rows of the calls; None when the
            concatenation is already in order.
        rows: which rows of the stream these are; None when they are all of them.
    """

    calls: tuple[Call, ...]
    order: Tensor | None = None
    rows: Tensor | None = None


def parts_from(
    segments: Iterable[Segment], cut: Callable[[Segment], list[Piece]]
) -> tuple[list[Part], list[Part]]:
    """The parts that cover every row once, and the past of pieces that have one.

    A causal piece with keys before its square becomes two parts, whose results are to be merged.
    """
    first, past, row = [], [], 0
    for segment in segments:
        for piece in cut(segment):
            part = Part(
                row=row + piece.query,
                queries=piece.queries,
                slot=segment.slot,
                key=segment.key_offset + piece.key,
                keys=piece.keys,
                causal=piece.causal,
                banded=piece.banded,
            )
            before = piece.keys - piece.queries
            if piece.causal and not piece.banded and before:
                past.append(replace(part, keys=before, causal=False))
                part = replace(part, key=part.key + before, keys=piece.queries)
            first.append(part)
        row += segment.query_length
    return first, past


def half_of(parts: list[Part], layout: str, device: str, tokens: int) -> Half:
    """Groups the parts into calls, and says how their results lie."""
    if layout == "flat":
        # A lone token is a square of length 1; in a cache it joins the decoding rows instead.
        parts = [
            replace(part, causal=True) if part.queries == part.keys == 1 else part for part in parts
        ]
    calls, covered = [], [torch.empty(0, dtype=torch.int64)]
    for group in _groups(parts, layout):
        call, rows = _stack(group, layout, device)
        calls.append(call)
        covered.append(rows)
    flat = torch.cat(covered)
    real = (flat >= 0).nonzero()[:, 0]
    rows, at = flat[real].sort()
    order = real[at]
    in_order = torch.equal(order, torch.arange(len(flat)))
    return Half(
        tuple(calls),
        None if in_order else order.to(device),
        None if len(rows) == tokens else rows.to(device),
    )


def _groups(parts: list[Part], layout: str) -> list[list[Part]]:
    """Sorts the parts into calls."""
    runs: list[list[Part]] = []
    for part in parts:
        if runs and _is_run([*runs[-1][-2:], part], layout):
            runs[-1].append(part)
        else:
            runs.append([part])
    if len(runs) == 1:
        return runs
    groups: list[list[Part]] = []
    squares: dict[tuple[bool, int], list[Part]] = {}
    full: list[Part] = []
    for run in runs:
        if len(run) * run[0].queries >= VIEW_QUERIES or (run[0].banded and not run[0].causal):
            groups.append(run)
        elif run[0].causal:
            # Padding at the right keeps a causal piece's shape if its past is equally long.
            squares.setdefault((run[0].banded, run[0].keys - run[0].queries), []).extend(run)
        else:
            full.extend(run)
    for alike in squares.values():
        groups += _buckets(alike)
    groups += _slot_groups(full) if layout == "head_major" else _buckets(full)
    return groups


def _is_run(parts: list[Part], layout: str) -> bool:
    """Whether the parts are equal in shape and lie evenly: in the stream, and where the keys are.

    One can then take them as views.
    """
    step = parts[1].key - parts[0].key if len(parts) > 1 else 0
    for one, two in pairwise(parts):
        shape = (one.queries, one.keys, one.causal, one.banded)
        if shape != (two.queries, two.keys, two.causal, two.banded):
            return False
        if two.row != one.row + one.queries or two.key != one.key + step:
            return False
        next_slot = two.slot == one.slot + 1 and step == 0
        same_slot = two.slot == one.slot and step > 0
        if not (next_slot and layout == "head_major") and not same_slot:
            return False
        if two.slot - one.slot != parts[1].slot - parts[0].slot:
            return False
    return True


def _buckets(parts: list[Part]) -> list[list[Part]]:
    """Groups of similar length, to be padded to their longest: at least 3/4 of it, or small."""
    groups: list[list[Part]] = []
    for part in sorted(parts, key=lambda part: (part.queries, part.keys), reverse=True):
        if groups and all(
            4 * length >= 3 * longest or longest <= SMALL
            for length, longest in (
                (part.queries, groups[-1][0].queries),
                (part.keys, max(other.keys for other in groups[-1])),
            )
        ):
            groups[-1].append(part)
        else:
            groups.append([part])
    return groups


def _slot_groups(parts: list[Part]) -> list[list[Part]]:
    """Groups in neighbouring slots, whose keys one slice of the cache covers without much waste."""
    groups: list[list[Part]] = []
    for part in sorted(parts, key=lambda part: (part.slot, part.row)):
        if groups and part.slot == groups[-1][-1].slot + 1:
            together = [*groups[-1], part]
            start, stop = _extent(together)
            longest = max(other.queries for other in together)
            work = sum(other.queries * other.keys for other in together)
            if len(together) * longest * (stop - start) <= LARGEST_WASTE * work:
                groups[-1].append(part)
                continue
        groups.append([part])
    return groups


def _extent(parts: list[Part]) -> tuple[int, int]:
    return min(part.key for part in parts), max(part.key + part.keys for part in parts)


def _stack(parts: list[Part], layout: str, device: str) -> tuple[Call, Tensor]:
    """One call for a group, and the stream row of each of its results (-1: padding)."""
    batch, length = len(parts), max(part.queries for part in parts)
    queries, rows = _stack_queries(parts, length, layout, device)
    first, last = parts[0], parts[-1]
    mask = None
    if _is_run(parts, layout):
        step = 0 if batch == 1 or last.slot != first.slot else parts[1].key - first.key
        # One entry of a cache is a slice of its slot, as is a step of 0.
        keys = Keys(batch, first.keys, first.slot, first.key, step)
    elif layout == "head_major" and not first.causal:
        start, stop = _extent(parts)
        keys = Keys(batch, stop - start, first.slot, start)
        mask = _padding([(part.key - start, part.keys) for part in parts], stop - start, device)
    else:
        longest = max(part.keys for part in parts)
        spread = torch.arange(longest)
        index = torch.stack([part.key + spread.clamp(max=part.keys - 1) for part in parts])
        slots = torch.tensor([[part.slot] for part in parts])
        keys = Keys(batch, longest, slots=slots.to(device), index=index.to(device))
        if not first.causal:
            mask = _padding([(0, part.keys) for part in parts], longest, device)
    if first.banded:
        query, key = torch.arange(length)[:, None], torch.arange(keys.length)[None, :]
        mask = key >= query
        if first.causal:
            mask = mask & (key - query <= keys.length - length)
        mask = mask.to(device)
    return Call(queries, keys, first.causal and not first.banded, mask), rows


def _stack_queries(
    parts: list[Part], length: int, layout: str, device: str
) -> tuple[Queries, Tensor]:
    batch, start = len(parts), parts[0].row
    if all(part.row == start + number * length for number, part in enumerate(parts)) and all(
        part.queries == length for part in parts
    ):
        return Queries(batch, length, start), torch.arange(start, start + batch * length)
    spread = torch.arange(length)
    index = torch.cat([part.row + spread.clamp(max=part.queries - 1) for part in parts])
    padding = torch.cat([spread >= part.queries for part in parts])
    return Queries(batch, length, 0, index.to(device)), index.masked_fill(padding, -1)


def _padding(extents: list[tuple[int, int]], length: int, device: str) -> Tensor | None:
    """``[B, 1, 1, S]``, true for the real keys (start, number) of each entry; None if all are."""
    if all(start == 0 and number == length for start, number in extents):
        return None
    bounds = torch.tensor(extents)
    at = torch.arange(length)[None, :]
    real = (at >= bounds[:, :1]) & (at < bounds.sum(dim=1, keepdim=True))
    return real[:, None, None, :].to(device)
