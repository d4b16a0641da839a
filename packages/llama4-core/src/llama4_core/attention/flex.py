"""Attention through torch's FlexAttention: any mask, and the score terms as a score function.

The queries are stacked to ``[B, H, T, K]``: all of them as one row for flat keys, one row per
segment for a head-major cache. The block mask is built from each query's interval of keys, in
time and memory linear in the stream (torch's own ``create_block_mask`` takes ``T * S``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.attention.flex_attention as flex_module
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention

from llama4_core.attention.eager import check_layout, check_queries
from llama4_core.attention.merge import refuse_gradient
from llama4_core.attention.support import KNOWN_MASKS, compiler
from llama4_core.errors import ComponentError
from llama4_core.protocols.attention import AttentionBatch, Segment
from llama4_core.protocols.masks import Causal, Mask, Place, kinds_of, parts_of
from llama4_core.protocols.scores import DistanceBias, ScoreTerm, Sink, SoftCap

BLOCK = 128  # FlexAttention's own default: queries and keys per block of the block mask


@dataclass(frozen=True)
class FlexPlan:
    """What :class:`FlexAttention` computes for one batch.

    Attributes:
        tokens: number of queries, N.
        layout: of the keys.
        rows: ``[B, T]`` stream row of each stacked query, padding repeats a row; None for one
            row that is the stream itself.
        back: ``[N]`` where each stream row is among the stacked ones; None as for ``rows``.
        slots: ``[B]`` slot of each row of a head-major cache.
        keys: number of cache entries that are read, from the start of the slot.
        query_at, key_at: ``[B, T]``, ``[B, S]`` positions.
        block_mask: which blocks are empty, partly or wholly visible.
        terms: the score terms.
    """

    tokens: int
    layout: str
    rows: Tensor | None
    back: Tensor | None
    slots: Tensor | None
    keys: int
    query_at: Tensor
    key_at: Tensor
    block_mask: BlockMask
    terms: tuple[ScoreTerm, ...]


class FlexAttention:
    """Optional backend for irregular masks.

    On a CPU it has no backward and needs a C++ compiler; the first call of each shape compiles for
    seconds. ``compiled=False`` runs torch's uncompiled form, which builds the whole score matrix:
    for tests.
    """

    differentiable_lse = False
    graph_safe = False

    def __init__(self, compiled: bool = True) -> None:
        self.compiled = compiled

    def plan(self, batch: AttentionBatch) -> FlexPlan:
        """Builds the block mask.

        Raises:
            ContextError: the key layout is neither "flat" nor "head_major".
            ComponentError: a score term is unknown, gradients are wanted on a CPU, or there is no
                compiler.
        """
        check_layout(batch.key_layout)
        for term in batch.score_terms:
            if not isinstance(term, SoftCap | Sink | DistanceBias):
                raise ComponentError(
                    f"the flex backend got the score term {term!r}; expected SoftCap, Sink or "
                    "DistanceBias: use the eager backend"
                )
        sinks = [isinstance(term, Sink) for term in batch.score_terms]
        on_cpu = torch.device(batch.device).type == "cpu"
        if batch.grad and (on_cpu or any(sinks)):
            raise ComponentError(
                "the flex backend got a batch with gradients, but "
                + ("it has no backward on CPU" if on_cpu else "it does not train a Sink")
                + ": use the eager backend"
            )
        if on_cpu and self.compiled and compiler() is None:
            raise ComponentError(
                "the flex backend needs a C++ compiler on a CPU and found none: install g++, set "
                "CXX, or use the sdpa backend"
            )
        return _plan(batch)

    def __call__(
        self,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        plan: FlexPlan,
        *,
        scale: float,
        return_lse: bool = False,
        score_tensors: Mapping[str, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """See :class:`~llama4_core.protocols.attention.AttentionBackend`."""
        check_queries(q, plan.tokens)
        need_lse = return_lse or any(isinstance(term, Sink) for term in plan.terms)
        if need_lse or q.device.type == "cpu":
            refuse_gradient("flex with a log-sum-exp, or on a CPU,", q, keys, values)
        if plan.rows is None:
            queries, keys, values = (x.transpose(0, 1)[None] for x in (q, keys, values))
        else:
            queries = q[plan.rows].transpose(1, 2)
            keys, values = (x[plan.slots, :, : plan.keys] for x in (keys, values))
        run = _compiled() if self.compiled else _uncompiled
        result = run(
            queries,
            keys,
            values,
            score_mod=_score_function(plan),
            block_mask=plan.block_mask,
            scale=scale,
            enable_gqa=queries.shape[1] != keys.shape[1],
            return_aux=AuxRequest(lse=True) if need_lse else None,
        )
        output, lse = (result[0], result[1].lse) if need_lse else (result, None)
        # [B, H, T, K] -> [B T, H, K], then the rows of the stream.
        output = output.transpose(1, 2).flatten(0, 1)
        lse = None if lse is None else lse.transpose(1, 2).flatten(0, 1)
        if plan.back is not None:
            output = output.index_select(0, plan.back)
            lse = None if lse is None else lse.index_select(0, plan.back)
        if lse is None:
            return output
        for term in plan.terms:
            if isinstance(term, Sink):
                sink = (score_tensors or {})["sink"].to(lse.dtype)
                refuse_gradient("a Sink in flex", sink)
                output = (output * torch.sigmoid(lse - sink)[..., None]).to(output.dtype)
                lse = torch.logaddexp(lse, sink.expand_as(lse))
        return (output, lse.to(torch.float32)) if return_lse else output


@functools.cache
def _compiled() -> Callable[..., Any]:
    # One kernel per shape: with symbolic sizes torch 2.13 writes C++ for CPUs that names a variable
    # which it does not declare, and the compiler refuses it.
    return torch.compile(flex_attention, dynamic=False)


def _uncompiled(*tensors: Tensor, **options: Any) -> Any:
    """Torch's unfused form without tracing.

    ``flex_attention`` outside of torch.compile traces itself anew at each call, for about half a
    second: its mask is another function each time. torch names this switch in its own warning.
    """
    before = flex_module._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG
    flex_module._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = True
    try:
        return flex_attention(*tensors, **options)
    finally:
        flex_module._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = before


def _score_function(plan: FlexPlan) -> Callable[..., Tensor] | None:
    """The score terms but the sinks, in order, as FlexAttention's ``score_mod``."""
    terms = [term for term in plan.terms if not isinstance(term, Sink)]
    if not terms:
        return None
    query_at, key_at = plan.query_at, plan.key_at
    slopes = {
        index: torch.tensor(term.slopes, device=query_at.device)
        for index, term in enumerate(terms)
        if isinstance(term, DistanceBias)
    }

    def change(score: Tensor, b: Tensor, h: Tensor, t: Tensor, s: Tensor) -> Tensor:
        for index, term in enumerate(terms):
            if isinstance(term, SoftCap):
                score = term.cap * torch.tanh(score / term.cap)
            else:
                score = score - slopes[index][h] * (query_at[b, t] - key_at[b, s])
        return score

    return change


def _plan(batch: AttentionBatch) -> FlexPlan:
    """Stacks the segments; documents are segments, padding belongs to none (-1 and -2)."""
    segments, device = batch.segments, batch.device
    lengths = [segment.query_length for segment in segments]
    if batch.key_layout == "flat":
        rows = [list(segments)]
        T, S = sum(lengths), sum(segment.key_length for segment in segments)
    else:
        rows = [[segment] for segment in segments]
        T = max(lengths)
        S = max(segment.key_offset + segment.key_length for segment in segments)
    query_at, key_at = torch.zeros(len(rows), T).long(), torch.zeros(len(rows), S).long()
    query_in, key_in = torch.full_like(query_at, -1), torch.full_like(key_at, -2)
    # The interval of keys that each query may see: [low, high) as indices along S.
    low, high = torch.full_like(query_at, S), torch.zeros_like(query_at)
    for b, row in enumerate(rows):
        first = 0
        for document, segment in enumerate(row):
            at, keys = first + segment.query_length, segment.key_offset + segment.key_length
            places = torch.arange(segment.query_length) + segment.query_start
            query_at[b, first:at], query_in[b, first:at] = places, document
            key_at[b, segment.key_offset : keys] = (
                torch.arange(segment.key_length) + segment.key_start
            )
            key_in[b, segment.key_offset : keys] = document
            low[b, first:at], high[b, first:at] = _intervals(segment, batch.mask)
            first = at
    exact = kinds_of(batch.mask) <= KNOWN_MASKS - {"Everything"} and "Causal" in kinds_of(
        batch.mask
    )
    stacked = batch.key_layout != "flat"
    starts = torch.tensor([0, *lengths]).cumsum(0)[:-1]
    spread = torch.arange(T)[None, :]
    taken = torch.minimum(spread, torch.tensor(lengths)[:, None] - 1) + starts[:, None]
    back = torch.cat([torch.arange(length) + b * T for b, length in enumerate(lengths)])
    moved = [x.to(device) for x in (query_at, query_in, key_at, key_in)]
    return FlexPlan(
        tokens=batch.tokens,
        layout=batch.key_layout,
        rows=taken.to(device) if stacked else None,
        back=back.to(device) if stacked else None,
        slots=torch.tensor([s.slot for s in segments], device=device) if stacked else None,
        keys=S,
        query_at=moved[0],
        key_at=moved[2],
        block_mask=_block_mask(batch.mask, low, high, S, exact, moved),
        terms=batch.score_terms,
    )


def _intervals(segment: Segment, mask: Mask) -> tuple[Tensor, Tensor]:
    """For each query, bounds of the keys that it may see; a mask's ``horizon`` is all it needs."""
    causal = any(isinstance(part, Causal) for part in parts_of(mask))
    stop = segment.query_start + segment.query_length
    low = [
        max(mask.horizon(position), segment.key_start)
        for position in range(segment.query_start, stop)
    ]
    shift = segment.key_offset - segment.key_start
    lows = torch.tensor(low) + shift
    if causal:
        return lows, torch.arange(segment.query_start, stop) + 1 + shift
    return lows, torch.full_like(lows, segment.key_start + segment.key_length + shift)


def _block_mask(
    mask: Mask, low: Tensor, high: Tensor, S: int, exact: bool, places: list[Tensor]
) -> BlockMask:
    """Sorts the blocks by each query block's outermost and innermost bounds.

    Where the bounds are exact and the queries of a block belong to one document, key blocks that
    lie inside all of its intervals are wholly visible and skip the mask function.
    """
    query_at, query_in, key_at, key_in = places
    B, T = low.shape
    blocks = (S + BLOCK - 1) // BLOCK
    fill = -T % BLOCK
    shape = (B, -1, BLOCK)
    outer_low = torch.nn.functional.pad(low, (0, fill), value=S).reshape(shape).amin(-1)
    outer_high = torch.nn.functional.pad(high, (0, fill), value=0).reshape(shape).amax(-1)
    inner_low = torch.nn.functional.pad(low, (0, fill), value=S).reshape(shape).amax(-1)
    inner_high = torch.nn.functional.pad(high, (0, fill), value=0).reshape(shape).amin(-1)
    start = torch.arange(blocks)[None, None, :] * BLOCK
    any_seen = (start < outer_high[..., None]) & (start + BLOCK > outer_low[..., None])
    all_seen = (start >= inner_low[..., None]) & (start + BLOCK <= inner_high[..., None])
    if not exact:
        all_seen = torch.zeros_like(all_seen)
    device = query_at.device
    partial = _listed(any_seen & ~all_seen, device)
    full = _listed(all_seen, device)

    def visible(b: Tensor, h: Tensor, t: Tensor, s: Tensor) -> Tensor:
        query = Place(query_at[b, t], query_in[b, t])
        key = Place(key_at[b, s], key_in[b, s])
        return mask.visible(query, key) & (query.document == key.document)

    return BlockMask.from_kv_blocks(
        *partial, *full, BLOCK_SIZE=BLOCK, mask_mod=visible, seq_lengths=(T, S)
    )


def _listed(blocks: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Counts ``[B, 1, Q]`` and indices ``[B, 1, Q, KV]`` (chosen ones first) of key blocks."""
    counts = blocks.sum(-1).int()
    indices = blocks.int().argsort(dim=-1, descending=True, stable=True).int()
    return counts[:, None].to(device), indices[:, None].to(device)
