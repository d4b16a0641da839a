"""What our own mixtures promise beyond the checks of the socket feed_forwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from llama4_core.errors import ComponentError
from llama4_core.protocols.routing import RoutingInfo
from llama4_core.specs.model import MoESpec
from llama4_core.testing.check import Check, Refused, Subject, check
from llama4_core.testing.feed_forwards import WIDTH, build
from llama4_moe.testing import moe_checks, parallel_checks

SPEC = MoESpec(5, 1, 16, 16, "sigmoid-top-k")


class Flat(nn.Module):
    """A feed-forward as other people's training code sees it: ``[..., D]`` in and out."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``[..., D]``."""
        y: Tensor = self.part(x.reshape(-1, x.shape[-1]), RoutingInfo())[0]
        return y.reshape(x.shape)


@dataclass(frozen=True)
class Maker:
    """Makes the same module each time; may be sent to another process."""

    target: Callable[..., Any]

    def __call__(self) -> nn.Module:
        """A fresh module with equal weights."""
        return Flat(build(Subject("feed_forwards", "a mixture", self.target), SPEC))


def _once(subject: Subject) -> st.SearchStrategy[None]:
    if subject.device != "cpu":
        raise Refused("these checks start processes that talk on a CPU")
    return st.none()


@check(
    why="an expert without a token leaves its weights without a gradient, and data-parallel "
    "training then waits for ever",
    cases=_once,
    examples=1,
)
def unvisited_experts(subject: Subject, case: None) -> None:
    """One token, and none at all, give every weight a gradient; zeros count."""
    moe_checks.check_unvisited_experts_have_gradients(Maker(subject.build), WIDTH)


@check(
    why="training on several devices is where mixtures usually break: ranks see other experts",
    cases=_once,
    examples=1,
)
def data_parallel(subject: Subject, case: None) -> None:
    """DDP and FSDP2 with idle experts give the gradients of one process on the whole batch."""
    if not torch.distributed.is_available():
        raise ComponentError("this torch has no torch.distributed; install one that has")
    parallel_checks.check_data_parallel(Maker(subject.build), WIDTH)


CHECKS: tuple[Check, ...] = (unvisited_experts, data_parallel)
