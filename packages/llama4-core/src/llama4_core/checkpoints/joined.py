"""Weights whose parts lie in several places: joined on paper, gathered a piece at a time.

A :class:`Joined` has the few methods of a tensor that conversion needs (``shape``, ``narrow``,
``select``, ``transpose``), so code that arranges weights takes either. Nothing is read before
:func:`gathered`, and :func:`pieces` gathers no more than a few megabytes at once: that is what
keeps memory bounded when a layer has gigabytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

if TYPE_CHECKING:
    Weight: TypeAlias = "Tensor | Joined"

PIECE_BYTES = 64 * 1024**2
# Two tiles of this side fit into the second-level cache.
TILE = 256


@dataclass(frozen=True, eq=False)
class Joined:
    """The concatenation of ``parts`` along ``axis``, not carried out."""

    parts: tuple[Weight, ...]
    axis: int

    @property
    def shape(self) -> torch.Size:
        """Of the whole."""
        sizes = list(self.parts[0].shape)
        sizes[self.axis] = sum(part.shape[self.axis] for part in self.parts)
        return torch.Size(sizes)

    @property
    def dtype(self) -> torch.dtype:
        """Of every part."""
        return self.parts[0].dtype

    @property
    def nbytes(self) -> int:
        """Bytes once gathered."""
        return math.prod(self.shape) * self.dtype.itemsize

    def narrow(self, dim: int, start: int, length: int) -> Weight:
        """As ``Tensor.narrow``."""
        if dim != self.axis:
            return Joined(tuple(part.narrow(dim, start, length) for part in self.parts), self.axis)
        found: list[Weight] = []
        begin = 0
        for part in self.parts:
            size = part.shape[dim]
            low, high = max(start, begin), min(start + length, begin + size)
            if low < high:
                found.append(part.narrow(dim, low - begin, high - low))
            begin += size
        return join(found, dim)

    def select(self, dim: int, index: int) -> Weight:
        """As ``Tensor.select``."""
        if dim == self.axis:
            begin = 0
            for part in self.parts:
                if index < begin + part.shape[dim]:
                    return part.select(dim, index - begin)
                begin += part.shape[dim]
            raise IndexError(index)
        axis = self.axis - (dim < self.axis)
        return Joined(tuple(part.select(dim, index) for part in self.parts), axis)

    def transpose(self, one: int, other: int) -> Weight:
        """As ``Tensor.transpose``."""
        rank = len(self.shape)
        one, other = one % rank, other % rank
        axis = {one: other, other: one}.get(self.axis, self.axis)
        return Joined(tuple(part.transpose(one, other) for part in self.parts), axis)


def join(parts: Sequence[Weight], axis: int) -> Weight:
    """``parts`` one after another along ``axis``; a single part stays what it is."""
    return parts[0] if len(parts) == 1 else Joined(tuple(parts), axis)


def gathered(weight: Weight) -> Tensor:
    """The weight as a tensor; copies only what is joined."""
    if isinstance(weight, Tensor):
        return weight
    return torch.cat([gathered(part) for part in weight.parts], dim=weight.axis)


def compact(tensor: Tensor) -> Tensor:
    """The same values, contiguous; the tensor itself if it is that already.

    A large transposed matrix is copied tile by tile: torch walks such a view row by row and misses
    the cache at every number, which takes four times as long.
    """
    if tensor.is_contiguous() or tensor.dim() != 2 or min(tensor.shape) <= TILE:
        return tensor.contiguous()
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    for row in range(0, tensor.shape[0], TILE):
        for column in range(0, tensor.shape[1], TILE):
            tile = (slice(row, row + TILE), slice(column, column + TILE))
            copy[tile] = tensor[tile]
    return copy


def pieces(weight: Weight, limit: int = PIECE_BYTES) -> Iterator[Weight]:
    """Cuts a weight into row-major pieces of at most ``limit`` bytes (one row at least).

    A stack of matrices is never cut across two of them, so a piece lies within one expert.
    """
    rank = len(weight.shape)
    if math.prod(weight.shape) == 0:
        return
    if rank > 2:
        for index in range(weight.shape[0]):
            yield from pieces(weight.select(0, index), limit)
    elif rank == 0 or weight.nbytes <= limit:
        yield weight
    else:
        count = weight.shape[0]
        rows = max(1, limit // (weight.nbytes // count))
        for start in range(0, count, rows):
            yield weight.narrow(0, start, min(rows, count - start))
