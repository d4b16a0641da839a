"""All experts on all tokens: the definition, and the oracle of the other backends."""

from __future__ import annotations

import torch
from torch import Tensor

from llama4_core.protocols.routing import Routing
from llama4_core.protocols.weights import ExpertWeights
from llama4_moe.experts.arithmetic import ACTIVATIONS, expert, plain


class DenseExperts:
    """Every expert computes every token; what the routing did not choose is left out of the sum.

    Costs E / K times the necessary work, has no data-dependent shape, and runs everywhere.
    """

    def __init__(self, activation: str = "silu") -> None:
        self.activation = ACTIVATIONS[activation]

    def __call__(
        self, x: Tensor, routing: Routing, weights: ExpertWeights, *, weight_on: str = "input"
    ) -> Tensor:
        """See :class:`llama4_core.protocols.experts.ExpertBackend`."""
        gate_up, down = plain(weights, "dense")
        y = torch.zeros_like(x)
        for number, (first, second) in enumerate(
            zip(gate_up.unbind(0), down.unbind(0), strict=True)
        ):
            visits = routing.experts == number
            weight = (routing.weights * visits).sum(dim=-1, keepdim=True).to(x.dtype)
            if weight_on == "input":
                part = expert(x * weight, first, second, self.activation)
            else:
                part = expert(x, first, second, self.activation) * weight
            y = y + torch.where(visits.any(dim=-1, keepdim=True), part, 0.0)
        return y
