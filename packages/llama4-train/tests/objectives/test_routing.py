"""Loads and losses of routings (property 24)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from llama4_core.protocols.routing import Routing
from llama4_train.errors import TrainingError
from llama4_train.objectives.routing import expert_counts, load_balance, mixtures, router_z


def routed(logits: Tensor, top_k: int = 1) -> Routing:
    best = logits.topk(top_k)
    return Routing(best.indices, best.values.sigmoid(), logits)


@st.composite
def routings(draw: st.DrawFn) -> Routing:
    experts = draw(st.integers(1, 8))
    top_k = draw(st.integers(1, experts))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    scale = draw(st.sampled_from((0.1, 3.0)))
    tokens = draw(st.integers(0, 40))
    logits = scale * torch.randn(tokens, experts, generator=generator, dtype=torch.float64)
    return routed(logits, top_k)


@given(routing=routings())
def test_counts_are_conserved(routing: Routing) -> None:
    experts = routing.logits.shape[1]
    counts = expert_counts(routing, experts)
    assert counts.shape == (experts,)
    assert int(counts.sum()) == routing.experts.numel()
    for expert in range(experts):
        assert int(counts[expert]) == int((routing.experts == expert).sum())


def test_no_expert_counts_nowhere() -> None:
    routing = Routing(torch.tensor([[-1, 2], [2, -1], [0, 1]]), torch.zeros(3, 2))
    assert expert_counts(routing, 4).tolist() == [1, 1, 2, 0]


@given(experts=st.integers(1, 8), rounds=st.integers(1, 5), seed=st.integers(0, 2**16))
def test_an_even_load_costs_one(experts: int, rounds: int, seed: int) -> None:
    logits = torch.randn(experts * rounds, experts, dtype=torch.float64)
    ids = torch.arange(experts * rounds)[:, None] % experts
    # The sum of all probabilities is 1: rounding of a sum of a few numbers.
    assert abs(float(load_balance(Routing(ids, torch.ones_like(ids), logits))) - 1) < 1e-12


@given(seed=st.integers(0, 2**16), experts=st.integers(2, 8), tokens=st.integers(1, 20))
def test_a_load_that_follows_the_probabilities_costs_more(
    seed: int, experts: int, tokens: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, experts, generator=generator, dtype=torch.float64).repeat(tokens, 1)
    cost = float(load_balance(routed(logits)))
    # All tokens go to the likeliest expert, so the cost is E times its probability.
    assert abs(cost - experts * float(logits[0].softmax(0).max())) < 1e-12
    assert cost > 1


@given(routing=routings(), seed=st.integers(0, 2**16))
def test_relabelled_experts_cost_the_same(routing: Routing, seed: int) -> None:
    experts = routing.logits.shape[1]
    order = torch.randperm(experts, generator=torch.Generator().manual_seed(seed))
    moved = Routing(order.argsort()[routing.experts], routing.weights, routing.logits[:, order])
    for cost in (load_balance, router_z):
        assert torch.allclose(cost(moved), cost(routing), rtol=1e-12)


@given(routing=routings().filter(lambda r: len(r.logits)), shift=st.sampled_from((-3.0, 5.0)))
def test_balance_leaves_the_size_of_gates_alone(routing: Routing, shift: float) -> None:
    """Its gradient has no part along "all logits of a token up", unlike that of the z-loss."""
    logits = routing.logits.clone().requires_grad_()
    load_balance(Routing(routing.experts, routing.weights, logits)).backward()
    assert (logits.grad.sum(1).abs() < 1e-12).all()
    louder = Routing(routing.experts, routing.weights, routing.logits + shift)
    assert torch.allclose(load_balance(louder), load_balance(routing), rtol=1e-12)
    assert router_z(louder) != router_z(routing)


def test_a_step_against_the_gradient_moves_tokens_to_the_idle() -> None:
    logits = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)) * 0.1
    logits[:, 1] += 0.2
    before = expert_counts(routed(logits), 4)
    for _ in range(20):
        leaf = logits.clone().requires_grad_()
        load_balance(routed(leaf)).backward()
        logits = logits - 20 * leaf.grad
    after = expert_counts(routed(logits), 4)
    assert int(before.max()) > 32
    assert int(after.max()) < int(before.max())


def test_what_needs_logits_says_so() -> None:
    routing = Routing(torch.zeros(3, 1, dtype=torch.int64), torch.ones(3, 1))
    with pytest.raises(TrainingError, match="balance needs the logits"):
        load_balance(routing)
    with pytest.raises(TrainingError, match="router_z_loss needs the logits"):
        router_z(routing)


def test_layers_without_experts_are_left_out() -> None:
    routing = routed(torch.zeros(2, 3))
    assert mixtures((None, routing, None)) == [routing]
