"""The dense SwiGLU feed-forward."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from llama4_core.model.projection import Projection
from llama4_core.protocols.parts import Parts
from llama4_core.protocols.routing import Routing, RoutingInfo
from llama4_core.specs.model import DenseSpec


class DenseFeedForward(nn.Module):
    """``down(silu(gate(x)) * up(x))`` without biases.

    Args:
        spec: width F.
        width: D.
        parts: unused: this feed-forward has no parts of its own.
    """

    def __init__(self, spec: DenseSpec, width: int, parts: Parts) -> None:
        super().__init__()
        self.gate_proj = Projection(width, spec.width)
        self.up_proj = Projection(width, spec.width)
        self.down_proj = Projection(spec.width, width)

    def forward(self, x: Tensor, info: RoutingInfo) -> tuple[Tensor, Routing | None]:
        """Maps ``x [N, D]`` to ``[N, D]``; there is no routing."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x)), None
