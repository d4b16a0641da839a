"""Hypothesis strategies for mixtures: shapes and seeds are drawn, never single elements."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from llama4_core.protocols.routing import Routing
from llama4_core.protocols.weights import ExpertWeights

# How the tokens are spread over the experts.
SPREADS = ("random", "one hot expert", "some to none", "all to none")


@dataclass(frozen=True)
class ExpertCase:
    """One call of an expert backend; the tensors follow from the fields."""

    tokens: int
    experts: int
    top_k: int
    hidden: int
    width: int
    seed: int
    spread: str
    transposed: bool
    weight_on: str

    def build(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Routing, ExpertWeights]:
        """Tokens, routing and weights."""
        N, E, K, D, F = self.tokens, self.experts, self.top_k, self.hidden, self.width
        source = torch.Generator().manual_seed(self.seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=source, dtype=torch.float64).to(dtype)

        ids = torch.rand(N, E, generator=source).argsort(dim=1)[:, :K]
        if self.spread == "one hot expert" and N:
            ids = ids[:1].expand(N, K).contiguous()
        elif self.spread == "some to none":
            ids = ids.masked_fill(torch.rand(N, K, generator=source) < 0.4, -1)
        elif self.spread == "all to none":
            ids = torch.full_like(ids, -1)
        gates = torch.rand(N, K, generator=source).masked_fill(ids < 0, 0.0)
        gates = gates.to(torch.promote_types(dtype, torch.float32))
        if self.transposed:
            gate_up = normal(E, D, 2 * F).transpose(1, 2)
            down = normal(E, F, D).transpose(1, 2)
        else:
            gate_up, down = normal(E, 2 * F, D), normal(E, D, F)
        weights = ExpertWeights(gate_up * D**-0.5, down * F**-0.5)
        return normal(N, D), Routing(ids, gates), weights


@st.composite
def expert_cases(draw: st.DrawFn) -> ExpertCase:
    """Calls of expert backends. Sizes are multiples of 8: rows of 16 bytes in every dtype."""
    experts = draw(st.integers(1, 9))
    return ExpertCase(
        tokens=draw(st.sampled_from((0, 1, 2, 7, 33))),
        experts=experts,
        top_k=draw(st.integers(1, min(experts, 3))),
        hidden=8 * draw(st.integers(1, 3)),
        width=8 * draw(st.integers(1, 3)),
        seed=draw(st.integers(0, 2**31)),
        spread=draw(st.sampled_from(SPREADS)),
        transposed=draw(st.booleans()),
        weight_on=draw(st.sampled_from(("input", "output"))),
    )
