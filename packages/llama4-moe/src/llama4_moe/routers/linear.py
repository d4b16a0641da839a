"""What every router with one logit per expert shares: the projection, in float32."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from llama4_core.errors import SpecError
from llama4_core.model.projection import project
from llama4_core.protocols.routing import Routing, RoutingInfo
from llama4_moe.routers.selection import largest


class LinearRouter(nn.Module):
    """``logits = x W^T``; the K largest are visited, with the weights that :meth:`gates` gives.

    The product is taken in float32 (float64 for float64 tokens) whatever the model's dtype: two
    logits that differ by less than a bfloat16 step would otherwise change the expert, and with it
    the output, at random.

    Args:
        hidden: D.
        experts: E.
        top_k: K.
        renormalise: divide the weights of a token's experts by their sum.
    """

    def __init__(self, hidden: int, experts: int, top_k: int, *, renormalise: bool = False) -> None:
        super().__init__()
        if not 1 <= top_k <= experts:
            raise SpecError(f"top_k is {top_k}; expected 1 to the number of experts, {experts}")
        self.top_k = top_k
        self.renormalise = renormalise
        self.weight = nn.Parameter(torch.empty(experts, hidden))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the weight uniformly from ``+- D ** -0.5``, as ``nn.Linear`` does."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        nn.init.uniform_(self.weight, -bound, bound)

    def logits(self, x: Tensor) -> Tensor:
        """``[N, E]`` logits of ``x [N, D]``, float32 or float64."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            return project(x.to(dtype), self.weight.to(dtype))

    def select(self, logits: Tensor) -> Tensor:
        """``[N, K]`` ids of the experts to visit."""
        return largest(logits, self.top_k)

    def scores(self, logits: Tensor, experts: Tensor) -> Tensor:
        """``[N, K]`` weights of the experts with the given ids (all valid)."""
        raise TypeError(f"{type(self).__name__} does not define scores(logits, experts)")

    def gates(self, logits: Tensor, experts: Tensor) -> Tensor:
        """Weights ``[N, K]`` of given experts, float32; 0 where the id is -1.

        Feed-forwards use it for routings that are forced from outside.
        """
        present = experts >= 0
        weights = self.scores(logits, experts.clamp(min=0)).masked_fill(~present, 0.0)
        if self.renormalise:
            # The floor only matters when every weight of a token underflows to 0.
            weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-20)
        return weights

    def forward(self, x: Tensor, info: RoutingInfo) -> Routing:
        """Routes ``x [N, D]``."""
        logits = self.logits(x)
        experts = self.select(logits)
        return Routing(experts=experts, weights=self.gates(logits, experts), logits=logits)

    def after_step(self, counts: Tensor) -> None:
        """Nothing to update."""

    def release(self, factor: float) -> None:
        """Nothing sways the choice."""
