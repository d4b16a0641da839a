"""All experts in one call of torch's grouped matrix product."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from llama4_core.protocols.routing import Routing
from llama4_core.protocols.weights import ExpertWeights
from llama4_moe.experts.arithmetic import ACTIVATIONS, gated, plain
from llama4_moe.experts.order import combine, dispatch, order_by_expert


class GroupedExperts:
    """Sorts the tokens by expert and runs ``F.grouped_mm`` twice.

    No shape depends on data and the host reads nothing, so the call can be captured. Limits:
    :func:`llama4_moe.support.grouped`.
    """

    def __init__(self, activation: str = "silu") -> None:
        self.activation = ACTIVATIONS[activation]

    def __call__(
        self, x: Tensor, routing: Routing, weights: ExpertWeights, *, weight_on: str = "input"
    ) -> Tensor:
        """See :class:`llama4_core.protocols.experts.ExpertBackend`."""
        gate_up, down = plain(weights, "grouped")
        order = order_by_expert(routing, gate_up.shape[0], x.dtype)
        ends = order.counts.cumsum(0).to(torch.int32)
        # Rows of assignments to no expert lie past the last end. The product leaves them
        # undefined, output and gradient alike; `where` on both sides keeps that inside.
        present = (order.expert < gate_up.shape[0])[:, None]
        rows = torch.where(present, dispatch(x, order, weight_on), 0.0)
        hidden = gated(F.grouped_mm(rows, gate_up.transpose(1, 2), offs=ends), self.activation)
        y = F.grouped_mm(hidden, down.transpose(1, 2), offs=ends)
        y = torch.where(present, y, 0.0)
        return combine(y, order, routing.experts.shape[1], weight_on)
