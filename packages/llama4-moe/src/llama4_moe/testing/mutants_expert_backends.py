"""Bugs of expert backends, planted into the dense one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from llama4_core.protocols.routing import Routing
from llama4_core.protocols.weights import ExpertWeights
from llama4_core.testing.check import Subject
from llama4_core.testing.mutants import Mutant
from llama4_moe.experts.dense import DenseExperts
from llama4_moe.support import plain_only


class Broken(DenseExperts):
    """The dense backend, changed before and after its call.

    Args:
        before: changes (x, routing, gate_up, down, weight_on).
        after: changes the output, given x, the routing and gate_up.
    """

    def __init__(
        self, before: Callable[..., Any] | None = None, after: Callable[..., Any] | None = None
    ) -> None:
        super().__init__()
        self.before, self.after = before, after

    def __call__(
        self, x: Tensor, routing: Routing, weights: ExpertWeights, *, weight_on: str = "input"
    ) -> Tensor:
        """Calls with the changed arguments and changes the result."""
        call: Any = (x, routing, weights.gate_up, weights.down, weight_on)
        if self.before is not None:
            call = self.before(*call)
        changed, routing, gate_up, down, weight_on = call
        y = super().__call__(changed, routing, ExpertWeights(gate_up, down), weight_on=weight_on)
        return y if self.after is None else self.after(y, x, routing, gate_up)


def _before(change: Callable[..., Any]) -> Callable[[], Broken]:
    return lambda: Broken(before=change)


def _after(change: Callable[..., Any]) -> Callable[[], Broken]:
    return lambda: Broken(after=change)


def _on_output(x: Tensor, r: Routing, g: Tensor, d: Tensor, on: str) -> Any:
    return x, r, g, d, "output"


def _swapped(x: Tensor, r: Routing, g: Tensor, d: Tensor, on: str) -> Any:
    return x, r, torch.cat(g.chunk(2, 1)[::-1], 1), d, on


def _last_for_none(x: Tensor, r: Routing, g: Tensor, d: Tensor, on: str) -> Any:
    ids = torch.where(r.experts < 0, g.shape[0] - 1, r.experts)
    return x, replace(r, experts=ids, weights=r.weights + 0.1), g, d, on


def _least_weight(x: Tensor, r: Routing, g: Tensor, d: Tensor, on: str) -> Any:
    return x, replace(r, weights=r.weights.clamp(min=0.05)), g, d, on


def _first_is_louder(x: Tensor, r: Routing, g: Tensor, d: Tensor, on: str) -> Any:
    factor = torch.ones(g.shape[0], 1, 1, dtype=d.dtype)
    factor[0] = 1.5
    return x, r, g, d * factor, on


def _capacity(x: Tensor, r: Routing, g: Tensor, d: Tensor, on: str) -> Any:
    late = torch.arange(len(x))[:, None] >= 4
    return x, replace(r, experts=r.experts.masked_fill(late, -1)), g, d, on


def _in_place(x: Tensor, r: Routing, g: Tensor, d: Tensor, on: str) -> Any:
    return x.mul_(1.5), r, g, d, on


def _gates_detached(x: Tensor, r: Routing, g: Tensor, d: Tensor, on: str) -> Any:
    return x, replace(r, weights=r.weights.detach()), g, d, on


def _packed(x: Tensor, r: Routing, g: Tensor, d: Tensor, on: str) -> Any:
    strides = torch.empty(g.shape, device="meta").stride()
    return x, r, torch.as_strided(g, g.shape, strides, g.storage_offset()), d, on


def _rolled(y: Tensor, x: Tensor, routing: Routing, gate_up: Tensor) -> Tensor:
    return y.roll(1, 0)


def _peek(y: Tensor, x: Tensor, routing: Routing, gate_up: Tensor) -> Tensor:
    place = gate_up.storage_offset() + gate_up.numel()
    if gate_up.untyped_storage().nbytes() // gate_up.element_size() <= place:
        return y
    return y + 0 * torch.as_strided(gate_up, (1,), (1,), place)


def _host_read(y: Tensor, x: Tensor, routing: Routing, gate_up: Tensor) -> Tensor:
    return y if float(x.sum()) < 1e30 else 2 * y


def _mutant(
    bug: str,
    check: str,
    build: Callable[[], Any],
    refusal: Callable[[Any], str | None] = plain_only,
) -> Mutant:
    return Mutant(bug, check, Subject("expert_backends", f"dense, {bug}", build, refusal))


MUTANTS: tuple[Mutant, ...] = (
    _mutant("accepts any format", "supports-answers", DenseExperts, lambda problem: None),
    _mutant("weight on the output", "matches-definition", _before(_on_output)),
    _mutant("gate and up swapped", "matches-definition", _before(_swapped)),
    _mutant("-1 is the last expert", "matches-definition", _before(_last_for_none)),
    _mutant("weights of at least 0.05", "zero-weight-is-absence", _before(_least_weight)),
    _mutant("rows come back rolled", "dispatch-and-combine", _after(_rolled)),
    _mutant("expert 0 is louder", "expert-permutation", _before(_first_is_louder)),
    _mutant("capacity of four tokens", "token-permutation", _before(_capacity)),
    _mutant("ignores strides", "strides", _before(_packed)),
    _mutant("reads past the end", "stays-inside", _after(_peek)),
    _mutant("scales x in place", "inputs-stay", _before(_in_place)),
    _mutant("gates get no gradient", "gradient", _before(_gates_detached)),
    _mutant("reads a number on the host", "compiles", _after(_host_read)),
)
