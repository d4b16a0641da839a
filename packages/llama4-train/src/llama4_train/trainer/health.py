"""Numbers that say whether a run is well: the load of experts, the size of gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llama4_train.protocols import Parameter

# An expert with less than this part of its fair share is counted as idle.
_IDLE = 0.1


def router_health(counts: Sequence[Tensor | None]) -> dict[str, float]:
    """The load of experts in one step.

    Args:
        counts: tokens per expert ``[E]`` of each layer; None for dense layers.

    Returns:
        ``router.violation``: ``max(load) / mean(load) - 1``, averaged over layers (Wang et al.,
        2024); ``router.idle``: experts with less than a tenth of their fair share, of all layers;
        and ``router.violation.N`` of each layer. Nothing without experts.
    """
    found: dict[str, float] = {}
    idle, layers = 0, []
    for index, count in enumerate(counts):
        if count is None or not int(count.sum()):
            continue
        load = count.double() / count.double().mean()
        layers.append(float(load.max()) - 1)
        found[f"router.violation.{index}"] = layers[-1]
        idle += int((load < _IDLE).sum())
    if layers:
        found["router.violation"] = sum(layers) / len(layers)
        found["router.idle"] = float(idle)
    return found


def gradient_health(parameters: Sequence[Parameter]) -> dict[str, float]:
    """The norm of the gradients of each role, as ``gradient.ROLE``, before clipping."""
    by_role: dict[str, list[Tensor]] = {}
    for one in parameters:
        if one.value.grad is not None:
            by_role.setdefault(one.role, []).append(one.value.grad)
    return {
        f"gradient.{role}": float(torch.nn.utils.get_total_norm(gradients))
        for role, gradients in by_role.items()
    }
