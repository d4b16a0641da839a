"""Experts by a hash of the token id."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from llama4_core.errors import ComponentError, SpecError
from llama4_core.protocols.routing import Routing, RoutingInfo

# Odd multipliers of Knuth's multiplicative hashing (2**32 divided by the golden ratio), one for the
# first expert and one for the distance to the next; products stay below 2**63.
FIRST, STRIDE = 2654435761, 2246822519


class HashRouter(nn.Module):
    """Token t visits experts ``h(t), h(t) + s(t), ...`` modulo E, each with weight ``1 / K``.

    ``s(t)`` is coprime to E, so the K experts of a token are distinct. The same token always visits
    the same experts, wherever it stands.

    Args:
        hidden: D; unused, a hash does not look at the tokens' vectors.
        experts: E.
        top_k: K.

    Raises:
        SpecError: K is not within 1 and E.
    """

    def __init__(self, hidden: int, experts: int, top_k: int) -> None:
        super().__init__()
        if not 1 <= top_k <= experts:
            raise SpecError(f"top_k is {top_k}; expected 1 to the number of experts, {experts}")
        self.experts = experts
        self.top_k = top_k
        # Steps that meet every expert before they meet one again.
        self.coprime = [step for step in range(1, experts + 1) if math.gcd(step, experts) == 1]

    def forward(self, x: Tensor, info: RoutingInfo) -> Routing:
        """Routes ``x [N, D]`` by ``info.tokens [N]``.

        Raises:
            ComponentError: there are no token ids, as in a mixture outside of a language model.
        """
        if info.tokens is None:
            raise ComponentError(
                "the hash router got no token ids; expected RoutingInfo(tokens=[N] int64): pass "
                "info=RoutingInfo(tokens=ids), or choose a router that looks at the vectors"
            )
        tokens = info.tokens.long() + 1
        first = ((tokens * FIRST) % 2**32 * self.experts) >> 32
        table = torch.tensor(self.coprime, device=x.device)
        stride = table[((tokens * STRIDE) % 2**32 * len(self.coprime)) >> 32]
        slots = torch.arange(self.top_k, device=x.device)
        ids = (first[:, None] + stride[:, None] * slots) % self.experts
        weights = torch.full(ids.shape, 1 / self.top_k, dtype=torch.float32, device=x.device)
        return Routing(experts=ids, weights=weights)

    def after_step(self, counts: Tensor) -> None:
        """Nothing to update."""
