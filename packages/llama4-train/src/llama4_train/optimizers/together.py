"""Several optimizers as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama4_train.errors import TrainingError


class Together:
    """Steps several optimizers, each with parameters of its own, as if they were one.

    Args:
        members: the optimizers.
    """

    def __init__(self, members: Sequence[Any]) -> None:
        self.members = tuple(members)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all members: changing ``lr`` in one changes it in its member."""
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
            TrainingError: the state is of another number of optimizers; nothing was changed.
        """
        states = state.get("members", ())
        if len(states) != len(self.members):
            raise TrainingError(
                f"the stored state is of {len(states)} optimizers; expected {len(self.members)}: "
                "resume with the recipe that the run was started with"
            )
        for member, one in zip(self.members, states, strict=True):
            member.load_state_dict(one)
