"""The arithmetic of one expert."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor

from llama4_core.errors import ComponentError
from llama4_core.model.projection import project
from llama4_core.protocols.weights import ExpertWeights


def _relu2(x: Tensor) -> Tensor:
    return F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "relu2": _relu2,
}


def gated(gate_up: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """``activation(gate) * up`` of ``[..., 2F]``, gate first."""
    gate, up = gate_up.chunk(2, dim=-1)
    return activation(gate) * up


def expert(
    x: Tensor, gate_up: Tensor, down: Tensor, activation: Callable[[Tensor], Tensor]
) -> Tensor:
    """One expert: ``x [N, D]``, ``gate_up [2F, D]``, ``down [D, F]`` -> ``[N, D]``."""
    return project(gated(project(x, gate_up), activation), down)


def plain(weights: ExpertWeights, backend: str) -> tuple[Tensor, Tensor]:
    """The two banks as tensors.

    Raises:
        ComponentError: the weights are packed, which this backend cannot run.
    """
    if not isinstance(weights.gate_up, Tensor) or not isinstance(weights.down, Tensor):
        raise ComponentError(
            f"expert backend {backend!r} got weights in format {weights.format!r}; expected plain "
            "tensors: choose a backend that declares this format"
        )
    return weights.gate_up, weights.down
