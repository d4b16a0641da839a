"""Expert backends agree with the sentence that defines them (properties 17, 18, 23, 25, 26, 28)."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.errors import ComponentError
from llama4_core.protocols.routing import Routing
from llama4_core.protocols.weights import ExpertWeights, PackedWeight
from llama4_moe.experts.arithmetic import ACTIVATIONS
from llama4_moe.plugin import EXPERT_BACKENDS
from llama4_moe.testing.draws import ExpertCase, expert_cases

BACKENDS = {component.name: component.build() for component in EXPERT_BACKENDS}
every_backend = pytest.mark.parametrize("name", BACKENDS)

# Sums of at most 24 float32 products, twice, and of at most 3 experts: a few steps of 6e-8.
CLOSE = {"rtol": 2e-5, "atol": 2e-5}


def reference(x, routing, weights, weight_on, activation=torch.nn.functional.silu):
    """The definition, token by token and expert by expert."""
    rows = []
    for token in range(x.shape[0]):
        row = torch.zeros_like(x[token])
        for number, gate in zip(routing.experts[token], routing.weights[token], strict=True):
            if number < 0:
                continue
            gate = gate.to(x.dtype)
            seen = gate * x[token] if weight_on == "input" else x[token]
            first, second = (weights.gate_up[number] @ seen).chunk(2)
            out = weights.down[number] @ (activation(first) * second)
            row = row + (out if weight_on == "input" else gate * out)
        rows.append(row)
    return torch.stack(rows) if rows else x


@every_backend
@given(case=expert_cases(), grad=st.booleans())
def test_equals_the_definition(name, case, grad):
    x, routing, weights = case.build()
    with torch.set_grad_enabled(grad):
        got = BACKENDS[name](x, routing, weights, weight_on=case.weight_on)
    want = reference(x, routing, weights, case.weight_on)
    assert got.dtype == x.dtype
    torch.testing.assert_close(got, want, **CLOSE)


@every_backend
@given(case=expert_cases())
def test_bfloat16_stays_near_the_definition(name, case):
    x, routing, weights = case.build(torch.bfloat16)
    wide = ExpertWeights(weights.gate_up.float(), weights.down.float())
    want = reference(x.float(), routing, wide, case.weight_on)
    with torch.inference_mode():
        got = BACKENDS[name](x, routing, weights, weight_on=case.weight_on).float()
    # Three roundings to 8 bits on the way, relative to the largest value.
    if got.numel():
        assert (got - want).abs().max() <= 0.03 * max(1.0, float(want.abs().max()))


@every_backend
@given(case=expert_cases())
def test_permuting_experts_and_tokens_changes_nothing_else(name, case):
    x, routing, weights = case.build()
    source = torch.Generator().manual_seed(case.seed)
    places = torch.randperm(case.experts, generator=source)
    moved = ExpertWeights(weights.gate_up[places], weights.down[places])
    where = torch.cat([places.argsort(), torch.tensor([-1])])  # the last serves ids of -1
    rows = torch.randperm(case.tokens, generator=source)
    relabelled = Routing(where[routing.experts][rows], routing.weights[rows])
    call = BACKENDS[name]
    got = call(x[rows], relabelled, moved, weight_on=case.weight_on)
    want = call(x, routing, weights, weight_on=case.weight_on)[rows]
    torch.testing.assert_close(got, want, **CLOSE)


@every_backend
@given(case=expert_cases())
def test_weight_zero_equals_absence(name, case):
    x, routing, weights = case.build()
    call = BACKENDS[name]
    silent = Routing(routing.experts.clamp(min=0), torch.zeros_like(routing.weights))
    got = call(x, silent, weights, weight_on=case.weight_on)
    assert torch.equal(got, torch.zeros_like(x))


@every_backend
@given(case=expert_cases())
def test_dispatch_and_combine_are_inverse(name, case):
    """Experts that compute ``silu(c) / silu(c) * x``: the weighted tokens come back in place."""
    x, routing, _ = case.build()
    D, E = case.hidden, case.experts
    # relu(1 * x) * 1 ... with an identity bank and relu the gate equals the token where positive:
    # relu(x) * x is x squared there, for every expert alike.
    eye = torch.eye(D)
    weights = ExpertWeights(torch.cat([eye, eye]).repeat(E, 1, 1), eye.repeat(E, 1, 1))
    component = next(each for each in EXPERT_BACKENDS if each.name == name)
    unit = Routing(routing.experts, (routing.experts >= 0).float())
    got = component.build(activation="relu")(x, unit, weights, weight_on=case.weight_on)
    visits = (routing.experts >= 0).sum(dim=1, keepdim=True)
    torch.testing.assert_close(got, visits * x.relu().square(), **CLOSE)


@every_backend
@given(case=expert_cases())
def test_gradients_equal_those_of_the_definition(name, case):
    x, routing, weights = case.build()
    results = []
    for call in (BACKENDS[name], reference):
        leaves = [
            value.clone().requires_grad_()
            for value in (x, routing.weights, weights.gate_up, weights.down)
        ]
        routed = Routing(routing.experts, leaves[1])
        args = (leaves[0], routed, ExpertWeights(leaves[2], leaves[3]))
        y = call(*args, weight_on=case.weight_on)
        # `sum` of a square: the gradient is not an expanded scalar and differs per element.
        (y.square().sum() + 0 * sum(leaf.sum() for leaf in leaves)).backward()
        results.append([leaf.grad for leaf in leaves])
    absent = routing.experts < 0
    for mine, theirs in zip(*results, strict=True):
        assert mine.isfinite().all()
        if mine.shape == routing.weights.shape:  # a weight that is no weight has no gradient
            mine, theirs = mine.masked_fill(absent, 0), theirs.masked_fill(absent, 0)
        scale = max(1.0, float(theirs.abs().max())) if theirs.numel() else 1.0
        # Sums over up to 33 tokens, relative to the largest.
        torch.testing.assert_close(mine / scale, theirs / scale, **CLOSE)


@pytest.mark.parametrize("name", ["loop", "padded-bmm", "dense"])  # grouped has no float64
@pytest.mark.parametrize("weight_on", ["input", "output"])
def test_gradcheck_in_double(name, weight_on):
    case = ExpertCase(5, 3, 2, 8, 8, 1, "some to none", False, weight_on)
    x, routing, weights = case.build(torch.float64)

    def call(x, gates, gate_up, down):
        gates = gates.masked_fill(routing.experts < 0, 0)
        bank = ExpertWeights(gate_up, down)
        return BACKENDS[name](x, Routing(routing.experts, gates), bank, weight_on=weight_on)

    leaves = [
        value.clone().requires_grad_()
        for value in (x, routing.weights, weights.gate_up, weights.down)
    ]
    assert torch.autograd.gradcheck(call, leaves)


@every_backend
def test_gradient_that_is_an_expanded_scalar(name):
    """``.sum().backward()`` hands torch's grouped product a gradient without strides."""
    x, routing, weights = ExpertCase(4, 2, 1, 8, 8, 0, "random", False, "input").build()
    bank = ExpertWeights(weights.gate_up.requires_grad_(), weights.down.requires_grad_())
    BACKENDS[name](x, routing, bank, weight_on="input").sum().backward()
    assert bank.gate_up.grad is not None
    assert bank.gate_up.grad.abs().sum() > 0


@every_backend
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(name, activation):
    case = ExpertCase(9, 3, 2, 8, 16, 3, "random", False, "output")
    x, routing, weights = case.build()
    component = next(each for each in EXPERT_BACKENDS if each.name == name)
    got = component.build(activation=activation)(x, routing, weights, weight_on="output")
    want = reference(x, routing, weights, "output", ACTIVATIONS[activation])
    torch.testing.assert_close(got, want, **CLOSE)


@every_backend
def test_packed_weights_are_refused_by_name(name):
    x, routing, weights = ExpertCase(2, 2, 1, 8, 8, 0, "random", False, "input").build()
    packed = PackedWeight("int4", {}, (2, 16, 8))
    bank = dataclasses.replace(weights, gate_up=packed)
    with pytest.raises(ComponentError, match=f"'{name}'.*'int4'"):
        BACKENDS[name](x, routing, bank)
