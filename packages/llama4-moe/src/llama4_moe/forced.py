"""Routings whose experts are given from outside."""

from __future__ import annotations

from torch import Tensor, nn

from llama4_core.errors import ComponentError
from llama4_core.protocols.routing import Routing, RoutingInfo


def route(router: nn.Module, x: Tensor, info: RoutingInfo) -> Routing:
    """The router's routing, its experts replaced by ``info.forced [N, K]`` if that is given.

    The weights of forced experts come from the router's own logits, by its method
    ``gates(logits, experts)``.

    Raises:
        ComponentError: the router has no logits or no ``gates``, or the shape does not fit.
    """
    routing: Routing = router(x, info)
    forced = info.forced
    if forced is None:
        return routing
    gates = getattr(router, "gates", None)
    if gates is None or routing.logits is None:
        raise ComponentError(
            f"router {type(router).__name__} cannot be forced: it needs logits and a method "
            "gates(logits, experts) -> weights"
        )
    if forced.dim() != 2 or forced.shape[0] != x.shape[0]:
        raise ComponentError(
            f"forced experts have shape {list(forced.shape)}; expected [{x.shape[0]}, K]"
        )
    return Routing(
        experts=forced,
        weights=gates(routing.logits, forced),
        logits=routing.logits,
        losses=routing.losses,
    )
