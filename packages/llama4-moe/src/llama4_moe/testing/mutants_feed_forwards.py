"""Bugs of mixtures that only show with idle experts or on several ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from llama4_core.protocols.routing import Routing, RoutingInfo
from llama4_core.specs.model import MoESpec
from llama4_core.testing.check import Subject
from llama4_core.testing.mutants import Mutant
from llama4_moe.feed_forward import MoEFeedForward


class ScalesVisited(MoEFeedForward):
    """One weight per expert, touched only where the expert has a token."""

    def __init__(self, spec: MoESpec, width: int, parts: Any) -> None:
        super().__init__(spec, width, parts)
        self.scales = nn.ParameterList(torch.ones(1) for _ in range(spec.experts))

    def forward(self, x: Tensor, info: RoutingInfo) -> tuple[Tensor, Routing]:
        """Scales the output of visited experts."""
        y, routing = super().forward(x, info)
        for expert in routing.experts.unique().tolist():
            y = y * torch.where((routing.experts == expert).any(1)[:, None], self.scales[expert], 1)
        return y, routing


class AveragesBatch(MoEFeedForward):
    """Divides by the number of tokens, which is another one on each rank."""

    def forward(self, x: Tensor, info: RoutingInfo) -> tuple[Tensor, Routing]:
        """Divides."""
        y, routing = super().forward(x, info)
        return y / max(1, len(x)), routing


def _mutant(bug: str, check: str, target: type[nn.Module]) -> Mutant:
    subject = Subject("feed_forwards", target.__name__, target, distribution="llama4-moe")
    return Mutant(bug, check, subject)


MUTANTS: tuple[Mutant, ...] = (
    _mutant("idle experts without a gradient", "unvisited-experts", ScalesVisited),
    _mutant("idle experts without a gradient on a rank", "data-parallel", ScalesVisited),
    _mutant("division by the tokens of a rank", "data-parallel", AveragesBatch),
)
