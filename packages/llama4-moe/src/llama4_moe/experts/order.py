"""Dispatch and combine: bringing the tokens of each expert together, and back.

An *assignment* is one (token, slot) pair; there are ``N * K``. Sorted by expert, stably, so that
each expert sees its tokens in their order and every sum has one fixed order.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from llama4_core.protocols.routing import Routing


class Order(NamedTuple):
    """Assignments sorted by expert.

    Attributes:
        token: ``[N * K]`` which token each sorted assignment belongs to.
        weight: ``[N * K, 1]`` its weight, in the dtype of the tokens.
        expert: ``[N * K]`` its expert, ascending; assignments to none come last, as E.
        inverse: ``[N * K]`` place of each unsorted assignment in the sorted order.
        counts: ``[E]`` assignments per expert.
    """

    token: Tensor
    weight: Tensor
    expert: Tensor
    inverse: Tensor
    counts: Tensor


def order_by_expert(routing: Routing, experts: int, dtype: torch.dtype) -> Order:
    """Sorts the assignments of ``routing`` by expert; shapes do not depend on data."""
    ids = routing.experts.reshape(-1)
    ids = torch.where(ids < 0, experts, ids)
    expert, order = ids.sort(stable=True)
    places = torch.arange(ids.numel(), device=ids.device)
    inverse = torch.empty_like(order).scatter(0, order, places)
    ends = torch.searchsorted(expert, torch.arange(experts, device=ids.device), right=True)
    weight = routing.weights.reshape(-1, 1).to(dtype).index_select(0, order)
    return Order(
        token=order // routing.experts.shape[1],
        weight=weight,
        expert=expert,
        inverse=inverse,
        counts=torch.diff(ends, prepend=ends.new_zeros(1)),
    )


def dispatch(x: Tensor, order: Order, weight_on: str) -> Tensor:
    """Rows of ``x [N, D]`` in sorted order, weighted if the weight is on the input."""
    rows = x.index_select(0, order.token)
    return rows * order.weight if weight_on == "input" else rows


def combine(y: Tensor, order: Order, top_k: int, weight_on: str) -> Tensor:
    """Sorted outputs ``[N * K, D]`` back to tokens ``[N, D]``, summed over K in slot order."""
    if weight_on == "output":
        y = y * order.weight
    y = y.index_select(0, order.inverse)
    return y if top_k == 1 else y.view(-1, top_k, y.shape[-1]).sum(dim=1)
