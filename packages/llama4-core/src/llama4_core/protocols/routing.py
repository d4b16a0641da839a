"""Routings: what a router decides and everyone else reads (contract 1 of routers)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass
class Routing:
    """Which experts each token visits, and with what weight.

    Attributes:
        experts: ``[N, K]`` int64, ids in ``0 .. E-1`` without repeats in a row, or -1 for none.
        weights: ``[N, K]`` float32, finite; 0 where the id is -1.
        logits: ``[N, E]`` float32, or None for a router that has none.
        losses: named scalar losses that the router asks training to add.
        drops: ``[N]`` int64, assignments per token that a capacity dropped, or None.
    """

    experts: Tensor
    weights: Tensor
    logits: Tensor | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)
    drops: Tensor | None = None


@dataclass(frozen=True)
class RoutingInfo:
    """What a router may know besides the tokens.

    Attributes:
        positions: ``[N]`` int64, position of each token in its document, or None.
        documents: ``[N]`` int64, document of each token, or None.
        tokens: ``[N]`` int64, token ids, or None where there are none (standalone use).
        training: the model is being trained.
        generator: source of randomness for routers that need one, or None.
        forced: ``[N, K]`` int64 expert ids that the feed-forward uses in place of the router's
            choice (gates are still computed from the router's logits), or None.
    """

    positions: Tensor | None = None
    documents: Tensor | None = None
    tokens: Tensor | None = None
    training: bool = False
    generator: Generator | None = None
    forced: Tensor | None = None


class Router(Protocol):
    """Chooses experts. An ``nn.Module`` built as ``target(hidden, experts, top_k)``.

    A router may also have

    - ``gates(logits, experts)``, the weights ``[N, K]`` of given experts: it can then be forced;
    - ``release(factor)``, called once per step in the place of ``after_step`` where training lets
      go of balancing: what ``after_step`` has gathered to sway the choice is multiplied by
      ``factor``, from 0 to 1. At 0 the router chooses as if it had never been balanced, bit for
      bit, so that nothing is lost where a checkpoint format has no place for such a state. A
      router without it is balanced to the last step.
    """

    def __call__(self, x: Tensor, info: RoutingInfo) -> Routing:
        """Routes ``x [N, D]``; computes in float32."""

    def after_step(self, counts: Tensor) -> None:
        """Updates router state (ordinary buffers) from ``counts [E]``, once per training step."""
