"""Float32 copies of narrow weights."""

import copy

import pytest
import torch
from torch import nn

from llama4_train.errors import TrainingError
from llama4_train.optimizers.adamw import adamw
from llama4_train.optimizers.muon import muon
from llama4_train.protocols import Parameter


def mixed():
    """A narrow matrix, a wide vector, a double embedding."""
    return [
        Parameter("a", nn.Parameter(torch.ones(2, 2, dtype=torch.bfloat16)), "matrix"),
        Parameter("b", nn.Parameter(torch.ones(2)), "vector"),
        Parameter("c", nn.Parameter(torch.ones(2, 2, dtype=torch.float64)), "embedding"),
    ]


@pytest.mark.parametrize("build", [adamw, muon])
def test_only_narrow_weights_are_copied(build):
    """Float32 needs no second copy, and float64 would lose half of its digits in one."""
    parameters = mixed()
    held = [value for group in build(parameters, 0.1).param_groups for value in group["params"]]
    assert {id(one.value) for one in parameters[1:]} <= {id(value) for value in held}
    assert sorted(str(value.dtype) for value in held) == [
        "torch.float32",
        "torch.float32",
        "torch.float64",
    ]


def test_weights_of_any_width_step_together():
    parameters = mixed()
    optimizer = adamw(parameters, 0.125, weight_decay=0.0)
    for one in parameters:
        one.value.grad = torch.ones_like(one.value)
    optimizer.step()
    optimizer.zero_grad()
    for one in parameters:
        assert one.value.grad is None
        # The first step of AdamW is the rate itself, but for eps: 1 - 0.125 is exact in all.
        torch.testing.assert_close(
            one.value.detach(), torch.full_like(one.value, 0.875), rtol=0, atol=1e-6
        )


def test_float16_has_copies_too():
    one = Parameter("a", nn.Parameter(torch.ones(2, 2, dtype=torch.float16)), "matrix")
    optimizer = adamw([one], 1e-4, weight_decay=0.0)
    for _ in range(20):
        one.value.grad = torch.ones_like(one.value)
        optimizer.step()
    # A step of float16 below 1 is 2^-11, about 5e-4: each of these steps alone is rounded away.
    torch.testing.assert_close(one.value.float(), torch.full((2, 2), 0.998), rtol=0, atol=2.5e-4)


def test_without_masters_there_are_none():
    parameters = mixed()[:1]
    (group,) = adamw(parameters, 0.1, masters=False).param_groups
    assert group["params"][0] is parameters[0].value


def test_the_state_of_other_weights_is_refused_and_changes_nothing():
    ours, other = mixed(), mixed()
    other[0] = Parameter("a", nn.Parameter(torch.zeros(3, dtype=torch.bfloat16)), "matrix")
    optimizer = adamw(ours, 0.1)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(TrainingError, match=r"copies of 1 weights \(\[3\]\); expected 1 weights"):
        optimizer.load_state_dict(adamw(other, 0.1).state_dict())
    with pytest.raises(TrainingError, match="copies of no weights; expected 1 weights"):
        optimizer.load_state_dict(adamw(mixed()[1:], 0.1).state_dict())
    assert torch.equal(ours[0].value, torch.ones(2, 2, dtype=torch.bfloat16))
    assert str(optimizer.state_dict()) == str(before)


def test_the_state_of_another_optimizer_is_refused():
    values = mixed()[1:]
    with pytest.raises(TrainingError, match="state is of 0 optimizers; expected 1"):
        muon(values, 0.1).load_state_dict(adamw(values, 0.1).state_dict())
