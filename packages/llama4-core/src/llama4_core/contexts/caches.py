"""Where keys and values are kept: one cache per softmax layer.

A cache is storage only; which slot belongs to which position is the ledger's business
(:mod:`llama4_core.contexts.ledger`). The contract, version 1: built as ``target(rows, kv_heads,
head_dim, capacity, dtype, device)``; attributes ``bounded`` (entries that no later query can see
may be dropped), ``keys`` and ``values`` ``[rows, G, capacity, K]`` (head-major: a decode step then
reads one contiguous range per head); methods ``write``, ``move``, ``resize`` and ``nbytes`` as
below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Placement:
    """Where the tokens of one forward go.

    Attributes:
        uniform: (index, length) when every row gets ``length`` tokens at the same index; then the
            write is one slice. Else None.
        rows, indices: ``[N]`` int64 on the device, row and slot index of each token (None when
            uniform).
    """

    uniform: tuple[int, int] | None
    rows: Tensor | None
    indices: Tensor | None


class LayerCache(Protocol):
    """Storage of one layer's keys and values."""

    bounded: bool

    @property
    def keys(self) -> Tensor:
        """``[rows, G, capacity, K]``."""

    @property
    def values(self) -> Tensor:
        """``[rows, G, capacity, K]``."""

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""

    def write(self, k: Tensor, v: Tensor, placement: Placement) -> None:
        """Stores k and v ``[N, G, K]``."""

    def move(self, row: int, source: int, target: int, count: int) -> None:
        """Moves ``count`` entries of a row from index ``source`` to ``target`` (may overlap)."""

    def resize(self, capacity: int) -> None:
        """Changes the capacity; keeps the entries below both capacities."""


class HeadMajorCache:
    """Preallocated keys and values, head-major, zero where nothing was written yet.

    Zero, because slots past a row's end may be read next to other rows' and then be masked: zero
    weight times an uninitialised NaN would still be NaN.

    Args:
        rows, kv_heads, head_dim, capacity: shape ``[rows, G, capacity, K]``.
        dtype, device: of the entries.
        bounded: let the ledger drop what no later query can see.
    """

    def __init__(
        self,
        rows: int,
        kv_heads: int,
        head_dim: int,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
        *,
        bounded: bool = True,
    ) -> None:
        self.bounded = bounded
        shape = (rows, kv_heads, capacity, head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)

    @property
    def nbytes(self) -> int:
        """Bytes allocated."""
        return self.keys.nbytes + self.values.nbytes

    def write(self, k: Tensor, v: Tensor, placement: Placement) -> None:
        """Stores k and v ``[N, G, K]``."""
        if placement.uniform is not None:
            index, length = placement.uniform
            where = slice(index, index + length)
            split = (self.keys.shape[0], length)
            self.keys[:, :, where] = k.unflatten(0, split).transpose(1, 2)
            self.values[:, :, where] = v.unflatten(0, split).transpose(1, 2)
        else:
            places = (placement.rows, placement.indices)
            self.keys.transpose(1, 2).index_put_(places, k.to(self.keys.dtype))
            self.values.transpose(1, 2).index_put_(places, v.to(self.values.dtype))

    def move(self, row: int, source: int, target: int, count: int) -> None:
        """Moves ``count`` entries of a row from index ``source`` to ``target``."""
        for stored in (self.keys, self.values):
            kept = stored[row, :, source : source + count].clone()
            stored[row, :, target : target + count] = kept

    def resize(self, capacity: int) -> None:
        """Changes the capacity; keeps the entries below both capacities."""
        kept = min(capacity, self.keys.shape[2])
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_zeros(old.shape[0], old.shape[1], capacity, old.shape[3])
            new[:, :, :kept] = old[:, :, :kept]
            setattr(self, name, new)
