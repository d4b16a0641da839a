"""The oracle: attention written out as its definition says, one segment after the other."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from llama4_core.errors import ContextError
from llama4_core.protocols.attention import AttentionBatch, Segment
from llama4_core.protocols.masks import Place


def check_queries(q: Tensor, tokens: int) -> None:
    """Refuses a stream that is not the one that was planned for."""
    if q.dim() != 3 or q.shape[0] != tokens:
        raise ContextError(
            f"attention got q of shape {tuple(q.shape)}; expected [N, H, K] with N = {tokens}, "
            "the number of queries that were planned: plan again for this batch"
        )


def segment_keys(keys: Tensor, segment: Segment, layout: str) -> Tensor:
    """The keys (or values) of one segment as ``[G, S, K]``; a view."""
    start, stop = segment.key_offset, segment.key_offset + segment.key_length
    if layout == "flat":
        return keys[start:stop].transpose(0, 1)
    return keys[segment.slot, :, start:stop]


class EagerAttention:
    """``softmax(scale * q k^T, terms applied, masked) v`` with the whole score matrix in memory.

    Scores, softmax and log-sum-exp are computed in float32 (float64 for float64 inputs). Every
    mask with a ``visible`` and every score term with an ``apply`` works, and everything is
    differentiable, the log-sum-exp included. A query without a visible key gets output 0 and
    log-sum-exp minus infinity.
    """

    differentiable_lse = True
    graph_safe = False

    def plan(self, batch: AttentionBatch) -> AttentionBatch:
        """The batch is all that the definition needs.

        Raises:
            ContextError: the key layout is neither "flat" nor "head_major".
        """
        check_layout(batch.key_layout)
        return batch

    def __call__(
        self,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        plan: AttentionBatch,
        *,
        scale: float,
        return_lse: bool = False,
        score_tensors: Mapping[str, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """See :class:`~llama4_core.protocols.attention.AttentionBackend`."""
        check_queries(q, plan.tokens)
        outputs, sums, row = [], [], 0
        for segment in plan.segments:
            queries = q[row : row + segment.query_length]
            row += segment.query_length
            k = segment_keys(keys, segment, plan.key_layout)
            v = segment_keys(values, segment, plan.key_layout)
            output, lse = _attend(queries, k, v, segment, plan, scale, score_tensors or {})
            outputs.append(output)
            sums.append(lse)
        output = torch.cat(outputs) if outputs else torch.zeros_like(q)
        if not return_lse:
            return output
        return output, torch.cat(sums) if sums else q.new_zeros(q.shape[:2], dtype=torch.float32)


def check_layout(layout: str) -> None:
    """Refuses a key layout that the backends of this package cannot read."""
    if layout not in ("flat", "head_major"):
        raise ContextError(
            f"attention got key layout {layout!r}; expected 'flat' or 'head_major': choose a "
            "backend that reads this layout"
        )


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    segment: Segment,
    batch: AttentionBatch,
    scale: float,
    tensors: Mapping[str, Tensor],
) -> tuple[Tensor, Tensor]:
    """Q [T, H, K], k and v [G, S, K] -> output [T, H, K], lse [T, H]."""
    accuracy = torch.float64 if q.dtype == torch.float64 else torch.float32
    groups = q.shape[1] // k.shape[0]
    k = k.to(accuracy).repeat_interleave(groups, dim=0)
    v = v.to(accuracy).repeat_interleave(groups, dim=0)
    scores = scale * torch.matmul(q.to(accuracy).transpose(0, 1), k.transpose(1, 2))

    query_at = torch.arange(q.shape[0], device=q.device)[:, None] + segment.query_start
    key_at = torch.arange(k.shape[1], device=q.device)[None, :] + segment.key_start
    columns = []
    for term in batch.score_terms:
        scores, column = term.apply(scores, query_at - key_at, tensors)
        if column is not None:
            columns.append(column.to(accuracy)[:, None, None].expand(-1, q.shape[0], 1))

    # Documents are segments here, so both places carry the same number.
    seen = batch.mask.visible(
        Place(query_at, torch.zeros_like(query_at)), Place(key_at, torch.zeros_like(key_at))
    )
    scores = scores.masked_fill(~seen, float("-inf"))
    scores = torch.cat([scores, *columns], dim=-1)
    # A row of minus infinities would give NaN, forward and backward: make it a row of zeros first.
    empty = ~seen.any(dim=-1) if not columns else torch.zeros_like(seen[:, 0])
    scores = scores.masked_fill(empty[:, None], 0.0)
    weights = torch.softmax(scores, dim=-1)[..., : k.shape[1]]
    output = torch.matmul(weights.masked_fill(empty[:, None], 0.0), v)
    lse = torch.logsumexp(scores, dim=-1).masked_fill(empty, float("-inf"))
    return output.transpose(0, 1).to(q.dtype), lse.transpose(0, 1).to(torch.float32)
