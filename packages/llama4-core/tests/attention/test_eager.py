"""The oracle against the formula, one number at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.attention.eager import EagerAttention, segment_keys
from llama4_core.errors import ContextError
from llama4_core.protocols.attention import AttentionBatch, Segment
from llama4_core.protocols.masks import Causal, Place, SameDocument
from llama4_core.protocols.scores import DistanceBias, Sink, SoftCap

from .batches import SHAPES, Shape, batches, tensors

eager = EagerAttention()


def by_hand(batch, q, keys, values, scale, cap=None, slopes=None, sink=None):
    """Output and log-sum-exp with Python floats."""
    outputs, sums, row = [], [], 0
    for segment in batch.segments:
        k = segment_keys(keys, segment, batch.key_layout)
        v = segment_keys(values, segment, batch.key_layout)
        for i in range(segment.query_length):
            at = segment.query_start + i
            for head in range(q.shape[1]):
                group = head // (q.shape[1] // k.shape[0])
                total, mixed = 0.0, torch.zeros(q.shape[2], dtype=torch.float64)
                for j in range(segment.key_length):
                    key_at = segment.key_start + j
                    if not batch.mask.visible(Place(at, 0), Place(key_at, 0)):
                        continue
                    score = scale * float(q[row, head] @ k[group, j])
                    if cap is not None:
                        score = cap * math.tanh(score / cap)
                    if slopes is not None:
                        score -= slopes[head] * (at - key_at)
                    total += math.exp(score)
                    mixed += math.exp(score) * v[group, j]
                if sink is not None:
                    total += math.exp(float(sink[head]))
                outputs.append(mixed / total)
                sums.append(math.log(total))
            row += 1
    shape = q.shape
    return torch.stack(outputs).reshape(shape), torch.tensor(sums).reshape(shape[:2])


@given(batches(most=2), st.integers(0, 2**16), st.sets(st.sampled_from("cbs")))
def test_eager_is_the_formula(batch, seed, terms):
    shape = Shape(4, 2, 4)
    q, keys, values = tensors(batch, shape, seed, dtype=torch.float64)
    slopes, sink = (0.1, 0.02, 0.3, 0.0), torch.tensor([0.5, -1.0, 3.0, 0.0])
    chosen = ()
    if "c" in terms:
        chosen += (SoftCap(1.5),)
    if "b" in terms:
        chosen += (DistanceBias(slopes),)
    if "s" in terms:
        chosen += (Sink(),)
    batch = AttentionBatch(batch.segments, batch.mask, chosen, batch.key_layout)
    output, lse = eager(
        q,
        keys,
        values,
        eager.plan(batch),
        scale=0.6,
        return_lse=True,
        score_tensors={"sink": sink.double()},
    )
    expected, expected_lse = by_hand(
        batch,
        q,
        keys,
        values,
        0.6,
        1.5 if "c" in terms else None,
        slopes if "b" in terms else None,
        sink if "s" in terms else None,
    )
    # Both sum the same float64 terms in another order; lse is rounded to float32.
    assert torch.allclose(output, expected, rtol=1e-11, atol=1e-11)
    assert torch.allclose(lse, expected_lse.float(), rtol=1e-6, atol=1e-6)
    assert lse.dtype == torch.float32


@dataclass(frozen=True)
class Never:
    """The empty mask: reachable only through a third party's mask."""

    def visible(self, query, key):
        return (query.position < 0) & (key.position < 0)

    def horizon(self, position):
        return 0


@pytest.mark.parametrize("sink", [False, True])
def test_a_query_without_keys_gets_zero_and_no_nan(sink):
    batch = AttentionBatch((Segment(0, 3, 0, 3),), Never(), (Sink(),) if sink else ())
    q = torch.randn(3, 2, 4, requires_grad=True)
    keys = torch.randn(3, 1, 4, requires_grad=True)
    tensors = {"sink": torch.tensor([1.0, 2.0])}
    output, lse = eager(
        q, keys, keys, eager.plan(batch), scale=1.0, return_lse=True, score_tensors=tensors
    )
    assert torch.equal(output, torch.zeros_like(output))
    expected = tensors["sink"].expand(3, 2) if sink else torch.full((3, 2), float("-inf"))
    assert torch.allclose(lse, expected)
    output.sum().backward()
    assert torch.isfinite(q.grad).all()
    assert torch.isfinite(keys.grad).all()


@given(batches(most=2), SHAPES, st.integers(0, 2**16))
def test_the_gradient_of_the_log_sum_exp_is_the_mean_key(batch, shape, seed):
    q, keys, values = tensors(batch, shape, seed, dtype=torch.float64)
    q.requires_grad_()
    plan = eager.plan(batch)
    _, lse = eager(q, keys, values, plan, scale=0.5, return_lse=True)
    (found,) = torch.autograd.grad(lse.sum(), q)
    # d lse / d q = scale * sum_j softmax_j k_j: attention with the keys as values.
    mean = 0.5 * eager(q.detach(), keys, keys, plan, scale=0.5)
    assert torch.allclose(found, mean, atol=1e-6)  # lse passes through float32


def test_gradients_in_float64():
    batch = AttentionBatch(
        (Segment(3, 2, 0, 5), Segment(0, 2, 0, 2, key_offset=5)),
        Causal() & SameDocument(),
        (SoftCap(2.0), DistanceBias((0.1, 0.2)), Sink()),
    )
    q, keys, values = tensors(batch, Shape(2, 1, 3), dtype=torch.float64)
    sink = torch.tensor([0.3, -0.2], dtype=torch.float64)
    plan = eager.plan(batch)
    inputs = tuple(x.requires_grad_() for x in (q, keys, values, sink))

    def run(q, keys, values, sink):
        return eager(q, keys, values, plan, scale=0.7, score_tensors={"sink": sink})

    assert torch.autograd.gradcheck(run, inputs)


def test_a_stream_that_was_not_planned_is_refused():
    plan = eager.plan(AttentionBatch((Segment(0, 3, 0, 3),), Causal()))
    with pytest.raises(ContextError, match=r"N = 3"):
        eager(torch.zeros(2, 1, 4), torch.zeros(3, 1, 4), torch.zeros(3, 1, 4), plan, scale=1.0)


def test_a_paged_layout_is_refused():
    with pytest.raises(ContextError, match=r"'paged'.*expected 'flat' or 'head_major'"):
        eager.plan(AttentionBatch((Segment(0, 1, 0, 1),), Causal(), key_layout="paged"))
