"""Statistics and auxiliary losses of returned routings (properties 20, 21, 24, 27)."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.errors import ComponentError
from llama4_core.protocols.routing import Routing, RoutingInfo
from llama4_moe import statistics
from llama4_moe.routers.softmax import SoftmaxTopK
from llama4_moe.testing.draws import expert_cases


def routed(seed, tokens=24, experts=6, top_k=2):
    torch.manual_seed(seed)
    return SoftmaxTopK(8, experts, top_k)(torch.randn(tokens, 8), RoutingInfo())


@given(case=expert_cases())
def test_counts_are_conserved(case):
    _, routing, _ = case.build()
    report = statistics.report(routing, case.experts)
    assert int(report.counts.sum()) + report.none == case.tokens * case.top_k
    assert report.counts.tolist() == [
        int((routing.experts == each).sum()) for each in range(case.experts)
    ]
    assert set(report.dead) == {e for e in range(case.experts) if report.counts[e] == 0}
    assert -1e-6 <= report.entropy <= 1 + 1e-6
    together = statistics.co_activation(routing, case.experts)
    assert torch.equal(together, together.T)
    assert torch.equal(together.diagonal(), report.counts)


def test_report_of_known_routings():
    even = statistics.report(Routing(torch.arange(8)[:, None] % 4, torch.ones(8, 1)), 4)
    assert even.entropy == pytest.approx(1)
    assert even.imbalance == pytest.approx(1)
    ids = torch.zeros(8, 1, dtype=torch.int64)
    drops = torch.tensor([1] * 3 + [0] * 5)
    hot = statistics.report(Routing(ids, torch.ones(8, 1), drops=drops), 4)
    assert hot.entropy == pytest.approx(0)
    assert hot.imbalance == pytest.approx(4)
    assert hot.dead == (1, 2, 3)
    assert hot.drops == 3


@given(seed=st.integers(0, 2**31), top_k=st.integers(1, 3))
def test_load_balance_loss(seed, top_k):
    routing = routed(seed, top_k=top_k)
    loss = statistics.load_balance_loss(routing, 6)
    places = torch.randperm(6)
    ids = places.argsort()[routing.experts]
    relabelled = Routing(ids, routing.weights, routing.logits[:, places])
    torch.testing.assert_close(statistics.load_balance_loss(relabelled, 6), loss)
    assert loss.isfinite()
    assert 0 < loss <= 6


@given(experts=st.integers(1, 8), seed=st.integers(0, 2**31))
def test_load_balance_loss_is_least_when_even(experts, seed):
    ids = torch.arange(4 * experts)[:, None] % experts
    even = Routing(ids, torch.ones_like(ids).float(), torch.zeros(4 * experts, experts))
    assert float(statistics.load_balance_loss(even, experts)) == pytest.approx(1)
    # Loads that follow the probabilities: the loss is E sum p^2, at least 1.
    p = torch.rand(experts, generator=torch.Generator().manual_seed(seed)).softmax(0)
    shares = (p * 10_000).round().long()
    skewed_ids = torch.repeat_interleave(torch.arange(experts), shares)[:, None]
    logits = p.log().expand(skewed_ids.shape[0], experts)
    skewed = Routing(skewed_ids, torch.ones_like(skewed_ids).float(), logits)
    # Rounding the shares to 1/10,000 shifts the sum by at most that times E.
    assert float(statistics.load_balance_loss(skewed, experts)) >= 1 - 1e-4 * experts


def test_losses_have_finite_gradients_even_for_large_logits():
    logits = torch.tensor([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    ids = torch.tensor([[0], [1]])
    routing = Routing(ids, torch.ones(2, 1), logits)
    (statistics.z_loss(routing) + statistics.load_balance_loss(routing, 3)).backward()
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().sum() > 0


def test_z_loss_value():
    routing = Routing(torch.zeros(2, 1).long(), torch.ones(2, 1), torch.zeros(2, 4))
    assert float(statistics.z_loss(routing)) == pytest.approx(float(torch.tensor(4.0).log() ** 2))


def test_losses_need_logits():
    with pytest.raises(ComponentError, match="needs the router's logits"):
        statistics.z_loss(Routing(torch.zeros(1, 1).long(), torch.ones(1, 1)))
