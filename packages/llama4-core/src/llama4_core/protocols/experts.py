"""The contracts of expert backends and of feed-forwards (contract 1 of each)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from llama4_core.protocols.routing import Routing, RoutingInfo
from llama4_core.protocols.weights import ExpertWeights

if TYPE_CHECKING:
    from torch import Tensor


class ExpertBackend(Protocol):
    """Computes the routed part of a mixture of SwiGLU experts. Built as ``target()``; stateless."""

    def __call__(
        self, x: Tensor, routing: Routing, weights: ExpertWeights, *, weight_on: str = "input"
    ) -> Tensor:
        """Sums the experts of each token.

        ``y = sum_k E_k(s_k x)`` with ``weight_on="input"`` (Llama 4: SwiGLU is not linear, so this
        is not the same as) ``y = sum_k s_k E_k(x)`` with ``weight_on="output"``.

        Args:
            x: ``[N, D]``.
            routing: ids of -1 contribute nothing.
            weights: the bank.
            weight_on: "input" or "output".

        Returns:
            ``[N, D]`` in x's dtype; zeros for tokens without an expert.
        """


class FeedForward(Protocol):
    """The second half of a block. An ``nn.Module`` that sees only a flat stream."""

    def __call__(self, x: Tensor, info: RoutingInfo) -> tuple[Tensor, Routing | None]:
        """Maps ``x [N, D]`` to ``[N, D]``; a mixture also returns its routing."""
