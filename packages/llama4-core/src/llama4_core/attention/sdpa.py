"""Attention through torch's fused kernels, without ever building a dense mask.

What the kernels can do without a mask is "everything" and "causal square"; the plan cuts the batch
into such pieces and stacks pieces of one shape, so that few calls run:

- a chunk, or a document, is a causal square and goes to the batch dimension, as a view if it can;
- one query (decode) sees its keys without a mask; the query heads of a group become its rows, so
  that each key is read once per kv head;
- several queries behind cached keys are two calls, the past without a mask and the causal square,
  merged by log-sum-exp;
- a sliding window is blocks of queries that share one small mask.

With gradients, bfloat16 on a CPU is computed in float32: see :func:`widest_head`.

Keys that no segment names are not read, with one exception: where decode pads rows of a head-major
cache to one length, the entries between are read and get weight 0. They must be finite numbers, as
they are in a cache that starts as zeros.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from llama4_core.attention.calls import Call, Half, half_of, parts_from
from llama4_core.attention.eager import check_layout, check_queries
from llama4_core.attention.merge import merge, refuse_gradient
from llama4_core.attention.pieces import pieces_of
from llama4_core.errors import ComponentError
from llama4_core.model.projection import EMULATED_BFLOAT16
from llama4_core.protocols.attention import AttentionBatch
from llama4_core.protocols.scores import Sink

# Of heads wider than this, on processors with bfloat16 instructions, nobody has measured.
_SMALL_HEAD = 64


def widest_head(emulated: bool) -> int:
    """The largest head size whose bfloat16 attention is trained in float32 on a CPU.

    torch's fused backward in bfloat16 is slow there. Forward and backward in float32, casts
    included, are 2.2 to 4.0 times as fast for heads of 32, 64 and 128 and lengths of 128 to 2,048
    on a processor without bfloat16 instructions (``benchmarks/attention_training.py``). On one that
    has them a training step with heads of 32 gained 1.7x; heads up to 64 are taken for small.

    Args:
        emulated: the processor has no bfloat16 instructions.
    """
    return sys.maxsize if emulated else _SMALL_HEAD


@dataclass(frozen=True)
class SdpaPlan:
    """What :class:`SdpaAttention` computes for one batch.

    Attributes:
        tokens: number of queries, N.
        layout: of the keys.
        first: covers every row once.
        past: for rows whose causal square has keys before it, these keys; None without such rows.
        sinks: number of Sink terms.
    """

    tokens: int
    layout: str
    first: Half
    past: Half | None
    sinks: int


class SdpaAttention:
    """The default backend: exact, any device that torch's fused attention runs on.

    Its log-sum-exps have no gradient (torch's have none). Where they would be needed for one, an
    error says so: queries behind cached keys, a Sink, ``return_lse``.

    Args:
        widen: largest head size whose bfloat16 inputs are computed in float32 where gradients are
            wanted on a CPU; None for what is measured to be fast, 0 for never.
    """

    differentiable_lse = False
    graph_safe = False

    def __init__(self, widen: int | None = None) -> None:
        self.widen = widest_head(EMULATED_BFLOAT16) if widen is None else widen

    def plan(self, batch: AttentionBatch) -> SdpaPlan:
        """Cuts and groups the batch.

        Raises:
            ContextError: the key layout is neither "flat" nor "head_major".
            ComponentError: a mask or score term is unknown here, or gradients are wanted where
                results have to be merged by log-sum-exp.
        """
        check_layout(batch.key_layout)
        for term in batch.score_terms:
            if not isinstance(term, Sink):
                raise ComponentError(
                    f"the sdpa backend got the score term {term!r}; expected none but Sink, for "
                    "which alone torch's fused attention has a place: use eager or flex"
                )
        sinks = len(batch.score_terms)
        first, past = parts_from(batch.segments, lambda segment: pieces_of(segment, batch.mask))
        if batch.grad and (past or sinks):
            raise ComponentError(
                "the sdpa backend got a batch with gradients and "
                + ("several queries behind cached keys" if past else "a Sink")
                + "; it computes this through torch's log-sum-exp, which has no gradient: use the "
                "eager backend, or torch.no_grad() where nothing is trained"
            )
        layout, device, tokens = batch.key_layout, batch.device, batch.tokens
        return SdpaPlan(
            tokens,
            layout,
            half_of(first, layout, device, tokens),
            half_of(past, layout, device, tokens) if past else None,
            sinks,
        )

    def __call__(
        self,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        plan: SdpaPlan,
        *,
        scale: float,
        return_lse: bool = False,
        score_tensors: Mapping[str, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """See :class:`~llama4_core.protocols.attention.AttentionBackend`."""
        check_queries(q, plan.tokens)
        need_lse = return_lse or plan.past is not None or plan.sinks > 0
        if need_lse:
            refuse_gradient("sdpa with a log-sum-exp", q, keys, values)
        elif self._widens(q, keys, values):
            wide, _ = _run(
                plan.first, q.float(), keys.float(), values.float(), plan.layout, scale, False
            )
            return wide.to(q.dtype)
        output, lse = _run(plan.first, q, keys, values, plan.layout, scale, need_lse)
        if lse is None:
            return output
        if plan.past is not None:
            behind, behind_lse = _run(plan.past, q, keys, values, plan.layout, scale, True)
            if behind_lse is None:
                raise ComponentError("the kernel returned no log-sum-exp; use the eager backend")
            rows = plan.past.rows
            if rows is None:
                output, lse = merge(output, lse, behind, behind_lse)
            else:
                merged, total = merge(
                    output.index_select(0, rows), lse.index_select(0, rows), behind, behind_lse
                )
                output = output.index_copy(0, rows, merged)
                lse = lse.index_copy(0, rows, total)
        for _ in range(plan.sinks):
            # One more key with score `sink` and value 0 scales the output by exp(lse - lse').
            sink = (score_tensors or {})["sink"].to(lse.dtype)
            refuse_gradient("a Sink in sdpa", sink)
            output = (output * torch.sigmoid(lse - sink)[..., None]).to(output.dtype)
            lse = torch.logaddexp(lse, sink.expand_as(lse))
        return (output, lse.to(torch.float32)) if return_lse else output

    def _widens(self, q: Tensor, keys: Tensor, values: Tensor) -> bool:
        """Whether this call is computed in float32; from the kind of the tensors alone."""
        return (
            q.device.type == "cpu"
            and q.dtype == torch.bfloat16
            and q.shape[-1] <= self.widen
            and torch.is_grad_enabled()
            and (q.requires_grad or keys.requires_grad or values.requires_grad)
            and not torch.compiler.is_compiling()
        )


def _run(
    half: Half, q: Tensor, keys: Tensor, values: Tensor, layout: str, scale: float, lse: bool
) -> tuple[Tensor, Tensor | None]:
    """Output ``[n, H, K]`` and log-sum-exp ``[n, H]`` of a half's rows, in their order."""
    if not half.calls:
        return torch.empty_like(q), q.new_empty(q.shape[:2], dtype=torch.float32) if lse else None
    results = [_compute(call, q, keys, values, layout, scale, lse) for call in half.calls]
    output = _together([output for output, _ in results], half.order)
    sums = [total for _, total in results if total is not None]
    return output, _together(sums, half.order) if lse else None


def _together(parts: list[Tensor], order: Tensor | None) -> Tensor:
    joined = parts[0] if len(parts) == 1 else torch.cat(parts)
    return joined if order is None else joined.index_select(0, order)


def _compute(
    call: Call, q: Tensor, keys: Tensor, values: Tensor, layout: str, scale: float, lse: bool
) -> tuple[Tensor, Tensor | None]:
    """One call: output ``[B * T, H, K]`` and log-sum-exp ``[B * T, H]``."""
    queries = call.queries.take(q)
    k = call.keys.take(keys, layout)
    v = call.keys.take(values, layout)
    B, T, H, K = queries.shape
    G = k.shape[1]
    fold = not call.causal and (call.mask is None or call.mask.dim() == 4) and G != H
    if fold:
        # Rows of a group share their keys: [B, T, G, R, K] -> [B, G, R T, K], a view when T is 1.
        queries = queries.unflatten(2, (G, H // G)).permute(0, 2, 3, 1, 4).flatten(2, 3)
    else:
        queries = queries.transpose(1, 2)
    output, total = _kernel(queries, k, v, call.causal, call.mask, scale, lse)
    if fold:
        output = output.unflatten(2, (H // G, T)).permute(0, 3, 1, 2, 4).reshape(B * T, H, K)
    else:
        output = output.transpose(1, 2).reshape(B * T, H, K)
    if total is None:
        return output, None
    if fold:
        total = total.unflatten(2, (H // G, T)).permute(0, 3, 1, 2).reshape(B * T, H)
    else:
        total = total.transpose(1, 2).reshape(B * T, H)
    return output, total


def _kernel(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool,
    mask: Tensor | None,
    scale: float,
    lse: bool,
) -> tuple[Tensor, Tensor | None]:
    """Q ``[B, H, T, K]``, k and v ``[B, G, S, K]`` -> ``[B, H, T, K]`` and ``[B, H, T]``."""
    # With another inner stride torch leaves its fused kernels, and the kernels called by name
    # below read the wrong numbers without a word.
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    if not lse:
        output = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=causal,
            scale=scale,
            # A branch, as a comparison of symbolic numbers of heads is no bool while a graph is
            # captured: an encoder's tiles are heads here.
            **({"enable_gqa": True} if q.shape[1] != k.shape[1] else {}),
        )
        return output, None
    bias = None
    if mask is not None:
        bias = torch.zeros(mask.shape, dtype=q.dtype, device=q.device)
        bias = bias.masked_fill(~mask, float("-inf"))
    if q.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, causal, attn_mask=bias, scale=scale
        )
    if q.device.type != "cuda":
        raise ComponentError(
            f"sdpa has no log-sum-exp on {q.device.type}; expected cpu or cuda: use eager"
        )
    return _cuda_kernel(q, k, v, causal, bias, scale)


def _cuda_kernel(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Flash attention where it can, else the memory-efficient kernel."""
    T, S = q.shape[2], k.shape[2]
    if bias is None and q.dtype in (torch.float16, torch.bfloat16):
        output, total, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
            q, k, v, 0.0, causal, False, scale=scale
        )
        return output, total[..., :T]
    if q.dtype == torch.float64:
        raise ComponentError(
            "sdpa has no float64 log-sum-exp on cuda; expected float32, bfloat16 or float16: "
            "use eager"
        )
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    if bias is not None:
        # The kernel wants rows of the bias to start at multiples of 16 bytes.
        bias = F.pad(bias, (0, -S % 16))[..., :S].expand(q.shape[0], q.shape[1], T, S)
    output, total, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
        q, k, v, bias, True, 0.0, causal, scale=scale
    )
    return output, total[..., :T]
