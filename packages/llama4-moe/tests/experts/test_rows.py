"""Rows that are filled up change no number; gradients of banks are made once."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from llama4_core.protocols.routing import Routing
from llama4_core.protocols.weights import ExpertWeights
from llama4_moe.experts.grouped import GroupedExperts
from llama4_moe.experts.loop import LoopExperts
from llama4_moe.experts.padded import PaddedExperts
from llama4_moe.experts.rows import FILLED_ROWS, rows_multiple
from llama4_moe.testing.draws import ExpertCase, expert_cases

both = pytest.mark.parametrize("backend", [LoopExperts, PaddedExperts])


def results(backend, case, dtype):
    """Output and gradients of everything that has one."""
    x, routing, weights = case.build(dtype)
    leaves = [
        one.clone().requires_grad_() for one in (x, routing.weights, weights.gate_up, weights.down)
    ]
    bank = ExpertWeights(leaves[2], leaves[3])
    y = backend(leaves[0], Routing(routing.experts, leaves[1]), bank, weight_on=case.weight_on)
    (y.square().sum() + 0 * sum(leaf.sum() for leaf in leaves)).backward()
    return [y.detach(), *(leaf.grad for leaf in leaves)]


@both
@given(case=expert_cases(), multiple=st.sampled_from((2, 3, 64)))
def test_filled_rows_change_nothing(backend, case, multiple):
    plain = results(backend(multiple=1), case, torch.float64)
    full = results(backend(multiple=multiple), case, torch.float64)
    for one, two in zip(plain, full, strict=True):
        # Sums in another order, of numbers of float64.
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


@both
@given(case=expert_cases())
def test_filled_rows_in_bfloat16_round_as_before(backend, case):
    plain = results(backend(multiple=1), case, torch.bfloat16)
    full = results(backend(multiple=64), case, torch.bfloat16)
    for one, two in zip(plain, full, strict=True):
        # A sum in another order may round the other way: one step of 2^-8 of the largest, for each
        # of the three products on the way.
        scale = max(1.0, float(one.abs().max())) if one.numel() else 1.0
        torch.testing.assert_close(one / scale, two / scale, rtol=0, atol=3 * 2.0**-8)


class Products(TorchDispatchMode):
    """Numbers of rows that products of matrices ran with, and sizes of what was allocated."""

    def __init__(self):
        super().__init__()
        self.rows, self.made = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func)
        if "aten.mm" in name or "aten.bmm" in name:
            self.rows.append(args[0].shape[-2])
        out = func(*args, **(kwargs or {}))
        known = {one.untyped_storage().data_ptr() for one in args if isinstance(one, torch.Tensor)}
        if isinstance(out, torch.Tensor) and out.untyped_storage().data_ptr() not in known:
            self.made.append((name, out.numel()))  # neither a view of its input nor in place
        return out


@both
def test_no_product_meets_another_number_of_rows(backend):
    """Forward and backward: the rows of every product are a multiple, or a size of the weights."""
    case = ExpertCase(67, 4, 1, 16, 8, 0, "random", False, "input")
    with Products() as seen:
        results(backend(multiple=32), case, torch.float32)
    assert seen.rows
    assert all(rows % 32 == 0 or rows in (16, 8) for rows in seen.rows), seen.rows


def test_the_rule():
    narrow = torch.bfloat16
    assert rows_multiple(narrow, "cpu", emulated=False) == FILLED_ROWS == 64
    assert rows_multiple(narrow, "cpu", emulated=True) == 1
    assert rows_multiple(narrow, "cuda", emulated=False) == 1
    assert rows_multiple(torch.float32, "cpu", emulated=False) == 1


@pytest.mark.parametrize("backend", [LoopExperts, GroupedExperts, PaddedExperts])
def test_a_bank_gets_one_gradient_not_one_per_expert(backend):
    """What is allocated in the backward: each bank's gradient once, beside its experts' parts."""
    case = ExpertCase(40, 16, 1, 64, 32, 0, "random", False, "input")
    x, routing, weights = case.build(torch.float32)
    first, second = (one.clone().requires_grad_() for one in (weights.gate_up, weights.down))
    y = backend()(x, routing, ExpertWeights(first, second))
    with Products() as seen:
        y.backward(torch.ones_like(y))
    banks = first.numel() + second.numel()
    whole = [size for _, size in seen.made if size >= second.numel()]
    # A batched product gives its gradient transposed, and accumulating it makes one copy in order.
    assert sum(whole) <= (2 if backend is PaddedExperts else 1) * banks, seen.made
    # Parts that are stacked, and what is of the size of the tokens; a gradient of the whole bank
    # for each expert would be 16 of them.
    assert sum(size for _, size in seen.made) <= 4 * banks, seen.made
