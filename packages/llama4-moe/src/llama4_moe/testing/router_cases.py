"""Calls of routers, for the checks of their socket."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from llama4_core.errors import Llama4Error
from llama4_core.protocols.routing import Routing, RoutingInfo
from llama4_core.testing.check import Subject
from llama4_core.testing.strategies import Numbers, numbers

HIDDEN = 8
SHAPES = ((1, 1), (2, 1), (4, 1), (4, 2), (5, 3), (9, 1), (16, 4), (12, 10))
"""(E, K)"""


@dataclass(frozen=True)
class RouterCase:
    """One call of a router.

    Attributes:
        experts, top_k: E and K.
        tokens: N.
        numbers: source of the tokens.
        training: as the router is told.
    """

    experts: int
    top_k: int
    tokens: int
    numbers: Numbers
    training: bool

    def inputs(self) -> tuple[Tensor, RoutingInfo]:
        """Tokens ``[N, D]`` of two documents, and what is known about them."""
        source, first = self.numbers.source(), self.tokens // 2
        at = torch.arange(self.tokens)
        info = RoutingInfo(
            positions=torch.where(at < first, at, at - first),
            documents=(at >= first).long(),
            tokens=source.integers(0, 97, self.tokens),
            training=self.training,
            generator=torch.Generator().manual_seed(self.numbers.seed),
        )
        return source(self.tokens, HIDDEN), info


def build(subject: Subject, case: RouterCase) -> Any:
    """The router; the runner has seeded what it draws."""
    router = subject.build(HIDDEN, case.experts, case.top_k)
    return router.train(case.training)


@functools.lru_cache(maxsize=64)
def _accepted(call: Callable[..., Any]) -> tuple[tuple[tuple[int, int], ...], str]:
    found, first = [], ""
    for experts, top_k in SHAPES:
        try:
            call(HIDDEN, experts, top_k)
        except Llama4Error as error:
            first = first or str(error)
        else:
            found.append((experts, top_k))
    return tuple(found), first


def cases(*spices: str, least: int = 0) -> Callable[[Subject], st.SearchStrategy[RouterCase]]:
    """Calls with numbers of E and K that the router accepts, of at least ``least`` tokens."""

    def strategy(subject: Subject) -> st.SearchStrategy[RouterCase]:
        shapes, reason = _accepted(subject.build)
        if not shapes:
            raise AssertionError(f"every number of experts is refused, the first: {reason}")
        return st.builds(
            lambda shape, *rest: RouterCase(*shape, *rest),
            st.sampled_from(shapes),
            st.sampled_from([count for count in (0, 1, 2, 7, 33) if count >= least]),
            numbers(*spices),
            st.booleans(),
        )

    return strategy


def decided(routing: Routing) -> Tensor:
    """``[N]`` bool: rows whose choice no rounding can turn (logits at least 1e-3 apart)."""
    rows = routing.experts.shape[0]
    if routing.logits is None or routing.logits.shape[1] < 2:
        return torch.ones(rows, dtype=torch.bool)
    ordered = routing.logits.detach().sort(-1).values
    apart: Tensor = ordered.diff(dim=-1).amin(-1) > 1e-3
    return apart


def visits(routing: Routing, experts: int) -> Tensor:
    """``[E]`` int64: tokens of each expert."""
    return torch.bincount(routing.experts[routing.experts >= 0], minlength=experts)
