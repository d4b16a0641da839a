"""Float32 copies of narrower weights, so that small updates are not rounded away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from llama4_train.errors import TrainingError
from llama4_train.protocols import Parameter

_NARROW = (torch.bfloat16, torch.float16)


def with_masters(
    parameters: Sequence[Parameter], build: Callable[[Sequence[Parameter]], Any]
) -> Any:
    """``build(parameters)``, over float32 copies of those that are narrower than float32.

    Args:
        parameters: to be trained; their values are copied now, so load weights before this.
        build: makes an optimizer of parameters.
    """
    pairs = [
        (one.value, nn.Parameter(one.value.detach().float()))
        for one in parameters
        if one.value.dtype in _NARROW
    ]
    if not pairs:
        return build(parameters)
    wide = {id(narrow): master for narrow, master in pairs}
    inner = build([replace(one, value=wide.get(id(one.value), one.value)) for one in parameters])
    return Masters(pairs, inner)


class Masters:
    """An optimizer over float32 copies of narrower weights.

    A step of bfloat16 is 1/128 of a power of two: updates smaller than half of it would vanish.
    The copies keep them, and the model gets the rounded value after every step.

    Args:
        pairs: of each narrow parameter and its float32 copy.
        inner: the optimizer over the copies, and over parameters that are wide enough themselves.
    """

    def __init__(self, pairs: Sequence[tuple[nn.Parameter, nn.Parameter]], inner: Any) -> None:
        self.pairs = tuple(pairs)
        self.inner = inner

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of the inner optimizer."""
        groups: list[dict[str, Any]] = self.inner.param_groups
        return groups

    @torch.no_grad()
    def step(self) -> None:
        """Widens the gradients, steps, and rounds the result into the model."""
        for parameter, master in self.pairs:
            master.grad = None if parameter.grad is None else parameter.grad.float()
        self.inner.step()
        for parameter, master in self.pairs:
            if master.grad is not None:
                parameter.copy_(master)
                master.grad = None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets all gradients."""
        self.inner.zero_grad(set_to_none=set_to_none)
        for parameter, _ in self.pairs:
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()

    def state_dict(self) -> dict[str, Any]:
        """The copies themselves, and the inner state."""
        return {
            "masters": [master.detach() for _, master in self.pairs],
            "inner": self.inner.state_dict(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` gave, the narrow weights included.

        Raises:
            TrainingError: the state is of other weights; nothing was changed.
        """
        stored: Sequence[Tensor] = state.get("masters", ())
        got = [list(value.shape) for value in stored]
        expected = [list(master.shape) for _, master in self.pairs]
        if got != expected:
            raise TrainingError(
                f"the stored state has float32 copies of {_shapes(got)}; expected "
                f"{_shapes(expected)}: resume with the model and dtype that the run began with"
            )
        self.inner.load_state_dict(state["inner"])
        for (parameter, master), value in zip(self.pairs, stored, strict=True):
            master.copy_(value)
            parameter.copy_(master)


def _shapes(shapes: list[list[int]]) -> str:
    shown = ", ".join(map(str, shapes[:3])) + (", ..." if len(shapes) > 3 else "")
    return f"{len(shapes)} weights ({shown})" if shapes else "no weights"
