"""Which slot of a cache holds which position: bookkeeping shared by layers with equal masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from llama4_core.contexts.caches import LayerCache, Placement
from llama4_core.protocols.attention import Segment
from llama4_core.protocols.masks import Chunked, Mask, SlidingWindow, parts_of

SLACK = 64
"""Least number of spare slots of a bounded cache, so that dropping entries is rare."""


class Ledger:
    """Slot 0 of row ``b`` holds position ``start[b]``; later positions follow without gaps.

    A bounded ledger drops what lies before the mask's horizon **of the committed length**: a
    rejected draft may have run past a chunk's end, and the chunk is then needed again.

    Args:
        mask: of the layers.
        caches: those of the layers; all have the same capacity.
        rows: number of sequences.
        capacity: slots that the caches were made with.
        hint: total length that a sequence is expected to reach.
    """

    def __init__(
        self, mask: Mask, caches: Sequence[LayerCache], rows: int, capacity: int, hint: int
    ) -> None:
        self.mask = mask
        self.caches = list(caches)
        self.start = [0] * rows
        self.capacity = capacity
        self.hint = hint
        self.bounded = all(cache.bounded for cache in self.caches)
        sizes = [part.size for part in parts_of(mask) if isinstance(part, Chunked | SlidingWindow)]
        self.bound = min(sizes) if sizes and self.bounded else None

    def reserve(
        self, committed: Sequence[int], first: Sequence[int], lengths: Sequence[int]
    ) -> None:
        """Makes room for ``lengths[b]`` more tokens after position ``first[b] - 1``."""
        ends = [begin + length for begin, length in zip(first, lengths, strict=True)]
        if self._needed(ends) > self.capacity and self.bound is not None:
            self._drop(committed, first)
        needed = self._needed(ends)
        if needed > self.capacity:
            self._resize(self._grown(needed, max(lengths)))

    def _needed(self, ends: Sequence[int]) -> int:
        return max((end - begin for end, begin in zip(ends, self.start, strict=True)), default=0)

    def _grown(self, needed: int, step: int) -> int:
        roomy = max(self.hint, self.capacity + self.capacity // 2)
        if self.bound is not None:
            roomy = min(roomy, self.bound + max(step, SLACK))
        return max(needed, roomy)

    def _drop(self, committed: Sequence[int], first: Sequence[int]) -> None:
        for row, length in enumerate(committed):
            horizon = self.mask.horizon(length)
            gone = horizon - self.start[row]
            if gone > 0:
                for cache in self.caches:
                    cache.move(row, gone, 0, first[row] - horizon)
                self.start[row] = horizon

    def _resize(self, capacity: int) -> None:
        for cache in self.caches:
            cache.resize(capacity)
        self.capacity = capacity

    def trim(self, committed: Sequence[int]) -> None:
        """Gives memory back after a long step: at most twice the bound is kept."""
        if self.bound is None or self.capacity <= 2 * (self.bound + SLACK):
            return
        self._drop(committed, committed)
        ends = list(committed)
        self._resize(max(self._needed(ends), self.bound + SLACK))

    def segments(self, first: Sequence[int], lengths: Sequence[int]) -> tuple[Segment, ...]:
        """The attention segments of a step; rows without new tokens are left out."""
        found = []
        for row, (begin, length) in enumerate(zip(first, lengths, strict=True)):
            if length:
                seen = max(self.start[row], self.mask.horizon(begin))
                found.append(
                    Segment(
                        query_start=begin,
                        query_length=length,
                        key_start=seen,
                        key_length=begin + length - seen,
                        slot=row,
                        key_offset=seen - self.start[row],
                    )
                )
        return tuple(found)

    def placement(
        self, first: Sequence[int], lengths: Sequence[int], device: torch.device
    ) -> Placement:
        """Where the new tokens of a step are written."""
        indices = [begin - start for begin, start in zip(first, self.start, strict=True)]
        if len(set(indices)) == 1 and len(set(lengths)) == 1:
            return Placement((indices[0], lengths[0]), None, None)
        rows = [row for row, length in enumerate(lengths) for _ in range(length)]
        slots = [
            index + offset
            for index, length in zip(indices, lengths, strict=True)
            for offset in range(length)
        ]
        return Placement(
            None, torch.tensor(rows, device=device), torch.tensor(slots, device=device)
        )
