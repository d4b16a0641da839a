"""FlexAttention, uncompiled: the same masks and score functions, without minutes of compiling."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask

from llama4_core.attention import flex as module
from llama4_core.attention.eager import EagerAttention
from llama4_core.attention.flex import FlexAttention
from llama4_core.errors import ComponentError
from llama4_core.protocols.attention import AttentionBatch, Segment
from llama4_core.protocols.masks import Causal, Chunked, SameDocument, SlidingWindow
from llama4_core.protocols.scores import DistanceBias, Sink, SoftCap

from .batches import SHAPES, Shape, batches, tensors

pytestmark = pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile.*")

eager, flex = EagerAttention(), FlexAttention(compiled=False)
CAUSAL = Causal() & SameDocument()


def check(batch, shape, seed, return_lse=False):
    score_tensors = {"sink": torch.linspace(-1, 2, shape.heads)}
    q, keys, values = tensors(batch, shape, seed)
    expected, expected_lse = eager(
        q,
        keys,
        values,
        eager.plan(batch),
        scale=0.4,
        return_lse=True,
        score_tensors=score_tensors,
    )
    result = flex(
        q,
        keys,
        values,
        flex.plan(batch),
        scale=0.4,
        return_lse=return_lse,
        score_tensors=score_tensors,
    )
    # float32, summed in another order.
    # float32, summed in another order
    assert torch.allclose(result[0] if return_lse else result, expected, atol=2e-5)
    if return_lse:
        assert torch.allclose(result[1], expected_lse, atol=2e-5)


@given(
    batches(),
    SHAPES,
    st.permutations(["cap", "bias", "sink"]),
    st.integers(0, 3),
    st.booleans(),
    st.integers(0, 2**16),
)
def test_flex_equals_eager(batch, shape, terms, number, return_lse, seed):
    made = {
        "cap": SoftCap(1.5),
        "bias": DistanceBias(tuple(0.01 * head for head in range(shape.heads))),
        "sink": Sink(),
    }
    batch = replace(batch, score_terms=tuple(made[name] for name in terms[:number]))
    check(batch, shape, seed, return_lse)


@dataclass(frozen=True)
class Prefix:
    """Everyone sees the first ``size`` positions, and what came before themselves."""

    size: int

    def visible(self, query, key):
        return (key.position < self.size) | (key.position <= query.position)

    def horizon(self, position):
        return 0


@pytest.mark.parametrize("layout", ["flat", "head_major"])
def test_a_mask_of_a_third_party(layout):
    second = 0 if layout == "head_major" else 200
    batch = AttentionBatch(
        (Segment(0, 200, 0, 200), Segment(60, 80, 0, 140, slot=2, key_offset=second)),
        Prefix(70),
        key_layout=layout,
    )
    check(batch, Shape(2, 1, 8), 0, return_lse=True)


@pytest.mark.parametrize("mask", [CAUSAL, CAUSAL & Chunked(300), CAUSAL & SlidingWindow(290)])
@pytest.mark.parametrize("past", [0, 130])
def test_the_block_mask_is_torchs_own(mask, past):
    """Which blocks are empty, partial and full, against the S * S construction."""
    segments = (Segment(past, 700, 0, past + 700), Segment(0, 200, 0, 200, key_offset=past + 700))
    batch = AttentionBatch(segments, mask)
    plan = flex.plan(batch)
    ours = plan.block_mask
    T, S = batch.tokens, past + 900
    torchs = create_block_mask(ours.mask_mod, 1, None, T, S, device="cpu")
    assert torch.equal(ours.to_dense(), torchs.to_dense())
    # A block may be called partial although it is full (documents that share a query block, the
    # ragged end), never full although it is not.
    full = [
        {
            (row, int(column))
            for row, count in enumerate(x.full_kv_num_blocks[0, 0])
            for column in x.full_kv_indices[0, 0, row, :count]
        }
        for x in (ours, torchs)
    ]
    assert full[0] <= full[1]
    assert full[0]


def test_longer_than_a_block():
    batch = AttentionBatch(
        (Segment(100, 300, 0, 400), Segment(0, 150, 0, 150, key_offset=400)), CAUSAL & Chunked(256)
    )
    check(batch, Shape(2, 1, 8), 0, return_lse=True)


class TestRefusals:
    batch = AttentionBatch((Segment(0, 2, 0, 2),), CAUSAL)

    def test_gradients_on_a_cpu(self):
        with pytest.raises(ComponentError, match=r"no backward on CPU.*eager"):
            flex.plan(replace(self.batch, grad=True))
        q, keys, values = tensors(self.batch, Shape(2, 1, 4))
        with pytest.raises(ComponentError, match="require grad"):
            flex(q.requires_grad_(), keys, values, flex.plan(self.batch), scale=1.0)

    def test_no_compiler(self, monkeypatch):
        monkeypatch.setattr(module, "compiler", lambda: None)
        with pytest.raises(ComponentError, match="install g"):
            FlexAttention().plan(self.batch)
        flex.plan(self.batch)

    def test_an_unknown_score_term(self):
        with pytest.raises(ComponentError, match="Odd"):
            flex.plan(replace(self.batch, score_terms=(type("Odd", (), {})(),)))


@pytest.mark.slow
def test_compiled():
    batch = AttentionBatch((Segment(0, 300, 0, 300),), CAUSAL & Chunked(128))
    q, keys, values = tensors(batch, Shape(4, 2, 16))
    compiled = FlexAttention()
    output = compiled(q, keys, values, compiled.plan(batch), scale=0.25)
    expected = eager(q, keys, values, eager.plan(batch), scale=0.25)
    assert torch.allclose(output, expected, atol=2e-5)  # float32, summed in another order
