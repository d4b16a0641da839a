"""Merging attention over two sets of keys by log-sum-exp."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.attention.eager import EagerAttention
from llama4_core.attention.merge import merge
from llama4_core.errors import ComponentError
from llama4_core.protocols.attention import AttentionBatch, Segment
from llama4_core.protocols.masks import Everything

eager = EagerAttention()


def attend(q, keys, values, return_lse=True):
    batch = AttentionBatch((Segment(0, len(q), 0, len(keys)),), Everything())
    return eager(q, keys, values, batch, scale=0.5, return_lse=return_lse)


def three(one, two, seed=0, grad=False):
    generator = torch.Generator().manual_seed(seed)
    sizes = [(3, 4, 8), (one + two, 2, 8), (one + two, 2, 8)]
    return [
        torch.randn(size, generator=generator, dtype=torch.float64).requires_grad_(grad)
        for size in sizes
    ]


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**16))
def test_two_halves_make_the_whole(one, two, seed):
    q, keys, values = three(one, two, seed)
    whole, lse = attend(q, keys, values)
    merged, total = merge(
        *attend(q, keys[:one], values[:one]), *attend(q, keys[one:], values[one:])
    )
    # The log-sum-exps are float32, so the weights carry its rounding.
    assert torch.allclose(merged, whole, atol=2e-6)
    assert torch.allclose(total, lse, atol=2e-6)
    assert merged.dtype == whole.dtype


def test_a_side_without_keys_changes_nothing():
    q, keys, values = three(4, 0)
    output, lse = attend(q, keys, values)
    nothing, minus = torch.zeros_like(output), torch.full_like(lse, float("-inf"))
    merged, total = merge(output, lse, nothing, minus)
    assert torch.equal(merged, output)
    assert torch.equal(total, lse)
    merged, total = merge(nothing, minus, nothing, minus)
    assert torch.equal(merged, nothing)
    assert torch.equal(total, minus)


def test_gradients_are_refused_unless_declared():
    q, keys, values = three(3, 4, grad=True)
    halves = (*attend(q, keys[:3], values[:3]), *attend(q, keys[3:], values[3:]))
    with pytest.raises(ComponentError, match=r"require grad.*eager"):
        merge(*halves)
    with torch.no_grad():
        merge(*halves)
    merged, _ = merge(*halves, differentiable_lse=True)
    found = torch.autograd.grad(merged.square().sum(), (q, keys, values))
    whole = attend(q, keys, values, return_lse=False)
    expected = torch.autograd.grad(whole.square().sum(), (q, keys, values))
    for one, two in zip(found, expected, strict=True):
        assert torch.allclose(one, two, atol=1e-5)  # through float32 log-sum-exps
