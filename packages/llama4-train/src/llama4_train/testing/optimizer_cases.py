"""Parameters of every role, gradients for them, and states as checkpoints keep them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from llama4_core.testing.compare import holds
from llama4_train.optimizers.roles import ROLES
from llama4_train.protocols import Parameter

LR = 0.01
"""What optimizers are built with."""


@dataclass(frozen=True)
class Case:
    """Parameters of every role.

    Attributes:
        experts: E of the stack.
        rows, columns: of the matrices.
        seed: of values and gradients.
        roles: which there are.
        dtype: of the parameters.
    """

    experts: int
    rows: int
    columns: int
    seed: int
    roles: tuple[str, ...] = ROLES
    dtype: torch.dtype = torch.float64

    def parameters(self, device: str) -> list[Parameter]:
        """Values of a size from 2 to 4, where a step of bfloat16 is 1/64; signs at random."""
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(ROLES, (self.rows, self.columns))
        shapes["vector"] = (self.columns,)
        shapes["experts"] = (self.experts, self.rows, self.columns)
        generator = torch.Generator().manual_seed(self.seed)
        found = []
        for role, shape in shapes.items():
            size = 2 + 2 * torch.rand(shape, generator=generator)
            value = size * signs(shape, generator)
            # The same start in every dtype.
            value = value.to(torch.bfloat16).to(device=device, dtype=self.dtype)
            if role in self.roles:
                found.append(Parameter(f"{role}.weight", nn.Parameter(value), role))
        return found

    def gradients(self, parameters: Sequence[Parameter], count: int) -> list[list[Tensor]]:
        """``count`` times random gradients of all parameters, exact in bfloat16."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        return [
            [
                torch.randn(one.value.shape, generator=generator).bfloat16().to(one.value)
                for one in parameters
            ]
            for _ in range(count)
        ]


def signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """1 or -1 at random."""
    return torch.randint(0, 2, shape, generator=generator) * 2 - 1


CASES = st.builds(
    Case, st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**16)
)
# Narrow weights go another way than wide ones.
WIDE_AND_NARROW = st.builds(replace, CASES, dtype=st.sampled_from((torch.float32, torch.bfloat16)))


def take_steps(optimizer: Any, parameters: Sequence[Parameter], given: list[list[Tensor]]) -> None:
    """A step with each of the given gradients, and none left behind."""
    for gradients in given:
        for one, gradient in zip(parameters, gradients, strict=True):
            one.value.grad = gradient.clone()
        optimizer.step()
        optimizer.zero_grad()


def values_of(parameters: Sequence[Parameter]) -> dict[str, Tensor]:
    """Copies of the values, by name."""
    return {one.name: one.value.detach().clone() for one in parameters}


def stored(state: Any) -> tuple[str, list[Tensor]]:
    """JSON text and tensors, as checkpoints keep a state; pairs keep the types of keys."""
    tensors: list[Tensor] = []

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors.append(value.detach().clone())
            return {"tensor": len(tensors) - 1}
        if isinstance(value, dict):
            return {"pairs": [[plain(key), plain(one)] for key, one in value.items()]}
        if isinstance(value, list | tuple):
            return [plain(one) for one in value]
        holds(
            value is None or isinstance(value, bool | int | float | str),
            f"the state holds a {type(value).__name__}; expected tensors and values of JSON",
        )
        return value

    return json.dumps(plain(state)), tensors


def restored(text: str, tensors: list[Tensor]) -> Any:
    """What :func:`stored` was given, with lists in place of tuples."""

    def value_of(plain: Any) -> Any:
        if isinstance(plain, list):
            return [value_of(one) for one in plain]
        if not isinstance(plain, dict):
            return plain
        if "tensor" in plain:
            return tensors[plain["tensor"]]
        return {value_of(key): value_of(one) for key, one in plain["pairs"]}

    return value_of(json.loads(text))
