"""In which order the records of an epoch come."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Protocol

from llama4_train.sources.permutation import Permutation


class Order(Protocol):
    """Which record comes at a place of an epoch; depends on its settings and nothing else."""

    def __call__(self, epoch: int, place: int) -> int:
        """Number of the record."""


class Sequential:
    """As they are stored, in every epoch."""

    def __call__(self, epoch: int, place: int) -> int:
        """``place`` itself."""
        return place


class Shuffled:
    """All records, in another order in each epoch.

    Args:
        count: of records.
        seed: of the orders.
    """

    def __init__(self, count: int, seed: int) -> None:
        @lru_cache(maxsize=1)
        def order(epoch: int) -> Permutation:
            return Permutation(count, f"order {seed} {epoch}")

        self._order = order

    def __call__(self, epoch: int, place: int) -> int:
        """Number of the record."""
        return self._order(epoch)[place]


class ShuffledBlocks:
    """Blocks in another order in each epoch; the records of ``window`` neighbouring ones mixed.

    For files of which a whole block has to be read for one record. What a shuffle buffer would
    hold is never part of a state: the blocks of a window are known from the place alone.

    Args:
        sizes: records of each block, in the order in which they are stored; none is 0.
        seed: of the orders.
        window: blocks that are mixed, and have to be held at a time.
    """

    def __init__(self, sizes: Sequence[int], seed: int, window: int) -> None:
        starts = [0, *accumulate(sizes)]

        @lru_cache(maxsize=1)
        def windows(epoch: int) -> tuple[list[list[int]], list[int]]:
            drawn = Permutation(len(sizes), f"blocks {seed} {epoch}")
            order = [drawn[place] for place in range(len(sizes))]
            groups = [order[at : at + window] for at in range(0, len(order), window)]
            return groups, list(
                accumulate(sum(sizes[block] for block in group) for group in groups)
            )

        @lru_cache(maxsize=1)
        def mixed(epoch: int, number: int) -> tuple[Permutation, list[int], list[int]]:
            group = windows(epoch)[0][number]
            ends = list(accumulate(sizes[block] for block in group))
            return Permutation(ends[-1], f"window {seed} {epoch} {number}"), group, ends

        def find(epoch: int, place: int) -> int:
            ends = windows(epoch)[1]
            number = bisect_right(ends, place)
            order, group, inner = mixed(epoch, number)
            drawn = order[place - (ends[number - 1] if number else 0)]
            at = bisect_right(inner, drawn)
            return starts[group[at]] + drawn - (inner[at - 1] if at else 0)

        self._find = find

    def __call__(self, epoch: int, place: int) -> int:
        """Number of the record."""
        return self._find(epoch, place)
