"""All experts in one batched product, every expert padded to the same number of tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from llama4_core.protocols.routing import Routing
from llama4_core.protocols.weights import ExpertWeights
from llama4_moe.experts.arithmetic import ACTIVATIONS, gated, plain
from llama4_moe.experts.order import combine, dispatch, order_by_expert
from llama4_moe.experts.rows import rows_multiple


class PaddedExperts:
    """Sorts the tokens by expert, pads each expert's to the largest count, runs ``torch.bmm``.

    Under ``torch.compile`` the padding goes to N, which no expert can exceed, so that no shape
    depends on data. Reads every expert's weights whether it is hit or not: for large, even batches.

    Args:
        activation: of the gate.
        multiple: the padding goes to a multiple of this; None for what is fast: see
            :func:`rows_multiple`.
    """

    def __init__(self, activation: str = "silu", multiple: int | None = None) -> None:
        self.activation = ACTIVATIONS[activation]
        self.multiple = multiple

    def __call__(
        self, x: Tensor, routing: Routing, weights: ExpertWeights, *, weight_on: str = "input"
    ) -> Tensor:
        """See :class:`llama4_core.protocols.experts.ExpertBackend`."""
        gate_up, down = plain(weights, "padded-bmm")
        experts = gate_up.shape[0]
        order = order_by_expert(routing, experts, x.dtype)
        if torch.compiler.is_compiling():
            room = x.shape[0]
        else:
            multiple = self.multiple or rows_multiple(x.dtype, x.device.type)
            room = -(-int(order.counts.max()) // multiple) * multiple
        # Place of an assignment: its expert's block, then its rank among that expert's tokens. The
        # assignments to no expert all share one further row at the end.
        starts = torch.cat([order.counts.new_zeros(1), order.counts.cumsum(0)])
        ranks = torch.arange(order.expert.numel(), device=x.device) - starts[order.expert]
        last = experts * room
        present = order.expert < experts
        places = torch.where(present, order.expert * room + ranks, last)
        rows = torch.where(present[:, None], dispatch(x, order, weight_on), 0.0)
        padded = rows.new_zeros(last + 1, rows.shape[1]).index_add(0, places, rows)
        batch = padded[:last].view(experts, room, rows.shape[1])
        hidden = gated(torch.bmm(batch, gate_up.transpose(1, 2)), self.activation)
        y = torch.bmm(hidden, down.transpose(1, 2)).reshape(last, rows.shape[1])
        y = torch.cat([y, y.new_zeros(1, y.shape[1])]).index_select(0, places)
        return combine(y, order, routing.experts.shape[1], weight_on)
