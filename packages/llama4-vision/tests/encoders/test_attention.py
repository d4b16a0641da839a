"""Tiles as heads: what attention gives is what its definition gives tile by tile."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.attention.eager import EagerAttention
from llama4_core.errors import ComponentError
from llama4_core.plugins.catalogue import catalogue
from llama4_core.plugins.choose import Assembler
from llama4_core.plugins.overrides import Overrides
from llama4_vision.encoders.attention import EncoderAttention
from llama4_vision.testing.laws import fill


def made(places, heads, head_dim, overrides=None):
    parts = Assembler(catalogue(), Overrides(overrides or {}))
    attention = EncoderAttention(heads * head_dim, heads, places, parts)
    fill(attention)
    return attention


def written_out(attention, x):
    """Softmax over the places of each tile, in float64."""
    P, B, W = x.shape
    x = x.double()
    q, k, v = (
        (x @ p.weight.double().T + p.bias.double()).reshape(P, B, -1, attention.head_dim)
        for p in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    scores = torch.einsum("pbhk,sbhk->bhps", q, k) * attention.head_dim**-0.5
    mixed = torch.einsum("bhps,sbhk->pbhk", scores.softmax(-1), v).reshape(P, B, W)
    return mixed @ attention.o_proj.weight.double().T + attention.o_proj.bias.double()


@given(
    places=st.integers(1, 9),
    heads=st.integers(1, 3),
    head_dim=st.sampled_from((2, 8)),
    tiles=st.integers(1, 5),
    backend=st.sampled_from(("auto", "eager", "sdpa")),
    grad=st.booleans(),
)
def test_equals_the_definition(places, heads, head_dim, tiles, backend, grad):
    attention = made(places, heads, head_dim, {"backend": backend} if backend != "auto" else {})
    x = torch.randn(places, tiles, heads * head_dim)
    with torch.set_grad_enabled(grad):
        got = attention(x)
    # Sums of at most 24 float32 products, four times in a row.
    torch.testing.assert_close(got.double(), written_out(attention, x), rtol=1e-4, atol=1e-5)


class Noted:
    """The definition, with a note of what was planned."""

    differentiable_lse = False
    graph_safe = False

    def __init__(self):
        self.inner, self.batches = EagerAttention(), []

    def plan(self, batch):
        if batch.grad:
            raise ComponentError("no gradients here")
        self.batches.append(batch)
        return self.inner.plan(batch)

    def __call__(self, *arguments, **named):
        return self.inner(*arguments, **named)


def test_one_plan_of_one_tile_serves_any_number():
    noted = Noted()
    attention = made(5, 2, 4, {"backend": noted})
    with torch.no_grad():
        for tiles in (1, 4, 2):
            attention(torch.randn(5, tiles, 8))
    (batch,) = noted.batches
    assert [segment.query_length for segment in batch.segments] == [5]


def test_a_backend_that_cannot_plan_is_an_error_when_it_is_used():
    attention = made(3, 1, 4, {"backend": Noted()})
    x = torch.randn(3, 1, 4)
    with torch.no_grad():
        attention(x)
    with pytest.raises(ComponentError, match="no gradients here"):
        attention(x)
