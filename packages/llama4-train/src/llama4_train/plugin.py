"""What this package offers to the catalogue. Imports without torch."""

from __future__ import annotations

from llama4_core.plugins.component import Component
from llama4_core.plugins.hookspecs import hookimpl

OBJECTIVES = (
    Component(
        "next-token",
        "llama4_train.objectives.next_token:NextToken",
        "weighted cross-entropy of the next token, z-losses, auxiliary load balancing",
        priority=10,
    ),
)


@hookimpl
def llama4_objectives() -> tuple[Component, ...]:
    """Our objectives."""
    return OBJECTIVES
