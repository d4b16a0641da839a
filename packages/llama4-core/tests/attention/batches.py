"""Random attention batches and the tensors that go with them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from hypothesis import strategies as st

from llama4_core.protocols.attention import AttentionBatch, Segment
from llama4_core.protocols.masks import (
    Causal,
    Chunked,
    Everything,
    Mask,
    SameDocument,
    SlidingWindow,
)

SIZES = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 16, 33])


@st.composite
def masks(draw, causal=None) -> Mask:
    mask: Mask = SameDocument()
    if draw(st.booleans()) if causal is None else causal:
        mask = mask & Causal()
    else:
        mask = mask & Everything()
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        mask = mask & Chunked(draw(SIZES))
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        mask = mask & SlidingWindow(draw(SIZES))
    return mask


@st.composite
def segments(draw, longest=24, past=True) -> Segment:
    length = draw(st.one_of(st.just(1), st.integers(1, longest)))
    before = draw(st.integers(0, longest)) if past else 0
    key_start = draw(st.integers(0, 40)) if past else 0
    return Segment(
        query_start=key_start + before,
        query_length=length,
        key_start=key_start,
        key_length=before + length,
    )


@dataclass(frozen=True)
class Shape:
    heads: int
    kv_heads: int
    head_dim: int


SHAPES = st.sampled_from(
    [Shape(1, 1, 8), Shape(5, 1, 8), Shape(10, 2, 8), Shape(3, 3, 4), Shape(6, 2, 16)]
)


@st.composite
def batches(draw, past=True, causal=None, layouts=("flat", "head_major"), most=5):
    found = draw(st.lists(segments(past=past), min_size=1, max_size=most))
    if draw(st.booleans()):  # equal documents: the path that takes views
        found = [found[0]] * len(found)
    layout = draw(st.sampled_from(layouts))
    placed, offset = [], 0
    slots = list(range(len(found) + 2))
    if draw(st.booleans()):
        slots = draw(st.permutations(slots))
    for number, segment in enumerate(found):
        if layout == "flat":
            placed.append(replace(segment, key_offset=offset))
            offset += segment.key_length
        else:
            at = draw(st.sampled_from([0, 0, 3]))
            placed.append(replace(segment, slot=slots[number], key_offset=at))
    return AttentionBatch(tuple(placed), draw(masks(causal=causal)), key_layout=layout)


def tensors(batch, shape, seed=0, dtype=torch.float32, fill=37.0):
    """q, keys and values; cache entries that no segment names hold ``fill``."""
    generator = torch.Generator().manual_seed(seed)

    def random(*sizes):
        return torch.randn(*sizes, generator=generator, dtype=torch.float64).to(dtype)

    q = random(batch.tokens, shape.heads, shape.head_dim)
    if batch.key_layout == "flat":
        total = sum(segment.key_length for segment in batch.segments)
        size = (total, shape.kv_heads, shape.head_dim)
        return q, random(*size), random(*size)
    slots = max(segment.slot for segment in batch.segments) + 2
    length = max(segment.key_offset + segment.key_length for segment in batch.segments) + 2
    size = (slots, shape.kv_heads, length, shape.head_dim)
    keys, values = torch.full(size, fill, dtype=dtype), torch.full(size, fill, dtype=dtype)
    for segment in batch.segments:
        stop = segment.key_offset + segment.key_length
        block = (shape.kv_heads, segment.key_length, shape.head_dim)
        keys[segment.slot, :, segment.key_offset : stop] = random(*block)
        values[segment.slot, :, segment.key_offset : stop] = random(*block)
    return q, keys, values
