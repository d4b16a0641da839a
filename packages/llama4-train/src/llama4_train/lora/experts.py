"""A bank of experts with adapters on its stacked weights.

Two ways to the same numbers, measured by ``benchmarks/lora.py``:

- **by rows**: the tokens of each expert meet ``W``, then ``A`` and ``B``. The weights need no
  gradient and are never copied; an expert that no token visits costs nothing.
- **merged**: ``W + s B A`` is written out for the whole bank, and whichever backend the model has
  runs on it. It costs a copy of the bank in each forward and a gradient of that size in each
  backward, however few tokens there are. Only for backends whose activation is not known here, and
  while ``torch.compile`` traces what the grouped product does not take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from llama4_core.protocols.routing import Routing
from llama4_core.protocols.weights import ExpertWeights
from llama4_train.errors import TrainingError
from llama4_train.lora.low_rank import LowRank
from llama4_train.lora.segments import Segments, fits_grouped

GATE_UP = "gate_up_proj"
DOWN = "down_proj"
BANK = (GATE_UP, DOWN)
"""Parameters ``[E, 2F, D]`` and ``[E, D, F]`` of a bank of experts."""


def run_adapted(
    adapters: Mapping[str, LowRank],
    backend: Any,
    x: Tensor,
    routing: Routing,
    weights: ExpertWeights,
    *,
    weight_on: str = "input",
) -> Tensor:
    """An expert backend around another: see :class:`llama4_core.protocols.experts.ExpertBackend`.

    Args:
        adapters: by the name of the parameter in the bank.
        backend: that the model would run without adapters. Its attribute ``activation``, a function
            of a tensor, is what stands between the two products of its experts.
        x: ``[N, D]``.
        routing: of the tokens.
        weights: of the bank, plain.
        weight_on: "input" or "output".

    Raises:
        TrainingError: the weights are packed; or there is dropout, which merged weights cannot
            have, and only they can run here.
    """
    gate_up, down = weights.gate_up, weights.down
    if not isinstance(gate_up, Tensor) or not isinstance(down, Tensor):
        raise TrainingError(
            f"experts with adapters have weights in format {weights.format!r}; expected plain "
            "tensors: adapt a model that is not quantised"
        )
    activation = getattr(backend, "activation", None)
    ranks = [adapter.rank for adapter in adapters.values()]
    groupable = fits_grouped(x.dtype, x.shape[1], down.shape[2], *ranks)
    if callable(activation) and (groupable or not torch.compiler.is_compiling()):
        grouped = groupable and (x.device.type != "cpu" or torch.compiler.is_compiling())
        segments = Segments.of(routing, gate_up.shape[0], x.dtype, grouped=grouped)
        rows = segments.rows(x, weight_on)
        hidden = _product(segments, rows, gate_up, adapters.get(GATE_UP))
        y = _product(segments, _gated(hidden, activation), down, adapters.get(DOWN))
        return segments.tokens(y, routing.experts.shape[1], weight_on)
    _refuse_dropout(adapters, backend)
    merged: Tensor = backend(
        x,
        routing,
        ExpertWeights(
            _written_out(gate_up, adapters.get(GATE_UP)), _written_out(down, adapters.get(DOWN))
        ),
        weight_on=weight_on,
    )
    return merged


def _gated(gate_up: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """``activation(gate) * up``, gate first."""
    gate, up = gate_up.chunk(2, dim=-1)
    return activation(gate) * up


def _product(segments: Segments, rows: Tensor, matrices: Tensor, adapter: LowRank | None) -> Tensor:
    y = segments.product(rows, matrices)
    if adapter is None:
        return y
    low = segments.product(adapter.dropped(rows), adapter.A.to(rows.dtype))
    change = segments.product(low, adapter.B.to(rows.dtype))
    return torch.add(y, change, alpha=adapter.scale)


def _written_out(matrices: Tensor, adapter: LowRank | None) -> Tensor:
    if adapter is None:
        return matrices
    A, B = adapter.A.to(matrices.dtype), adapter.B.to(matrices.dtype)
    return torch.baddbmm(matrices, B, A, alpha=adapter.scale)


def _refuse_dropout(adapters: Mapping[str, LowRank], backend: Any) -> None:
    for adapter in adapters.values():
        if adapter.dropout and adapter.training:
            raise TrainingError(
                f"dropout is {adapter.dropout} on experts that {type(backend).__name__} runs on "
                "merged weights, where no input of A can be dropped; set dropout to 0, or choose "
                "an expert backend of llama4-moe"
            )
