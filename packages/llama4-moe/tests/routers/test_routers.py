"""Routers choose, weigh and break ties as they say (properties 17, 18, 19, 20, 22)."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.errors import SpecError
from llama4_core.protocols.routing import RoutingInfo
from llama4_moe.plugin import ROUTERS
from llama4_moe.routers.selection import largest
from llama4_moe.routers.sigmoid import BalancedSigmoidTopK, SigmoidTopK
from llama4_moe.routers.softmax import SoftmaxTopK

every_router = pytest.mark.parametrize("component", ROUTERS, ids=lambda component: component.name)
sizes = st.tuples(st.integers(0, 20), st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31))
INFO = RoutingInfo()


def build(component, size, dtype=torch.float32):
    tokens, experts, top_k, seed = size
    torch.manual_seed(seed)
    router = component.build(8, experts, min(top_k, experts)).to(dtype)
    return router, torch.randn(tokens, 8).to(dtype)


@every_router
@given(size=sizes, dtype=st.sampled_from((torch.float32, torch.bfloat16)))
def test_ids_are_valid_and_weights_finite(component, size, dtype):
    router, x = build(component, size, dtype)
    routing = router(x, INFO)
    experts, top_k = size[1], min(size[2], size[1])
    assert routing.experts.shape == routing.weights.shape == (x.shape[0], top_k)
    assert routing.experts.dtype == torch.int64
    assert routing.weights.dtype == routing.logits.dtype == torch.float32
    assert ((routing.experts >= 0) & (routing.experts < experts)).all()
    assert all(len(set(row)) == top_k for row in routing.experts.tolist())
    assert routing.weights.isfinite().all()
    assert (routing.weights > 0).all()


@every_router
@given(size=sizes)
def test_permuting_tokens_and_experts(component, size):
    router, x = build(component, size)
    routing = router(x, INFO)
    rows, places = torch.randperm(x.shape[0]), torch.randperm(size[1])
    permuted = component.build(8, size[1], min(size[2], size[1]))
    permuted.load_state_dict({name: value[places] for name, value in router.state_dict().items()})
    again = permuted(x[rows], INFO)
    # Ties are broken by the id, which a relabelling changes; the weights are the same either way.
    torch.testing.assert_close(again.weights, routing.weights[rows], rtol=1e-5, atol=1e-6)
    gaps = routing.logits.sort(dim=1).values.diff(dim=1)
    if (gaps > 1e-5).all():
        assert torch.equal(places[again.experts], routing.experts[rows])


@given(
    tokens=st.integers(0, 9),
    experts=st.integers(1, 24),
    seed=st.integers(0, 2**31),
    levels=st.sampled_from((1, 2, 5)),
    extreme=st.booleans(),
)
def test_ties_go_to_the_lowest_id(tokens, experts, seed, levels, extreme):
    source = torch.Generator().manual_seed(seed)
    scores = torch.randint(levels, (tokens, experts), generator=source).float()
    if extreme:
        scores = torch.where(scores == 0, float("-inf"), scores)
    for count in (1, (experts + 1) // 2, experts):
        want = [
            sorted(range(experts), key=lambda each, row=row: (-row[each], each))[:count]
            for row in scores.tolist()
        ]
        assert largest(scores, count).tolist() == want


def test_sigmoid_gates_are_not_renormalised():
    router, x = build(ROUTERS[0], (6, 5, 2, 0))
    routing = router(x, INFO)
    logits = x @ router.weight.T
    torch.testing.assert_close(
        routing.weights, logits.gather(1, routing.experts).sigmoid(), rtol=1e-6, atol=1e-6
    )


@given(size=sizes)
def test_softmax_gates(size):
    tokens, experts, top_k, _ = size
    router = SoftmaxTopK(8, experts, min(top_k, experts))
    x = torch.randn(tokens, 8)
    routing = router(x, INFO)
    want = (x @ router.weight.T).softmax(dim=1).gather(1, routing.experts)
    torch.testing.assert_close(routing.weights, want, rtol=1e-5, atol=1e-6)
    router.renormalise = True
    scaled = router(x, INFO).weights
    torch.testing.assert_close(scaled.sum(dim=1), torch.ones(tokens), rtol=1e-5, atol=1e-6)


def test_the_balancing_bias_chooses_and_never_weighs():
    router = BalancedSigmoidTopK(8, 4, 1)
    x = torch.randn(50, 8)
    router.bias.copy_(torch.tensor([0.0, 0.0, 5.0, 0.0]))  # above every sigmoid: always chosen
    routing = router(x, INFO)
    assert (routing.experts == 2).all()
    want = (x @ router.weight.T)[:, 2:3].sigmoid()
    torch.testing.assert_close(routing.weights, want, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(routing.logits, x @ router.weight.T, rtol=1e-5, atol=1e-6)


def test_balancing_evens_the_load():
    torch.manual_seed(0)
    router = BalancedSigmoidTopK(8, 4, 1, rate=0.01)
    x = torch.randn(400, 8) + 6 * router.weight[0].detach()  # expert 0 is everybody's favourite

    def load():
        return torch.bincount(router(x, INFO).experts.flatten(), minlength=4)

    before = load()
    for _ in range(200):
        router.after_step(load())
    assert before.max() > 150
    assert load().max() < 120  # 100 is even


def test_balancing_moves_against_the_load_and_resumes_exactly():
    router = BalancedSigmoidTopK(8, 3, 1, rate=0.25)
    router.after_step(torch.tensor([6, 3, 0]))
    assert router.bias.tolist() == [-0.25, 0.0, 0.25]
    again = BalancedSigmoidTopK(8, 3, 1, rate=0.25)
    again.load_state_dict(router.state_dict())
    for each in (router, again):
        each.after_step(torch.tensor([0, 9, 0]))
    assert torch.equal(router.bias, again.bias)


def test_the_bias_stays_float32_when_the_model_is_converted():
    router = BalancedSigmoidTopK(8, 3, 1)
    router.bias.fill_(0.001)
    router.to(torch.bfloat16)
    assert router.weight.dtype == torch.bfloat16
    assert router.bias.dtype == torch.float32
    assert router.bias.tolist() == torch.full((3,), 0.001).tolist()


def test_logits_are_float32_products_of_bfloat16_tokens():
    router, x = build(ROUTERS[0], (40, 6, 1, 0), torch.bfloat16)
    want = x.double() @ router.weight.double().T
    got = router(x, INFO).logits.double()
    # Eight float32 products; a bfloat16 result would be off by up to 4e-3 of its size.
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_impossible_top_k():
    with pytest.raises(SpecError, match=r"top_k is 4; expected 1 to .* 3"):
        SigmoidTopK(8, 3, 4)


@given(
    size=sizes,
    scale=st.sampled_from((1e-3, 1.0, 100.0)),  # at 100 nearly every sigmoid is 0 or 1
    steps=st.integers(1, 9),
)
def test_released_to_zero_it_is_llama_4s_router(size, scale, steps):
    plain, x = build(ROUTERS[0], size)
    balanced, _ = build(ROUTERS[1], size)
    for left in range(steps, 0, -1):
        balanced.after_step(torch.randint(9, (size[1],)))
        balanced.release((left - 1) / left)
    got, want = balanced(scale * x, INFO), plain(scale * x, INFO)
    assert torch.equal(got.experts, want.experts)
    assert torch.equal(got.weights, want.weights)
    # By bits: a negative zero would be one, too.
    assert balanced.bias.numpy().tobytes() == bytes(4 * size[1])


def test_a_bias_is_released_in_equal_parts():
    router = BalancedSigmoidTopK(8, 2, 1)
    router.bias.copy_(torch.tensor([0.5, -0.25]))
    for left in (4, 3, 2, 1):
        router.release((left - 1) / left)
        # Four products in float32.
        want = torch.tensor([0.5, -0.25]) * (left - 1) / 4
        torch.testing.assert_close(router.bias, want, rtol=1e-6, atol=0)


@pytest.mark.parametrize("rate", [-0.1, float("nan"), float("inf"), True, "0.1"])
def test_impossible_rate(rate):
    with pytest.raises(SpecError, match=r"rate is .*; expected a number"):
        BalancedSigmoidTopK(8, 3, 1, rate=rate)
