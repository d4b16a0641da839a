"""Numbers about returned routings: loads, balance, auxiliary losses.

Nothing here counts inside a forward. Collect the routings that a step returned and call these once:
activation checkpointing runs forward twice, and a counter inside would count double.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from llama4_core.errors import ComponentError
from llama4_core.protocols.routing import Routing


@dataclass(frozen=True)
class RoutingReport:
    """Where the tokens of one routing went.

    Attributes:
        counts: ``[E]`` int64, assignments per expert.
        load: ``[E]`` float32, share of all assignments (0 everywhere without any).
        entropy: of the load, divided by ln E: 1 for an even load, 0 for a single expert.
        imbalance: the largest load divided by the mean load, 1 for an even one.
        dead: ids of the experts without a token.
        none: assignments with id -1.
        drops: assignments that a capacity dropped, as the router reports them.
    """

    counts: Tensor
    load: Tensor
    entropy: float
    imbalance: float
    dead: tuple[int, ...]
    none: int
    drops: int


def counts(routing: Routing, experts: int) -> Tensor:
    """``[E]`` int64 assignments per expert; ids of -1 count nowhere."""
    ids = routing.experts.reshape(-1)
    return torch.bincount(ids[ids >= 0], minlength=experts)


def report(routing: Routing, experts: int) -> RoutingReport:
    """Summary of a routing over ``experts`` experts."""
    counted = counts(routing, experts)
    total = int(counted.sum())
    load = counted.float() / max(total, 1)
    entropy = float(-torch.special.xlogy(load, load).sum())
    return RoutingReport(
        counts=counted,
        load=load,
        entropy=entropy / float(torch.tensor(experts).log()) if experts > 1 else 1.0,
        imbalance=float(load.max() * experts) if total else 1.0,
        dead=tuple((counted == 0).nonzero().flatten().tolist()),
        none=int((routing.experts < 0).sum()),
        drops=0 if routing.drops is None else int(routing.drops.sum()),
    )


def co_activation(routing: Routing, experts: int) -> Tensor:
    """``[E, E]`` int64: tokens that visit both experts; the diagonal holds the counts."""
    ids = routing.experts
    visits = torch.zeros(ids.shape[0], experts + 1, dtype=torch.float64, device=ids.device)
    visits.scatter_(1, torch.where(ids < 0, experts, ids), 1.0)
    visits = visits[:, :experts]
    return (visits.T @ visits).round().long()


def load_balance_loss(routing: Routing, experts: int) -> Tensor:
    """``E * sum_e f_e P_e``: 1 for an even load, E at the worst.

    ``f_e`` is the share of the assignments that expert e got (no gradient), ``P_e`` the mean over
    tokens of its softmax probability (Fedus et al., "Switch Transformers", 2021, equation 4). Where
    f and P are ordered alike, as they are when loads follow probabilities, it is at least 1.

    Raises:
        ComponentError: the routing has no logits.
    """
    logits = _logits(routing, "load_balance_loss")
    counted = counts(routing, experts).to(logits.dtype)
    share = counted / counted.sum().clamp(min=1)
    mean = logits.softmax(dim=-1).sum(dim=0) / max(logits.shape[0], 1)
    return experts * (share * mean).sum()


def z_loss(routing: Routing) -> Tensor:
    """``mean over tokens of logsumexp(logits) ** 2``: keeps logits small (Zoph et al., 2022).

    Raises:
        ComponentError: the routing has no logits.
    """
    logits = _logits(routing, "z_loss")
    return logits.logsumexp(dim=-1).square().sum() / max(logits.shape[0], 1)


def _logits(routing: Routing, name: str) -> Tensor:
    if routing.logits is None:
        raise ComponentError(
            f"{name} needs the router's logits, and this routing has none; choose a router that "
            "returns logits, or leave this loss out"
        )
    return routing.logits
