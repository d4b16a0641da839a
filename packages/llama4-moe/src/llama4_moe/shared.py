"""The expert that every token visits."""

from __future__ import annotations

from torch import Tensor, nn

from llama4_core.model.projection import Projection
from llama4_moe.experts.arithmetic import ACTIVATIONS


class SharedExpert(nn.Module):
    """``down(activation(gate x) * (up x))`` with ordinary linear layers.

    Args:
        hidden: D.
        width: F.
        activation: see :class:`llama4_moe.config.MoEConfig`.
    """

    def __init__(self, hidden: int, width: int, activation: str = "silu") -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.gate_proj = Projection(hidden, width)
        self.up_proj = Projection(hidden, width)
        self.down_proj = Projection(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, D] -> [N, D]``."""
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))
