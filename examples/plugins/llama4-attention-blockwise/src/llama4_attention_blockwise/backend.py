"""Attention over blocks of keys with an online softmax."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from llama4_core.errors import ContextError
from llama4_core.protocols.attention import AttentionBatch, Segment
from llama4_core.protocols.masks import Place

BLOCK = 64
"""Keys per block; on real hardware, what fits its fastest memory."""


@dataclass(frozen=True)
class Plan:
    """The batch, and per segment the first key that any of its queries sees."""

    batch: AttentionBatch
    first: tuple[int, ...]


class BlockwiseAttention:
    """Walks over blocks of keys; keeps a running maximum, denominator and output per query.

    After each block with scores s and values v, with m' = max(m, max s)::

        l <- exp(m - m') l + sum exp(s - m')        o <- exp(m - m') o + exp(s - m') v

    and at the end the output is o / l, the log-sum-exp m + ln l. All of it is ordinary torch, so
    gradients follow.
    """

    differentiable_lse = True
    graph_safe = False

    def plan(self, batch: AttentionBatch) -> Plan:
        """Finds out which keys can be skipped; integers only."""
        first = tuple(
            max(0, batch.mask.horizon(segment.query_start) - segment.key_start)
            for segment in batch.segments
        )
        return Plan(batch, first)

    def __call__(
        self,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        plan: Plan,
        *,
        scale: float,
        return_lse: bool = False,
        score_tensors: Mapping[str, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """See llama4_core.protocols.attention.AttentionBackend."""
        batch = plan.batch
        if q.shape[0] != batch.tokens:
            raise ContextError(
                f"got {q.shape[0]} queries; expected the {batch.tokens} that were planned"
            )
        outputs, sums, row = [], [], 0
        for segment, first in zip(batch.segments, plan.first, strict=True):
            queries = q[row : row + segment.query_length].float().transpose(0, 1)
            row += segment.query_length
            output, lse = _segment(
                queries,
                _slice(keys, segment, batch.key_layout),
                _slice(values, segment, batch.key_layout),
                segment,
                first,
                batch,
                scale,
                score_tensors or {},
            )
            outputs.append(output.transpose(0, 1).to(q.dtype))
            sums.append(lse.transpose(0, 1))
        return (torch.cat(outputs), torch.cat(sums)) if return_lse else torch.cat(outputs)


def _slice(x: Tensor, segment: Segment, layout: str) -> Tensor:
    """Keys or values of one segment, ``[G, S, K]``."""
    where = slice(segment.key_offset, segment.key_offset + segment.key_length)
    return x[where].transpose(0, 1) if layout == "flat" else x[segment.slot, :, where]


def _segment(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    segment: Segment,
    first: int,
    batch: AttentionBatch,
    scale: float,
    tensors: Mapping[str, Tensor],
) -> tuple[Tensor, Tensor]:
    """Query ``[H, T, K]``, keys and values ``[G, S, K]`` -> ``[H, T, K]`` and lse ``[H, T]``."""
    groups = q.shape[0] // keys.shape[0]
    at = torch.arange(q.shape[1], device=q.device)[:, None] + segment.query_start
    top = q.new_full(q.shape[:2], float("-inf"))
    total, output = torch.zeros_like(top), torch.zeros_like(q)
    sinks: list[Tensor] = []
    for start in range(first, segment.key_length, BLOCK):
        k = keys[:, start : start + BLOCK].float().repeat_interleave(groups, 0)
        v = values[:, start : start + BLOCK].float().repeat_interleave(groups, 0)
        there = torch.arange(k.shape[1], device=q.device)[None] + segment.key_start + start
        scores, sinks = scale * q @ k.transpose(1, 2), []
        for term in batch.score_terms:
            scores, sink = term.apply(scores, at - there, tensors)
            sinks += [] if sink is None else [sink]
        zero = torch.zeros_like(at)
        seen = batch.mask.visible(Place(at, zero), Place(there, torch.zeros_like(there)))
        scores = scores.masked_fill(~seen, float("-inf"))
        # The maximum only keeps exp() in range: its gradient cancels, so it gets none.
        new_top = torch.maximum(top, scores.detach().amax(-1))
        base = new_top.masked_fill(new_top == float("-inf"), 0.0)
        weights, shrink = (scores - base[..., None]).exp(), (top - base).exp()
        total = shrink * total + weights.sum(-1)
        output = shrink[..., None] * output + weights @ v
        top = new_top
    lse = top + total.log()
    for sink in sinks:  # one more column per sink, whose value is zero
        joined = torch.logaddexp(lse, sink.float()[:, None])
        output, lse = output * (lse - joined).exp()[..., None], joined
    return output / total[..., None], lse
