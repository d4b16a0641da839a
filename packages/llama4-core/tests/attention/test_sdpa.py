"""The default backend against the oracle, and what it promises beside equal numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from llama4_core.attention.eager import EagerAttention
from llama4_core.attention.sdpa import SdpaAttention, widest_head
from llama4_core.errors import ComponentError, ContextError
from llama4_core.protocols.attention import AttentionBatch, Segment
from llama4_core.protocols.masks import Causal, Chunked, Everything, SameDocument, SlidingWindow
from llama4_core.protocols.scores import Sink, SoftCap

from .batches import SHAPES, Shape, batches, tensors

eager, sdpa = EagerAttention(), SdpaAttention()
CAUSAL = Causal() & SameDocument()

# Both round q k and the weighted sum in the dtype's own precision, in another order; a merge of
# two calls rounds their outputs once more. Half precision: the oracle computes in float32.
TOLERANCES = {
    torch.float32: 2e-5,
    torch.float64: 1e-6,  # merged through float64 log-sum-exps, returned as float32
    torch.bfloat16: 4e-2,
    torch.float16: 5e-3,
}


def check(batch, q, keys, values, return_lse, score_tensors=None):
    expected, expected_lse = eager(
        q,
        keys,
        values,
        eager.plan(batch),
        scale=0.4,
        return_lse=True,
        score_tensors=score_tensors,
    )
    result = sdpa(
        q,
        keys,
        values,
        sdpa.plan(batch),
        scale=0.4,
        return_lse=return_lse,
        score_tensors=score_tensors,
    )
    output, lse = result if return_lse else (result, None)
    tolerance = TOLERANCES[q.dtype]
    assert output.dtype == q.dtype
    assert (output - expected).abs().max() <= tolerance
    if lse is not None:
        assert lse.dtype == torch.float32
        assert (lse - expected_lse).abs().max() <= max(2e-5, tolerance / 8)


@given(
    batches(),
    SHAPES,
    st.sampled_from(list(TOLERANCES)),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**16),
)
def test_sdpa_equals_eager(batch, shape, dtype, return_lse, sink, seed):
    q, keys, values = tensors(batch, shape, seed, dtype)
    score_tensors = None
    if sink:
        batch = replace(batch, score_terms=(Sink(),))
        score_tensors = {"sink": torch.linspace(-1, 2, shape.heads)}
    check(batch, q, keys, values, return_lse, score_tensors)


@given(batches(past=False, layouts=("flat",), most=3), SHAPES, st.integers(0, 2**16))
def test_gradients_equal_the_oracles(batch, shape, seed):
    batch = replace(batch, grad=True)
    inputs = [x.requires_grad_() for x in tensors(batch, shape, seed, torch.float64)]
    expected = eager(*inputs, eager.plan(batch), scale=0.4)
    output = sdpa(*inputs, sdpa.plan(batch), scale=0.4)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).reshape(output.shape)
    wanted = torch.autograd.grad((expected * weights).sum(), inputs)
    found = torch.autograd.grad((output * weights).sum(), inputs)
    for one, two in zip(found, wanted, strict=True):
        assert torch.allclose(one, two, atol=1e-10)  # float64 throughout


@given(batches(past=False, layouts=("flat",), most=3), SHAPES, st.integers(0, 2**16))
def test_training_in_bfloat16_is_as_exact_as_float32_can_make_it(batch, shape, seed):
    """Computed wide, output and gradients are the float64 ones of the inputs, rounded once."""
    batch = replace(batch, grad=True)
    narrow = [x.requires_grad_() for x in tensors(batch, shape, seed, torch.bfloat16)]
    exact = [x.detach().double().requires_grad_() for x in narrow]
    results = []
    for backend, inputs in ((eager, exact), (SdpaAttention(), narrow), (SdpaAttention(0), narrow)):
        output = backend(*inputs, backend.plan(batch), scale=0.4)
        assert output.dtype == inputs[0].dtype
        weights = torch.linspace(-1, 1, output.numel()).bfloat16().reshape(output.shape)
        found = torch.autograd.grad(output, inputs, weights.to(output.dtype))
        results.append([output.detach().double(), *(one.double() for one in found)])
    for want, wide, plain in zip(*results, strict=True):
        step = 2.0**-8 * want.abs() + 1e-5  # half a step of bfloat16, and float32's own rounding
        assert ((wide - want).abs() <= step).all()
        assert (wide - want).norm() <= (plain - want).norm() + 1e-5 * want.norm() + 1e-5


def test_only_training_in_bfloat16_is_widened():
    """Dtypes of the kernel's inputs: nothing else, and no head beyond the limit, changes."""
    batch = AttentionBatch((Segment(0, 5, 0, 5),), CAUSAL, grad=True)
    seen = []

    class Kernels(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if "scaled_dot_product" in str(func):
                seen.append(args[0].dtype)
            return func(*args, **(kwargs or {}))

    def runs(widen, dtype, trained):
        inputs = [x.requires_grad_(trained) for x in tensors(batch, Shape(2, 1, 8), 0, dtype)]
        backend = SdpaAttention(widen)
        with Kernels():
            backend(*inputs, backend.plan(batch), scale=0.4)
        return seen.pop()

    assert runs(8, torch.bfloat16, True) == torch.float32
    assert runs(7, torch.bfloat16, True) == torch.bfloat16
    assert runs(8, torch.bfloat16, False) == torch.bfloat16
    assert runs(8, torch.float16, True) == torch.float16
    assert widest_head(emulated=True) >= 128
    assert 64 <= widest_head(emulated=False) < 128


def test_gradcheck():
    mask = CAUSAL & Chunked(3)
    batch = AttentionBatch(
        (Segment(0, 4, 0, 4), Segment(0, 2, 0, 2, key_offset=4)), mask, grad=True
    )
    inputs = [x.requires_grad_() for x in tensors(batch, Shape(2, 1, 3), dtype=torch.float64)]
    plan = sdpa.plan(batch)
    assert torch.autograd.gradcheck(lambda *x: sdpa(*x, plan, scale=0.7), inputs)


@given(batches(), st.integers(0, 2**16))
def test_cache_entries_outside_the_slices_are_not_read(batch, seed):
    """With one segment to a call nothing around its keys is touched: NaN there does no harm."""
    shape = Shape(4, 2, 8)
    for segment in batch.segments:
        alone = replace(batch, segments=(replace(segment, key_offset=2),), key_layout="head_major")
        q, keys, values = tensors(alone, shape, seed, fill=float("nan"))
        output = sdpa(q, keys, values, sdpa.plan(alone), scale=0.4)
        assert torch.isfinite(output).all()


def test_rows_of_one_length_read_nothing_around_their_keys():
    found = tuple(Segment(6, 1, 0, 7, slot=slot, key_offset=1) for slot in (1, 2, 3))
    batch = AttentionBatch(found, CAUSAL, key_layout="head_major")
    q, keys, values = tensors(batch, Shape(4, 2, 8), fill=float("nan"))
    assert torch.isfinite(sdpa(q, keys, values, sdpa.plan(batch), scale=0.4)).all()


@given(batches(), st.integers(0, 2**16))
def test_a_segment_alone_equals_itself_in_a_batch(batch, seed):
    shape = Shape(5, 1, 8)
    q, keys, values = tensors(batch, shape, seed)
    together = sdpa(q, keys, values, sdpa.plan(batch), scale=0.4)
    row = 0
    for segment in batch.segments:
        alone = replace(batch, segments=(segment,))
        stop = row + segment.query_length
        output = sdpa(q[row:stop], keys, values, sdpa.plan(alone), scale=0.4)
        # Padding changes how the kernel blocks its sums, by a rounding.
        assert (output - together[row:stop]).abs().max() <= 2e-6
        row = stop


@given(batches(), SHAPES, st.booleans(), st.sampled_from([-1, -2]), st.integers(0, 2**16))
def test_strides_do_not_matter(batch, shape, return_lse, dim, seed):
    q, keys, values = tensors(batch, shape, seed)
    apart = [torch.stack([x, x + 1], dim=-1 if dim == -1 else 1) for x in (q, keys, values)]
    q, keys, values = (x[..., 0] if dim == -1 else x[:, 0] for x in apart)
    check(batch, q, keys, values, return_lse)


@given(st.integers(0, 2**16), st.integers(1, 23))
def test_later_tokens_change_nothing_before_them(seed, changed):
    batch = AttentionBatch((Segment(0, 24, 0, 24),), CAUSAL & Chunked(16))
    q, keys, values = tensors(batch, Shape(4, 2, 8), seed)
    plan = sdpa.plan(batch)
    before = sdpa(q, keys, values, plan, scale=0.4)
    q[changed:] += 1
    keys[changed:] += 1
    values[changed:] -= 3
    after = sdpa(q, keys, values, plan, scale=0.4)
    assert torch.equal(before[:changed], after[:changed])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chunks_in_the_batch_are_bit_equal_to_the_masked_form(dtype):
    length, chunk = 1024, 256
    batch = AttentionBatch((Segment(0, length, 0, length),), CAUSAL & Chunked(chunk))
    q, keys, values = tensors(batch, Shape(5, 1, 16), dtype=dtype)
    output = sdpa(q, keys, values, sdpa.plan(batch), scale=0.25)
    at = torch.arange(length)
    mask = (at[:, None] >= at) & (at[:, None] // chunk == at // chunk)
    masked = F.scaled_dot_product_attention(
        *(x.transpose(0, 1)[None] for x in (q, keys, values)),
        attn_mask=mask,
        scale=0.25,
        enable_gqa=True,
    )
    assert torch.equal(output, masked[0].transpose(0, 1))


class Largest(TorchDispatchMode):
    """Records the storage of the largest tensor that any operation made anew."""

    def __init__(self):
        super().__init__()
        self.elements, self.calls = 0, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if "attention" in str(function):
            self.calls.append([tuple(x.shape) for x in args[:3]])
        inputs = {x.untyped_storage().data_ptr() for x in args if isinstance(x, torch.Tensor)}
        for made in result if isinstance(result, tuple) else (result,):
            if isinstance(made, torch.Tensor):
                storage = made.untyped_storage()
                if storage.data_ptr() not in inputs:
                    self.elements = max(self.elements, storage.nbytes() // made.element_size())
        return result


@pytest.mark.parametrize(
    "mask", [CAUSAL, CAUSAL & Chunked(512), CAUSAL & SlidingWindow(100), Everything()]
)
@pytest.mark.parametrize("past", [0, 2048])
def test_nothing_of_the_size_of_queries_times_keys_is_made(mask, past):
    shape, length = Shape(4, 2, 8), 2048
    batch = AttentionBatch((Segment(past, length, 0, past + length),), mask)
    q, keys, values = tensors(batch, shape)
    with Largest() as largest:
        sdpa(q, keys, values, sdpa.plan(batch), scale=0.4)
    # The queries, or a window's band: far below T * S = 4,194,304 or more.
    assert largest.elements <= max(q.numel(), 256 * 355)
    assert len(largest.calls) <= 3


def test_decode_is_one_call_on_a_slice_with_the_groups_as_rows():
    found = tuple(Segment(40, 1, 0, 41, slot=slot) for slot in (2, 3, 4))
    batch = AttentionBatch(found, CAUSAL, key_layout="head_major")
    q, keys, values = tensors(batch, Shape(10, 2, 8))
    plan = sdpa.plan(batch)
    with Largest() as largest:
        sdpa(q, keys, values, plan, scale=0.4)
    assert largest.calls == [[(3, 2, 5, 8), (3, 2, 41, 8), (3, 2, 41, 8)]]
    assert largest.elements <= q.numel()  # no copy of keys


def test_ragged_decode_is_one_padded_call():
    found = tuple(Segment(n, 1, 0, n + 1, slot=slot) for slot, n in enumerate((40, 22, 31)))
    batch = AttentionBatch(found, CAUSAL, key_layout="head_major")
    q, keys, values = tensors(batch, Shape(10, 2, 8))
    with Largest() as largest:
        sdpa(q, keys, values, sdpa.plan(batch), scale=0.4)
    assert [call[1] for call in largest.calls] == [(3, 2, 41, 8)]


def test_short_documents_share_calls():
    found, offset = [], 0
    for number in range(200):
        length = 1 + number % 30
        found.append(Segment(0, length, 0, length, key_offset=offset))
        offset += length
    batch = AttentionBatch(tuple(found), CAUSAL)
    plan = sdpa.plan(batch)
    assert len(plan.first.calls) == 1
    check(batch, *tensors(batch, Shape(4, 2, 8)), return_lse=True)


def test_the_device_call_compiles_into_one_graph():
    batch = AttentionBatch(
        (Segment(5, 3, 0, 8, slot=0), Segment(9, 1, 0, 10, slot=1), Segment(0, 4, 0, 4, slot=3)),
        CAUSAL & Chunked(6),
        (Sink(),),
        key_layout="head_major",
    )
    q, keys, values = tensors(batch, Shape(4, 2, 8))
    plan, sink = sdpa.plan(batch), {"sink": torch.zeros(4)}

    def run(q, keys, values):
        return sdpa(q, keys, values, plan, scale=0.4, return_lse=True, score_tensors=sink)

    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    for one, two in zip(compiled(q, keys, values), run(q, keys, values), strict=True):
        assert torch.allclose(one, two, atol=1e-6)  # a few float32 roundings


def test_the_plan_may_be_an_argument_of_the_compiled_call():
    compiled = torch.compile(sdpa.__call__, backend="aot_eager", fullgraph=True)
    for length in (7, 9):
        batch = AttentionBatch((Segment(0, length, 0, length),), CAUSAL & Chunked(4))
        q, keys, values = tensors(batch, Shape(4, 2, 8))
        plan = sdpa.plan(batch)
        expected = sdpa(q, keys, values, plan, scale=0.4)
        # a few float32 roundings
        assert torch.allclose(compiled(q, keys, values, plan, scale=0.4), expected, atol=1e-6)


def test_no_tokens():
    q, keys = torch.zeros(0, 4, 8), torch.zeros(0, 2, 8)
    for backend in (sdpa, eager):
        plan = backend.plan(AttentionBatch((), CAUSAL))
        output, lse = backend(q, keys, keys, plan, scale=1.0, return_lse=True)
        assert output.shape == (0, 4, 8)
        assert lse.shape == (0, 4)


class TestRefusals:
    def test_score_terms_other_than_a_sink(self):
        with pytest.raises(ComponentError, match=r"SoftCap.*use eager or flex"):
            sdpa.plan(AttentionBatch((Segment(0, 1, 0, 1),), CAUSAL, (SoftCap(3.0),)))

    def test_gradients_behind_cached_keys(self):
        batch = AttentionBatch((Segment(2, 2, 0, 4),), CAUSAL, grad=True)
        with pytest.raises(ComponentError, match=r"cached keys.*use the eager"):
            sdpa.plan(batch)
        quiet = replace(batch, grad=False)
        q, keys, values = tensors(quiet, Shape(2, 1, 4))
        with pytest.raises(ComponentError, match=r"require grad.*eager"):
            sdpa(q.requires_grad_(), keys, values, sdpa.plan(quiet), scale=1.0)
        with torch.no_grad():
            sdpa(q, keys, values, sdpa.plan(quiet), scale=1.0)

    def test_gradients_of_a_log_sum_exp_or_a_sink(self):
        batch = AttentionBatch((Segment(0, 2, 0, 2),), CAUSAL)
        q, keys, values = tensors(batch, Shape(2, 1, 4))
        with pytest.raises(ComponentError, match="require grad"):
            sdpa(q.requires_grad_(), keys, values, sdpa.plan(batch), scale=1.0, return_lse=True)
        batch = replace(batch, score_terms=(Sink(),))
        sink = {"sink": torch.zeros(2, requires_grad=True)}
        with pytest.raises(ComponentError, match="Sink"):
            sdpa(q.detach(), keys, values, sdpa.plan(batch), scale=1.0, score_tensors=sink)

    def test_a_stream_that_was_not_planned(self):
        plan = sdpa.plan(AttentionBatch((Segment(0, 3, 0, 3),), CAUSAL))
        x = torch.zeros(2, 1, 4)
        with pytest.raises(ContextError, match="N = 3"):
            sdpa(x, x, x, plan, scale=1.0)

    def test_a_paged_layout(self):
        with pytest.raises(ContextError, match="paged"):
            sdpa.plan(AttentionBatch((Segment(0, 1, 0, 1),), CAUSAL, key_layout="paged"))
