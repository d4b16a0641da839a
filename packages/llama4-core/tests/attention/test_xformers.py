"""The xformers backend without a GPU: its biases, and what it hands to the kernel."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.attention import support
from llama4_core.attention.eager import EagerAttention
from llama4_core.attention.xformers_backend import XformersAttention
from llama4_core.errors import ComponentError
from llama4_core.protocols.attention import AttentionBatch, Segment
from llama4_core.protocols.masks import (
    Causal,
    Chunked,
    Everything,
    Place,
    SameDocument,
    SlidingWindow,
)
from llama4_core.protocols.scores import Sink

from .batches import SHAPES, SIZES, Shape, batches, tensors

pytest.importorskip("xformers", reason="its bias classes are what is tested")
from xformers.ops import fmha

eager, backend = EagerAttention(), XformersAttention()
CAUSAL = Causal() & SameDocument()


class Emulation:
    """Stands in for the kernel: records its arguments and computes with the materialised bias."""

    def __init__(self):
        self.calls = []

    def partial(self, q, k, v, bias, *, scale):
        self.calls.append((q, k, v, bias, scale))
        heads = tuple(q.shape[2:-1])
        rows = [x[0].flatten(1, -2).transpose(0, 1).float() for x in (q, k, v)]
        seen = bias.materialize((1, 1, q.shape[1], k.shape[1]))[0, 0]
        # Entries of a cache that the bias hides may hold anything, NaN too: a kernel that is told
        # where each block ends never reads them.
        rows[1] = rows[1].masked_fill(torch.isinf(seen).all(0)[None, :, None], 0.0)
        rows[2] = rows[2].masked_fill(torch.isinf(seen).all(0)[None, :, None], 0.0)
        scores = scale * rows[0] @ rows[1].transpose(1, 2) + seen
        output = (scores.softmax(-1) @ rows[2]).transpose(0, 1).unflatten(1, heads)
        return output[None].to(q.dtype), scores.logsumexp(-1).unflatten(0, heads)[None]

    def whole(self, q, k, v, bias, *, scale):
        return self.partial(q, k, v, bias, scale=scale)[0]


@pytest.fixture
def emulation(monkeypatch):
    return install(monkeypatch)


def install(monkeypatch):
    found = Emulation()
    monkeypatch.setattr(fmha, "memory_efficient_attention", found.whole)
    monkeypatch.setattr(fmha, "memory_efficient_attention_partial", found.partial)
    return found


@st.composite
def chunked(draw, **kwargs):
    batch = draw(batches(**kwargs))
    mask = CAUSAL & Chunked(draw(SIZES)) if draw(st.booleans()) else CAUSAL
    return replace(batch, mask=mask)


@given(chunked(), SHAPES, st.booleans(), st.integers(0, 2**16))
def test_the_emulated_kernel_equals_eager(batch, shape, return_lse, seed):
    with pytest.MonkeyPatch.context() as monkeypatch:
        install(monkeypatch)
        q, keys, values = tensors(batch, shape, seed, fill=float("nan"))
        plan = backend.plan(batch)
        expected = eager(q, keys, values, eager.plan(batch), scale=0.4, return_lse=True)
        found = backend(q, keys, values, plan, scale=0.4, return_lse=return_lse)
        for one, two in zip(found if return_lse else (found,), expected, strict=False):
            assert torch.allclose(one, two, atol=2e-5)  # float32, summed in another order


@given(chunked(layouts=("flat",)))
def test_flat_biases_are_the_masks(batch):
    plan = backend.plan(batch)
    total = sum(segment.key_length for segment in batch.segments)
    index = torch.arange(total) if plan.index is None else plan.index
    seen = plan.bias.materialize((1, 1, batch.tokens, len(index)))[0, 0] == 0
    expected, row = torch.zeros(batch.tokens, total, dtype=torch.bool), 0
    for segment in batch.segments:
        stop = row + segment.query_length
        query = torch.arange(segment.query_length)[:, None] + segment.query_start
        key = torch.arange(segment.key_length)[None, :] + segment.key_start
        expected[row:stop, segment.key_offset : segment.key_offset + segment.key_length] = (
            batch.mask.visible(
                Place(query, torch.zeros_like(query)), Place(key, torch.zeros_like(key))
            )
        )
        row = stop
    found = torch.zeros_like(expected)
    found[:, index] = seen
    assert torch.equal(found, expected)


def test_a_packed_prefill_goes_in_as_it_is(emulation):
    batch = AttentionBatch(
        (Segment(0, 10, 0, 10), Segment(0, 3, 0, 3, key_offset=10)), CAUSAL & Chunked(4)
    )
    q, keys, values = tensors(batch, Shape(10, 2, 8))
    plan = backend.plan(batch)
    backend(q, keys, values, plan, scale=0.3)
    (q5, k5, v5, bias, scale) = emulation.calls[0]
    assert type(bias).__name__ == "BlockDiagonalCausalMask"
    assert bias.q_seqinfo.seqstart_py == [0, 4, 8, 10, 13]
    assert scale == 0.3
    assert tuple(q5.shape) == (1, 13, 2, 5, 8)
    assert tuple(k5.shape) == tuple(v5.shape) == (1, 13, 2, 5, 8)
    # Grouped keys are expanded, not copied, and the last dimension is dense.
    assert k5.stride()[3:] == (0, 1)
    assert k5.data_ptr() == keys.data_ptr()
    assert q5.data_ptr() == q.data_ptr()


def test_continuing_behind_cached_keys_is_aligned_at_the_bottom_right():
    batch = AttentionBatch((Segment(5, 4, 0, 9), Segment(2, 1, 0, 3, key_offset=9)), CAUSAL)
    plan = backend.plan(batch)
    assert type(plan.bias).__name__ == "BlockDiagonalCausalFromBottomRightMask"
    assert plan.index is None


def test_decode_reads_the_cache_in_place(emulation):
    found = tuple(Segment(n, 1, 0, n + 1, slot=slot) for slot, n in enumerate((6, 9, 2)))
    batch = AttentionBatch(found, CAUSAL, key_layout="head_major")
    q, keys, values = tensors(batch, Shape(10, 2, 8))
    plan = backend.plan(batch)
    for _ in range(2):  # two layers share one bias
        backend(q, keys, values, plan, scale=0.3)
    (q5, k5, _, bias, _), (*_, other, _) = emulation.calls
    assert bias is other
    slots, _, length, _ = keys.shape
    assert tuple(q5.shape) == (1, 6, 1, 5, 8)
    assert tuple(k5.shape) == (1, slots * 2 * length, 1, 5, 8)
    assert k5.data_ptr() == keys.data_ptr()
    assert q5.data_ptr() == q.data_ptr()
    assert list(bias.k_seqinfo.seqlen_py) == [7, 7, 10, 10, 3, 3]


def test_gradients_get_repeated_keys_since_the_grouped_form_has_no_backward(emulation):
    batch = AttentionBatch((Segment(0, 6, 0, 6),), CAUSAL, grad=True)
    inputs = [x.requires_grad_() for x in tensors(batch, Shape(4, 2, 8))]
    output = backend(*inputs, backend.plan(batch), scale=0.3)
    assert emulation.calls[0][1].dim() == 4
    expected = eager(*inputs, eager.plan(batch), scale=0.3)
    for one, two in zip(
        torch.autograd.grad(output.sum(), inputs),
        torch.autograd.grad(expected.sum(), inputs),
        strict=True,
    ):
        assert torch.allclose(one, two, atol=2e-5)  # float32, summed in another order
    with pytest.raises(ComponentError, match="require grad"):
        backend(*inputs, backend.plan(batch), scale=0.3, return_lse=True)


@pytest.mark.parametrize("mask", [CAUSAL & SlidingWindow(4), Everything()])
def test_masks_that_do_not_fit_are_refused(mask):
    with pytest.raises(ComponentError, match="use sdpa or eager"):
        backend.plan(AttentionBatch((Segment(0, 1, 0, 1),), mask))


def test_other_refusals(monkeypatch):
    segment = Segment(0, 1, 0, 1)
    with pytest.raises(ComponentError, match="Sink"):
        backend.plan(AttentionBatch((segment,), CAUSAL, (Sink(),)))
    with pytest.raises(ComponentError, match="no backward"):
        backend.plan(AttentionBatch((segment,), CAUSAL, key_layout="head_major", grad=True))
    monkeypatch.setattr(support.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ComponentError, match="pip install"):
        backend.plan(AttentionBatch((segment,), CAUSAL))


def test_the_module_itself_imports_without_xformers(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "xformers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "llama4_core.attention.xformers_backend")
    import llama4_core.attention.xformers_backend as module

    assert "xformers" not in sys.modules
    assert module.XformersAttention is not XformersAttention
