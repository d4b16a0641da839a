"""Muon against torch's own, expert by expert, and against orthogonality itself."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from llama4_train.errors import RecipeError
from llama4_train.optimizers.muon import muon, orthogonalise
from llama4_train.protocols import Parameter

SHAPES = st.tuples(st.integers(1, 4), st.integers(2, 24), st.integers(2, 24))


def gradient(shape, generator):
    """Random matrices whose singular values are within a factor of ten of each other.

    Smaller ones would be in bfloat16's rounding of the larger, where nothing can be compared.
    """
    left, values, right = torch.linalg.svd(
        torch.randn(shape, generator=generator), full_matrices=False
    )
    values = values.clamp(min=0.1 * values.amax(-1, keepdim=True))
    return left @ torch.diag_embed(values) @ right


@given(SHAPES, st.integers(0, 99), st.sampled_from((0.0, 0.1)))
def test_a_stack_equals_torch_expert_by_expert(shape, seed, decay):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(shape, generator=generator)
    stack = Parameter("experts", nn.Parameter(weights.clone()), "experts")
    experts = [nn.Parameter(one.clone()) for one in weights]
    lr, steps = 0.02, 3
    ours = muon([stack], lr, weight_decay=decay)
    theirs = torch.optim.Muon(experts, lr=lr, weight_decay=decay, momentum=0.95)
    for _ in range(steps):
        stack.value.grad = gradient(shape, generator)
        for one, given_gradient in zip(experts, stack.value.grad, strict=True):
            one.grad = given_gradient.clone()
        ours.step()
        theirs.step()
    # torch iterates in bfloat16, ours in float32. Five rounds multiply a relative error of the
    # singular values by up to 3.4445 each while these are small, later they damp it; measured over
    # thousands of draws the two differ by less than a tenth of the step in Frobenius norm, where
    # one step is lr sqrt(max(1, out / in)) sqrt(min(out, in)).
    _, rows, columns = shape
    step = lr * math.sqrt(max(1.0, rows / columns)) * math.sqrt(min(rows, columns))
    for index, expected in enumerate(experts):
        off = (stack.value[index] - expected).norm()
        assert off <= 0.1 * steps * step, (float(off), step)


@given(SHAPES, st.integers(0, 99))
def test_singular_values_come_near_one(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    got = torch.linalg.svdvals(orthogonalise(gradient(shape, generator)))
    # The quintic maps [0.01, 1] into [0.68, 1.14] in five rounds.
    assert bool((got > 0.67).all())
    assert bool((got < 1.15).all())


@given(SHAPES, st.integers(0, 99))
def test_singular_vectors_stay(shape, seed):
    """``U f(S) V^T``: the result commutes with the gradient, on both sides."""
    generator = torch.Generator().manual_seed(seed)
    given_gradient = gradient(shape, generator).double()
    got = orthogonalise(given_gradient)
    both = got.mT @ given_gradient
    # Symmetric up to the rounding of float64 after five rounds of products.
    torch.testing.assert_close(both, both.mT, rtol=0, atol=1e-11)


@given(SHAPES, st.integers(0, 99), st.sampled_from((1e-3, 7.0, 1e4)))
def test_the_size_of_a_gradient_does_not_count(shape, seed, scale):
    generator = torch.Generator().manual_seed(seed)
    given_gradient = gradient(shape, generator).double()
    # float64: relative roundings of about 1e-16, multiplied by the five rounds.
    torch.testing.assert_close(
        orthogonalise(given_gradient * scale), orthogonalise(given_gradient), rtol=0, atol=1e-11
    )


def test_an_expert_without_tokens_does_not_move():
    stack = Parameter("experts", nn.Parameter(torch.randn(3, 4, 5)), "experts")
    before = stack.value.detach().clone()
    optimizer = muon([stack], 0.1)
    stack.value.grad = torch.randn(3, 4, 5)
    stack.value.grad[1] = 0
    optimizer.step()
    assert torch.equal(stack.value[1], before[1])
    assert not torch.equal(stack.value[0], before[0])


def test_one_step_of_a_multiple_of_the_identity_by_hand():
    """All singular values of ``3 I`` are ``1 / sqrt 2`` of its norm, wherever the quintic goes."""
    one = Parameter("w", nn.Parameter(torch.zeros(2, 2, dtype=torch.float64)), "matrix")
    optimizer = muon([one], 0.5, momentum=0.0)
    one.value.grad = 3 * torch.eye(2, dtype=torch.float64)
    optimizer.step()
    x = 0.5**0.5
    for _ in range(5):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    expected = -0.5 * x * torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(one.value.detach(), expected, rtol=0, atol=1e-12)


def test_other_roles_have_the_rate_of_adamw():
    both = [
        Parameter("a", nn.Parameter(torch.ones(2, 2)), "matrix"),
        Parameter("b", nn.Parameter(torch.ones(2)), "vector"),
        # A kernel of more than two axes is no matrix.
        Parameter("c", nn.Parameter(torch.ones(2, 2, 2, 2)), "matrix"),
    ]
    rates = {
        id(value): group["base_lr"]
        for group in muon(both, 0.02).param_groups
        for value in group["params"]
    }
    assert [rates[id(one.value)] for one in both] == [0.02, 0.002, 0.002]
    groups = muon(both, 0.02, adamw_lr=0.003).param_groups
    assert sorted({group["base_lr"] for group in groups}) == [0.003, 0.02]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"momentum": 1.0}, "momentum is 1.0; expected a number of at least 0 and below 1"),
        ({"adamw_lr": -0.1}, "adamw_lr is -0.1"),
        ({"lr": -0.1}, "^lr is -0.1"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"betas": [0.9]}, "betas has 1 numbers"),
    ],
)
def test_settings_out_of_range_are_named(settings, said):
    values = [
        Parameter("a", nn.Parameter(torch.ones(2, 2)), "matrix"),
        Parameter("b", nn.Parameter(torch.ones(2)), "vector"),
    ]
    with pytest.raises(RecipeError, match=said):
        muon(values, **{"lr": 0.1, **settings})
