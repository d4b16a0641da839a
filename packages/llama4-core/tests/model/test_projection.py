"""Projections give ``x W^T`` on every one of their ways."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.model import projection
from llama4_core.model.projection import Projection, project


@given(
    rows=st.sampled_from((0, 1, 2, 15, 16, 40)),
    outputs=st.sampled_from((1, 5, 512, 513)),
    transposed=st.booleans(),
    biased=st.booleans(),
    dtype=st.sampled_from((torch.bfloat16, torch.float32)),
    grad=st.booleans(),
    emulated=st.booleans(),
)
def test_equals_the_product(rows, outputs, transposed, biased, dtype, grad, emulated):
    source = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 24, generator=source).to(dtype)
    weight = torch.randn(outputs, 24, generator=source).to(dtype)
    if transposed:
        weight = weight.T.contiguous().T
    bias = torch.randn(outputs, generator=source).to(dtype) if biased else None
    with pytest.MonkeyPatch.context() as patch, torch.set_grad_enabled(grad):
        patch.setattr(projection, "EMULATED_BFLOAT16", emulated)
        got = project(x, weight, bias)
    assert got.dtype == dtype
    # One rounding of the result, relative to sums of 24 products of unit size.
    step = torch.finfo(dtype).eps
    want = x.double() @ weight.double().T
    want = (want if bias is None else want + bias.double()).to(dtype)
    torch.testing.assert_close(got, want, rtol=2 * step, atol=16 * step)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 5), (0, 2)])
def test_any_leading_shape(shape):
    layer = Projection(8, 6)
    assert layer.bias is None
    x = torch.randn(*shape, 8)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), x @ layer.weight.T)


def test_autocast():
    layer = Projection(8, 6)
    for rows in (1, 40):
        x = torch.randn(rows, 8)
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            got = layer(x)
        assert got.dtype == torch.bfloat16
        # bfloat16 inputs and one rounding: 2^-8 of sums of 8 products.
        torch.testing.assert_close(got.float(), (x @ layer.weight.T).detach(), rtol=0.02, atol=0.02)


@given(
    rows=st.sampled_from((16, 40)),
    outputs=st.sampled_from((5, 512, 700)),
    biased=st.booleans(),
    frozen=st.sampled_from(("nothing", "x", "weight")),
)
def test_widened_gradients_are_those_of_the_product(rows, outputs, biased, frozen):
    """On processors that emulate bfloat16, training multiplies in float32 too."""
    source = torch.Generator().manual_seed(1)
    drawn = [torch.randn(*shape, generator=source) for shape in ((rows, 24), (outputs, 24))]
    drawn += [torch.randn(outputs, generator=source)] if biased else []
    upstream = torch.randn(rows, outputs, generator=source).bfloat16()
    kept = [name != frozen for name in ("x", "weight", "bias")]
    found = []
    for dtype in (torch.bfloat16, torch.float64):
        leaves = [
            value.bfloat16().to(dtype).requires_grad_(grad)
            for value, grad in zip(drawn, kept, strict=False)
        ]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(projection, "EMULATED_BFLOAT16", True)
            project(*leaves).backward(upstream.to(dtype))
        found.append([leaf.grad for leaf in leaves])
    for got, want in zip(*found, strict=True):
        assert (got is None) == (want is None)
        if got is not None:
            # One rounding to bfloat16 of sums of up to 700 products of unit size.
            torch.testing.assert_close(got.double(), want, rtol=2**-7, atol=2**-7)
