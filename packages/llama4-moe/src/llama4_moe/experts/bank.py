"""The weights of all experts, stacked, and each expert's matrices as views."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from llama4_core.errors import ComponentError
from llama4_core.protocols.experts import ExpertBackend
from llama4_core.protocols.routing import Routing
from llama4_core.protocols.weights import ExpertWeights


class Expert(NamedTuple):
    """The matrices of one expert, views of the bank: ``gate, up [F, D]``, ``down [D, F]``."""

    gate: Tensor
    up: Tensor
    down: Tensor


class ExpertBank(nn.Module):
    """Parameters ``gate_up_proj [E, 2F, D]`` (gate rows first) and ``down_proj [E, D, F]``.

    Stacked ``[E, out, in]``: on a CPU this layout runs about twice as fast as ``[E, in, out]``.

    Args:
        experts: E.
        hidden: D.
        width: F.
    """

    def __init__(self, experts: int, hidden: int, width: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(experts, 2 * width, hidden))
        self.down_proj = nn.Parameter(torch.empty(experts, hidden, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws each matrix uniformly from ``+- in ** -0.5``, as ``nn.Linear`` does."""
        for bank in (self.gate_up_proj, self.down_proj):
            bound = 1 / math.sqrt(bank.shape[2])
            nn.init.uniform_(bank, -bound, bound)

    def expert(self, number: int) -> Expert:
        """The matrices of one expert, as ordinary two-dimensional views (no copy).

        Raises:
            ComponentError: there is no such expert.
        """
        experts = self.gate_up_proj.shape[0]
        if not 0 <= number < experts:
            raise ComponentError(f"expert {number} does not exist; expected 0 to {experts - 1}")
        gate_up = self.gate_up_proj[number]
        width = gate_up.shape[0] // 2
        return Expert(gate_up[:width], gate_up[width:], self.down_proj[number])

    def weights(self) -> ExpertWeights:
        """The bank as backends take it."""
        return ExpertWeights(self.gate_up_proj, self.down_proj)

    def forward(
        self, x: Tensor, routing: Routing, backend: ExpertBackend, weight_on: str
    ) -> Tensor:
        """Runs ``backend`` on ``x [N, D]``.

        A forward of its own, so that wrappers that gather a module's parameters around its call
        (FSDP2) may wrap the bank alone. Under autocast tokens and weights are cast here, because
        autocast does not know every product that a backend may use.
        """
        weights = self.weights()
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
            x = x.to(dtype)
            weights = ExpertWeights(self.gate_up_proj.to(dtype), self.down_proj.to(dtype))
        return backend(x, routing, weights, weight_on=weight_on)
