"""Tokens brought together by expert, and products of each expert's tokens with its own matrix."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from llama4_core.model.projection import project
from llama4_core.protocols.routing import Routing

# torch's grouped product wants rows that begin at multiples of this many bytes.
_ALIGNMENT = 16


def fits_grouped(dtype: torch.dtype, *sizes: int) -> bool:
    """Whether ``F.grouped_mm`` takes rows of these sizes wherever it runs: bfloat16, aligned."""
    return dtype == torch.bfloat16 and all(size * 2 % _ALIGNMENT == 0 for size in sizes)


@dataclass(frozen=True)
class Segments:
    """The assignments (pairs of a token and one of its K experts) in the order of the experts.

    Attributes:
        token: ``[M]`` of which token each one is; ``M = N K``.
        weight: ``[M, 1]`` of each, in the dtype of the tokens.
        inverse: ``[M]`` where each unsorted assignment went.
        present: ``[M, 1]`` whether it has an expert; those without come last.
        ends: ``[E]`` int32: where the assignments of each expert end.
        counts: of each expert, on the host; None for products that read no number there.
    """

    token: Tensor
    weight: Tensor
    inverse: Tensor
    present: Tensor
    ends: Tensor
    counts: tuple[int, ...] | None

    @classmethod
    def of(cls, routing: Routing, experts: int, dtype: torch.dtype, *, grouped: bool) -> Segments:
        """Sorts the assignments of a routing, stably, so that every sum has one fixed order.

        Args:
            routing: of N tokens.
            experts: E.
            dtype: of the tokens.
            grouped: whether products are torch's grouped ones, which need no counts on the host.
        """
        ids = routing.experts.reshape(-1)
        expert, order = torch.where(ids < 0, experts, ids).sort(stable=True)
        places = torch.arange(ids.numel(), device=ids.device)
        ends = torch.searchsorted(expert, torch.arange(experts, device=ids.device), right=True)
        counts = None
        if not grouped:
            stops = [0, *ends.tolist()]
            counts = tuple(stop - start for start, stop in pairwise(stops))
        return cls(
            token=order // routing.experts.shape[1],
            weight=routing.weights.reshape(-1, 1).to(dtype).index_select(0, order),
            inverse=torch.empty_like(order).scatter(0, order, places),
            present=(expert < experts)[:, None],
            ends=ends.to(torch.int32),
            counts=counts,
        )

    def rows(self, x: Tensor, weight_on: str) -> Tensor:
        """Tokens ``x [N, D]`` as ``[M, D]``; weighted already if the weight is on the input."""
        rows = x.index_select(0, self.token)
        if weight_on == "input":
            rows = rows * self.weight
        # The grouped product leaves rows behind the last end undefined, gradients too.
        return torch.where(self.present, rows, 0.0)

    def tokens(self, y: Tensor, top_k: int, weight_on: str) -> Tensor:
        """Outputs ``[M, D]`` as ``[N, D]``, summed over K in the order of the router."""
        if weight_on == "output":
            y = y * self.weight
        y = y.index_select(0, self.inverse)
        return y if top_k == 1 else y.view(-1, top_k, y.shape[-1]).sum(dim=1)

    def product(self, rows: Tensor, matrices: Tensor) -> Tensor:
        """``rows [M, in]`` times each one's expert of ``matrices [E, out, in]``: ``[M, out]``.

        Zeros for assignments without an expert.
        """
        if self.counts is None:
            y = F.grouped_mm(rows, matrices.transpose(1, 2), offs=self.ends)
            return torch.where(self.present, y, 0.0)
        # Nobody is visited: an empty product still leaves a gradient of zeros, for which data
        # parallel training waits.
        hit = [number for number, count in enumerate(self.counts) if count] or [0]
        # The backward of unbind writes one gradient of the stack, indexing one for each expert.
        each = matrices.unbind(0) if matrices.requires_grad else matrices
        pieces = rows.split([*self.counts, rows.shape[0] - sum(self.counts)])
        outputs = [project(pieces[number], each[number]) for number in hit]
        outputs.append(rows.new_zeros(pieces[-1].shape[0], matrices.shape[1]))
        return torch.cat(outputs)
