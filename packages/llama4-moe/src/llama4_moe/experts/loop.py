"""One expert after the other, on its own tokens: the backend that runs everywhere."""

from __future__ import annotations

import torch
from torch import Tensor

from llama4_core.protocols.routing import Routing
from llama4_core.protocols.weights import ExpertWeights
from llama4_moe.experts.arithmetic import ACTIVATIONS, expert, plain
from llama4_moe.experts.order import combine, dispatch, order_by_expert
from llama4_moe.experts.rows import filled, rows_multiple


class LoopExperts:
    """Sorts the tokens by expert and loops over the experts that are hit.

    The host reads the counts, once per call: not for graph capture. Experts are taken from the bank
    by ``unbind``, whose backward writes the bank's gradient once; indexing would write a bank-sized
    gradient per expert.

    Args:
        activation: of the gate.
        multiple: rows of an expert are filled up to a multiple of this, outputs and gradients being
            those without; None for what is fast: see :func:`rows_multiple`.
    """

    def __init__(self, activation: str = "silu", multiple: int | None = None) -> None:
        self.activation = ACTIVATIONS[activation]
        self.multiple = multiple

    def __call__(
        self, x: Tensor, routing: Routing, weights: ExpertWeights, *, weight_on: str = "input"
    ) -> Tensor:
        """See :class:`llama4_core.protocols.experts.ExpertBackend`."""
        gate_up, down = plain(weights, "loop")
        if x.shape[0] == 1 and not torch.is_grad_enabled():
            return self._one_token(x, routing, gate_up, down, weight_on)
        order = order_by_expert(routing, gate_up.shape[0], x.dtype)
        counts = order.counts.tolist()
        rows = dispatch(x, order, weight_on)
        hit = [number for number, count in enumerate(counts) if count]
        if not hit and torch.is_grad_enabled():
            # Nobody is visited: an empty batch gives the bank a gradient of zeros, which data
            # parallel training waits for.
            hit = [0]
        firsts, seconds = gate_up.unbind(0), down.unbind(0)
        pieces = rows.split([*counts, rows.shape[0] - sum(counts)])
        multiple = self.multiple or rows_multiple(x.dtype, x.device.type)
        outputs = [
            expert(
                filled(pieces[number], multiple), firsts[number], seconds[number], self.activation
            )[: counts[number]]
            for number in hit
        ]
        outputs.append(torch.zeros_like(pieces[-1]))  # of the assignments to no expert
        return combine(torch.cat(outputs), order, routing.experts.shape[1], weight_on)

    def _one_token(
        self, x: Tensor, routing: Routing, gate_up: Tensor, down: Tensor, weight_on: str
    ) -> Tensor:
        """Decoding one sequence: nothing to sort."""
        y = None
        for slot, number in enumerate(routing.experts[0].tolist()):
            if number < 0:
                continue
            weight = routing.weights[:, slot : slot + 1].to(x.dtype)
            row = x * weight if weight_on == "input" else x
            part = expert(row, gate_up[number], down[number], self.activation)
            if weight_on == "output":
                part = part * weight
            y = part if y is None else y + part
        return torch.zeros_like(x) if y is None else y
