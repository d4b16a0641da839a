"""Several optimizers as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from llama4_train.errors import TrainingError


class Together:
    """Steps several optimizers, each with parameters of its own, as if they were one.

    Args:
        members: the optimizers.

    Attributes:
        param_groups: those of all members: changing ``lr`` in one changes it in its member.
    """

    def __init__(self, members: Sequence[Any]) -> None:
        self.members = tuple(members)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all members."""
        return [group for member in self.members for group in member.param_groups]

    def step(self) -> None:
        """Steps every member."""
        for member in self.members:
            member.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets all gradients."""
        for member in self.members:
            member.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The states of the members, in order."""
        return {"members": [member.state_dict() for member in self.members]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` gave.

        Raises:
            TrainingError: the state is of another number of optimizers.
        """
        states = state["members"]
        if len(states) != len(self.members):
            raise TrainingError(
                f"the stored state is of {len(states)} optimizers; expected {len(self.members)}: "
                "resume with the recipe that the run was started with"
            )
        for member, one in zip(self.members, states, strict=True):
            member.load_state_dict(one)


class Masters:
    """An optimizer over float32 copies of narrower weights.

    Updates smaller than half a step of bfloat16 would vanish; the copies keep them, and the model
    gets the rounded value after every step.

    Args:
        pairs: of each parameter and its float32 copy.
        inner: the optimizer over the copies.
    """

    def __init__(
        self, pairs: Sequence[tuple[torch.nn.Parameter, torch.Tensor]], inner: Any
    ) -> None:
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
        for parameter, _ in self.pairs:
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()

    def state_dict(self) -> dict[str, Any]:
        """The copies and the inner state."""
        return {
            "masters": [master.detach() for _, master in self.pairs],
            "inner": self.inner.state_dict(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` gave, the model's weights included."""
        for (parameter, master), stored in zip(self.pairs, state["masters"], strict=True):
            master.copy_(stored)
            parameter.copy_(master)
        self.inner.load_state_dict(state["inner"])
