"""Sums over the vocabulary, a block of it at a time, and their gradients.

Two passes over the head: the forward reduces each block ``[N, b]`` of logits to a few numbers per
token; the backward computes the block again, makes the gradient of it in place and uses that up
before the next one. Blocks of the forward are kept for the backward as far as the memory that was
granted goes; with small vocabularies that is all of them, and nothing is computed twice.

Every product and every sum is in float32 (float64 for float64 inputs): bfloat16 rows of the head
are widened a block at a time. Only on a GPU are products of two bfloat16 matrices left to its own
units, which multiply exactly and add up in float32; the gradient of the logits is then rounded to
bfloat16, as it is by any other loss there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

# Rows of the head that are at least taken together: products with fewer columns are slow.
_LEAST_BLOCK = 512
# And at most: within the caches the passes over a block cost little; measured flat from 512 on.
_LARGEST_BLOCK = 8192
# Share of the memory that one block may take; the others are kept for the backward.
_BLOCK_SHARE = 4


class Sums(NamedTuple):
    """What is left of the logits ``z [N, V]``.

    Logits are given as differences: of two float32 numbers near 30 only the difference can be
    right to better than 1e-6.

    Attributes:
        rest: ``[N]``, ``log sum exp z`` over the tokens that are not listed.
        target: ``[N]``, ``z - rest`` of the target.
        listed: ``[N, K]``, ``z - rest`` of the listed tokens.
    """

    rest: Tensor
    target: Tensor
    listed: Tensor


class Kept(NamedTuple):
    """A block of the forward: ``exp(z - highest)``, 0 at listed tokens."""

    values: Tensor
    highest: Tensor


@dataclass
class Head:
    """Hidden states, the head's rows, and which logits are wanted by name.

    Attributes:
        hidden: ``[N, D]``.
        weight: ``[V, D]``.
        targets: ``[N]`` int64, within the vocabulary.
        listed: ``[N, K]`` int64, within the vocabulary, without repeats in a row; K may be 0, and
            is smaller than V.
        memory: bytes for blocks of logits.
    """

    hidden: Tensor
    weight: Tensor
    targets: Tensor
    listed: Tensor
    memory: int

    def __post_init__(self) -> None:
        self.dtype = torch.promote_types(
            torch.promote_types(self.hidden.dtype, self.weight.dtype), torch.float32
        )
        self.narrow = (
            self.hidden.device.type == "cuda"
            and self.hidden.dtype == self.weight.dtype == torch.bfloat16
        )
        if not self.narrow:
            self.hidden = self.hidden.to(self.dtype)
        tokens, width = self.hidden.shape
        widened = 0 if self.weight.dtype == self.hidden.dtype else 2 * width
        share = self.memory // (_BLOCK_SHARE * self.dtype.itemsize * max(tokens + widened, 1))
        size = min(max(share, _LEAST_BLOCK), _LARGEST_BLOCK, self.weight.shape[0])
        # Equal blocks: a last one of a few rows would cost as much as a whole one.
        count = -(-self.weight.shape[0] // size)
        self.size = -(-self.weight.shape[0] // count)

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """First id and rows of each block."""
        for first in range(0, self.weight.shape[0], self.size):
            rows = self.weight[first : first + self.size]
            yield first, rows if self.narrow else rows.to(self.dtype)

    def buffer(self) -> Tensor:
        """``[N, b + 1]``: a block of logits, and a column for what lies in another block."""
        return self.hidden.new_empty(self.hidden.shape[0], self.size + 1, dtype=self.dtype)

    def logits(self, rows: Tensor, buffer: Tensor) -> Tensor:
        """Fills the buffer with ``hidden rows^T``; returns the part ``[N, rows]`` of it."""
        values = buffer[:, : rows.shape[0]]
        if self.narrow:
            return values.copy_(torch.mm(self.hidden, rows.T, out_dtype=self.dtype))
        return torch.mm(self.hidden, rows.T, out=values)

    def places(self, ids: Tensor, first: int, width: int) -> Tensor:
        """Columns of ``ids`` in the block ``first .. first + width - 1``; ``width`` for others."""
        local = ids - first
        return local.where((local >= 0) & (local < width), width)


def forward(head: Head, keep: bool) -> tuple[Sums, list[Kept | None]]:
    """The sums, and what is kept of each block (None for what is computed again).

    The log-sum-exp is taken over running maxima, so that it never overflows.
    """
    tokens = head.hidden.shape[0]
    # What an -inf minus an -inf would make of listed tokens is never needed: the least number.
    highest = head.hidden.new_full((tokens, 1), torch.finfo(head.dtype).min, dtype=head.dtype)
    total, target = torch.zeros_like(highest), torch.zeros_like(highest)
    listed = torch.zeros_like(head.listed, dtype=head.dtype)
    buffer, kept = head.buffer(), []
    left = head.memory - 2 * buffer.nbytes if keep else -1
    for first, rows in head.blocks():
        width = rows.shape[0]
        values = head.logits(rows, buffer)
        # The column behind the block is read for targets of other blocks, and not used.
        for ids, found in ((head.targets[:, None], target), (head.listed, listed)):
            places = head.places(ids, first, width)
            torch.where(places < width, buffer.gather(1, places), found, out=found)
        _take_out(head, first, width, buffer)
        before, highest = highest, torch.maximum(highest, values.amax(dim=1, keepdim=True))
        values.sub_(highest).exp_()
        total.mul_((before - highest).exp_()).add_(values.sum(dim=1, keepdim=True))
        kept.append(Kept(values, highest) if left >= 0 else None)
        if left >= 0:
            buffer = head.buffer()
            left -= buffer.nbytes
    size = total.log_()
    rest, below = highest + size, (target - highest) - size
    return Sums(rest.squeeze(1), below.squeeze(1), (listed - highest) - size), kept


def backward(
    head: Head,
    rest: Tensor,
    kept: list[Kept | None],
    change: Sums,
    wants_hidden: bool,
    wants_weight: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of hidden states ``[N, D]`` and of the head ``[V, D]``, in the head's dtypes.

    With ``a = change.rest - change.target - sum_k change.listed``, the gradient of the logits is
    ``a * exp(z - rest)`` where a token is not listed and ``change.listed`` where it is, plus
    ``change.target`` at the target.

    Args:
        head: as in the forward.
        rest: from the forward.
        kept: from the forward.
        change: gradients of the sums.
        wants_hidden: compute the first of the two gradients, or give None.
        wants_weight: likewise the second.
    """
    to_hidden = torch.zeros_like(head.hidden, dtype=head.dtype) if wants_hidden else None
    to_weight = torch.empty_like(head.weight) if wants_weight else None
    scale = (change.rest - change.target - change.listed.sum(dim=1))[:, None]
    rest, buffer = rest[:, None], head.buffer()
    for (first, rows), block in zip(head.blocks(), kept, strict=True):
        width = rows.shape[0]
        if block is None:
            values = head.logits(rows, buffer)
            _take_out(head, first, width, buffer)
            values.sub_(rest).exp_().mul_(scale)
        else:
            factor = (block.highest - rest).exp_().mul_(scale)
            values = torch.mul(block.values, factor, out=buffer[:, :width])
        if head.listed.shape[1]:
            buffer.scatter_(1, head.places(head.listed, first, width), change.listed)
        target = head.places(head.targets[:, None], first, width)
        buffer.scatter_add_(1, target, change.target[:, None])
        narrow = values.to(head.hidden.dtype)
        if to_weight is not None:
            _product(narrow.T, head.hidden, to_weight[first : first + width])
        if to_hidden is not None:
            if head.narrow:
                to_hidden.add_(torch.mm(narrow, rows, out_dtype=head.dtype))
            else:
                to_hidden.addmm_(values, rows)
    return to_hidden, to_weight


def _take_out(head: Head, first: int, width: int, buffer: Tensor) -> None:
    """Sets the logits of the listed tokens to -inf."""
    if head.listed.shape[1]:
        buffer.scatter_(1, head.places(head.listed, first, width), float("-inf"))


def _product(a: Tensor, b: Tensor, out: Tensor) -> None:
    """``out = a b``, rounded once where out is narrower."""
    if a.dtype == out.dtype:
        torch.mm(a, b, out=out)
    else:
        out.copy_(torch.mm(a, b))
