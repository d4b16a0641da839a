"""Attention through ``xformers.ops.memory_efficient_attention``, for CUDA devices.

Not run on a GPU yet. What is tested without one: the biases that the planning code builds are
materialised and compared with the masks' ``visible``, and a recorder in place of the kernel checks
shapes, strides and scale, and the numbers with the materialised bias.

Llama 4's chunks are blocks: ``BlockDiagonalCausalMask`` over the pieces. (xformers' "local
attention" is a sliding window, which is something else.) The module imports without xformers;
planning imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from llama4_core.attention.eager import check_layout, check_queries
from llama4_core.attention.merge import refuse_gradient
from llama4_core.attention.pieces import pieces_of
from llama4_core.attention.support import xformers_missing
from llama4_core.errors import ComponentError
from llama4_core.protocols.attention import AttentionBatch
from llama4_core.protocols.masks import kinds_of


@dataclass(frozen=True)
class Block:
    """One block of the diagonal: the last of its keys belongs to the last of its queries.

    Attributes:
        queries: number of queries; the blocks follow each other in the stream.
        slot, key, keys: where its keys lie, and how many.
    """

    queries: int
    slot: int
    key: int
    keys: int


@dataclass(frozen=True)
class HeadMajorBias:
    """What depends on the cache's shape, made for the first layer of a forward.

    Attributes:
        bias: over blocks (piece, kv head) and all entries of the cache, as one stream.
        order: for each row of that query stream its (query, kv head) row; None if the same.
        back: the inverse.
    """

    bias: Any
    order: Tensor | None
    back: Tensor | None


@dataclass(frozen=True)
class XformersPlan:
    """What :class:`XformersAttention` computes for one batch.

    Attributes:
        tokens: number of queries, N.
        layout: of the keys.
        blocks: of all pieces, in stream order.
        bias: for flat keys.
        index: which flat keys the bias is over; None when it is all of them, in order.
        device: of the batch.
        made: head-major biases by the cache's (kv heads, entries).
    """

    tokens: int
    layout: str
    blocks: tuple[Block, ...]
    bias: Any
    index: Tensor | None
    device: str
    made: dict[tuple[int, int, int], HeadMajorBias] = field(default_factory=dict)


class XformersAttention:
    """Causal, chunked and document-packed attention on CUDA.

    Grouped heads go to the kernel as ``[1, N, G, R, K]`` without repeating keys, except where
    gradients are wanted: its grouped form is forward only, so keys are repeated then.
    """

    differentiable_lse = False
    graph_safe = False

    def plan(self, batch: AttentionBatch) -> XformersPlan:
        """Turns the batch into a block-diagonal bias.

        Raises:
            ContextError: the key layout is neither "flat" nor "head_major".
            ComponentError: xformers cannot be used, or a mask or score term does not fit it.
        """
        check_layout(batch.key_layout)
        biases = _biases()
        kinds = kinds_of(batch.mask)
        if batch.score_terms or "Causal" not in kinds or "SlidingWindow" in kinds:
            raise ComponentError(
                f"the xformers backend got {batch.mask!r} with score terms {batch.score_terms!r}; "
                "expected Causal, with Chunked and SameDocument at most, and no score terms: use "
                "sdpa or eager"
            )
        if batch.grad and batch.key_layout == "head_major":
            raise ComponentError(
                "the xformers backend got a cache and gradients; its kernels over padded keys "
                "have no backward: use the eager backend"
            )
        blocks = tuple(
            Block(piece.queries, segment.slot, segment.key_offset + piece.key, piece.keys)
            for segment in batch.segments
            for piece in pieces_of(segment, batch.mask)
        )
        bias, index = None, None
        if batch.key_layout == "flat":
            queries = [block.queries for block in blocks]
            keys = [block.keys for block in blocks]
            kind = biases.BlockDiagonalCausalFromBottomRightMask
            if queries == keys:
                kind = biases.BlockDiagonalCausalMask
            bias = kind.from_seqlens(queries, keys, device=torch.device(batch.device))
            total = sum(segment.key_length for segment in batch.segments)
            wanted = torch.cat([torch.arange(b.key, b.key + b.keys) for b in blocks])
            if not torch.equal(wanted, torch.arange(total)):
                index = wanted.to(batch.device)
        return XformersPlan(batch.tokens, batch.key_layout, blocks, bias, index, batch.device)

    def __call__(
        self,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        plan: XformersPlan,
        *,
        scale: float,
        return_lse: bool = False,
        score_tensors: Mapping[str, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """See :class:`~llama4_core.protocols.attention.AttentionBackend`."""
        check_queries(q, plan.tokens)
        if return_lse or plan.layout == "head_major":
            refuse_gradient("xformers with a log-sum-exp or a cache", q, keys, values)
        if plan.layout == "flat":
            return _flat(q, keys, values, plan, scale, return_lse)
        return _head_major(q, keys, values, plan, scale, return_lse)


def _flat(
    q: Tensor, keys: Tensor, values: Tensor, plan: XformersPlan, scale: float, return_lse: bool
) -> Tensor | tuple[Tensor, Tensor]:
    N, H, K = q.shape
    G = keys.shape[1]
    if plan.index is not None:
        keys, values = keys.index_select(0, plan.index), values.index_select(0, plan.index)
    grad = torch.is_grad_enabled() and any(x.requires_grad for x in (q, keys, values))
    if G == H or grad:
        keys, values = (x.repeat_interleave(H // G, 1) if G != H else x for x in (keys, values))
        queries = q[None]
    else:
        queries = q.unflatten(1, (G, H // G))[None]
        keys, values = (x[:, :, None].expand(-1, -1, H // G, -1) for x in (keys, values))
    output, lse = _kernel(queries, keys[None], values[None], plan.bias, scale, return_lse)
    output = output.reshape(N, H, K)
    if lse is None:
        return output
    return output, lse.reshape(H, -1)[:, :N].transpose(0, 1).to(torch.float32)


def _head_major(
    q: Tensor, keys: Tensor, values: Tensor, plan: XformersPlan, scale: float, return_lse: bool
) -> Tensor | tuple[Tensor, Tensor]:
    """Every (slot, kv head) of the cache is a sequence of its own, read in place."""
    N, H, K = q.shape
    slots, G, S, _ = keys.shape
    R = H // G
    shape = (slots, G, S)
    if shape not in plan.made:
        plan.made[shape] = _head_major_bias(plan, *shape)
    made = plan.made[shape]
    rows = q.reshape(N * G, R, K)
    if made.order is not None:
        rows = rows.index_select(0, made.order)
    # [1, N G, 1, R, K] against [1, slots G S, 1, R, K]: one kv head per sequence.
    k, v = (x.reshape(1, slots * G * S, 1, 1, K).expand(-1, -1, -1, R, -1) for x in (keys, values))
    output, lse = _kernel(rows[None, :, None], k, v, made.bias, scale, return_lse)
    output = output.reshape(N * G, R, K)
    if made.back is not None:
        output = output.index_select(0, made.back)
    output = output.reshape(N, H, K)
    if lse is None:
        return output
    total = lse.reshape(R, -1)[:, : N * G].transpose(0, 1)
    if made.back is not None:
        total = total.index_select(0, made.back)
    return output, total.reshape(N, H).to(torch.float32)


def _head_major_bias(plan: XformersPlan, slots: int, G: int, S: int) -> HeadMajorBias:
    """The cache as one stream of ``slots * G * S`` keys, of which each block names an interval."""
    starts, lengths, queries, order, row = [], [], [], [], 0
    for block in plan.blocks:
        for group in range(G):
            starts.append((block.slot * G + group) * S + block.key)
            lengths.append(block.keys)
            queries.append(block.queries)
            order.append(torch.arange(row, row + block.queries) * G + group)
        row += block.queries
    bias = _biases().BlockDiagonalCausalWithOffsetGappyKeysMask.from_seqlens(
        q_seqlen=queries,
        kv_seqstarts=[*starts, slots * G * S],
        kv_seqlen=lengths,
        device=torch.device(plan.device),
    )
    rows = torch.cat(order)
    if torch.equal(rows, torch.arange(len(rows))):
        return HeadMajorBias(bias, None, None)
    return HeadMajorBias(bias, rows.to(plan.device), rows.argsort().to(plan.device))


def _kernel(
    q: Tensor, k: Tensor, v: Tensor, bias: Any, scale: float, return_lse: bool
) -> tuple[Tensor, Tensor | None]:
    """The one place that calls xformers; log-sum-exp ``[1, heads..., N or more]``."""
    from xformers.ops import fmha

    if return_lse:
        output, lse = fmha.memory_efficient_attention_partial(q, k, v, bias, scale=scale)
        return output, lse
    return fmha.memory_efficient_attention(q, k, v, bias, scale=scale), None


def _biases() -> ModuleType:
    """Xformers' module of bias classes.

    Raises:
        ComponentError: xformers is absent, or of a version that this code is not written for.
    """
    reason = xformers_missing()
    if reason is not None:
        raise ComponentError(f"the xformers backend cannot run: {reason}")
    from xformers.ops.fmha import attn_bias

    return attn_bias
