"""What training reads from the routings that a forward returned: loads and losses.

Nothing counts inside a forward, which activation checkpointing runs twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from llama4_core.protocols.routing import Routing
from llama4_train.errors import TrainingError


def expert_counts(routing: Routing, experts: int) -> Tensor:
    """``[E]`` int64: assignments per expert; ids of -1 count nowhere."""
    ids = routing.experts.reshape(-1)
    # A row for -1 in front, which is dropped: no shape depends on data.
    return torch.bincount(ids + 1, minlength=experts + 1)[1:]


def model_counts(model: Any, routings: Sequence[Routing | None]) -> list[Tensor | None]:
    """Assignments per expert ``[E]`` of each layer; None for layers without experts.

    Add those of a step's batches (and ranks) up, and give each to the ``after_step`` of its layer's
    router: that is all that loss-free balancing needs.

    Args:
        model: whose ``spec`` says how many experts each layer has.
        routings: one per layer, as its forward returns them.
    """
    return [
        None if routing is None else expert_counts(routing, layer.feed_forward.experts)
        for layer, routing in zip(model.spec.layers, routings, strict=True)
    ]


def load_balance(routing: Routing) -> Tensor:
    """``E * sum_e f_e P_e``: 1 where the load is even, up to E where one expert gets everything.

    ``f_e`` is the share of the assignments that expert e got, which has no gradient, and ``P_e``
    the mean over tokens of the softmax of its logits (Fedus et al., "Switch Transformers", 2021,
    equations 4 to 6). Where f and P are ordered alike, 1 is the least value.

    The softmax is taken for Llama 4's sigmoid router too, on purpose. Who is visited depends on
    differences of logits alone, and so does a softmax: the loss moves tokens and leaves the size of
    the gates to the other losses. Sigmoids divided by their sum become even when all logits grow,
    which changes nobody's choice, and have no gradient left where a gate is nearly 1.

    Raises:
        TrainingError: the routing has no logits.
    """
    logits = _logits(routing, "balance")
    experts = logits.shape[-1]
    counts = expert_counts(routing, experts).to(logits.dtype)
    share = counts / counts.sum().clamp(min=1)
    mean = logits.softmax(dim=-1).sum(dim=0) / max(logits.shape[0], 1)
    return experts * (share * mean).sum()


def router_z(routing: Routing) -> Tensor:
    """``mean over tokens of logsumexp(logits) ** 2``: keeps a router's logits small.

    Source: Zoph et al., "ST-MoE", 2022, equation 5; their weight is 0.001.

    Raises:
        TrainingError: the routing has no logits.
    """
    logits = _logits(routing, "router_z_loss")
    return logits.logsumexp(dim=-1).square().sum() / max(logits.shape[0], 1)


def mixtures(routings: Iterable[Routing | None]) -> list[Routing]:
    """The routings of the layers that have experts."""
    return [routing for routing in routings if routing is not None]


def _logits(routing: Routing, setting: str) -> Tensor:
    if routing.logits is None:
        raise TrainingError(
            f"{setting} needs the logits of the router, and this router gives none; set {setting} "
            "to 0, or choose a router with logits"
        )
    return routing.logits
