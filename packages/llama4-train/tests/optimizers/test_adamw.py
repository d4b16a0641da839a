"""AdamW against torch's own, and what it refuses."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from llama4_train.errors import RecipeError
from llama4_train.optimizers.adamw import adamw
from llama4_train.protocols import Parameter


def parameter(role, *shape, dtype=torch.float32):
    return Parameter(f"{role}.weight", nn.Parameter(torch.randn(shape, dtype=dtype)), role)


@given(st.integers(0, 99), st.sampled_from((0.0, 0.1, 0.5)), st.sampled_from((0.9, 0.99)))
def test_equals_torch(seed, decay, beta):
    """The same updates as torch's plain loop, decay only where it belongs."""
    torch.manual_seed(seed)
    ours = [parameter("matrix", 3, 4), parameter("embedding", 5, 4), parameter("experts", 2, 3, 4)]
    theirs = [nn.Parameter(one.value.detach().clone()) for one in ours]
    optimizer = adamw(ours, 0.02, betas=(0.9, beta), weight_decay=decay)
    expected = torch.optim.AdamW(
        [{"params": [theirs[0], theirs[2]]}, {"params": theirs[1:2], "weight_decay": 0.0}],
        lr=0.02,
        betas=(0.9, beta),
        weight_decay=decay,
        foreach=False,
        fused=False,
    )
    for _ in range(5):
        for one, other in zip(ours, theirs, strict=True):
            one.value.grad = torch.randn_like(one.value)
            other.grad = one.value.grad.clone()
        optimizer.step()
        expected.step()
    for one, other in zip(ours, theirs, strict=True):
        # The fused kernel multiplies in another order: some float32 roundings of numbers near 1.
        torch.testing.assert_close(one.value, other, rtol=0, atol=2e-6)


def test_the_first_step_by_hand():
    """Moments cancel in the first step: weights move by lr against the sign of the gradient."""
    one = Parameter("w", nn.Parameter(torch.tensor([[2.0, -3.0]], dtype=torch.float64)), "matrix")
    optimizer = adamw([one], 0.1, weight_decay=0.5)
    one.value.grad = torch.tensor([[4.0, 0.01]], dtype=torch.float64)
    optimizer.step()
    # 2 (1 - 0.05) - 0.1 and -3 (1 - 0.05) - 0.1; eps is 1e-8 beside a gradient of 1e-2.
    expected = torch.tensor([[1.8, -2.95]], dtype=torch.float64)
    torch.testing.assert_close(one.value.detach(), expected, rtol=0, atol=2e-7)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lr": -1.0}, "lr is -1.0; expected a number of at least 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"eps": -1e-8}, "eps is -1e-08"),
        ({"weight_decay": float("inf")}, "weight_decay is inf"),
        ({"betas": [0.9]}, r"betas has 1 numbers; expected two, such as \[0.9, 0.95\]"),
        ({"betas": [0.9, 1.0]}, "betas is 1.0; expected a number of at least 0 and below 1"),
    ],
)
def test_settings_out_of_range_are_named(settings, said):
    with pytest.raises(RecipeError, match=said):
        adamw([parameter("matrix", 2, 2)], **{"lr": 0.1, **settings})


def test_nothing_to_train_is_an_error():
    with pytest.raises(RecipeError, match=r"no parameter is trained; check the globs"):
        adamw([], 0.1)


def test_an_unknown_role_is_an_error():
    with pytest.raises(RecipeError, match=r"bias\.weight has the role 'bias'; expected one of"):
        adamw([parameter("bias", 2)], 0.1)
