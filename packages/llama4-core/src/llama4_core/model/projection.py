"""Linear projections, by the product that is fast for the number of rows.

Three measured facts about torch 2.13 on a CPU (benchmarks/moe.py shows their sum):

- One row: ``F.linear`` in bfloat16 reaches about half of the memory bandwidth, a matrix-vector
  product all of it.
- Many rows in bfloat16, on a processor without bfloat16 arithmetic: the product is emulated at a
  third of the speed of float32. Widening a block of the weight at a time, small enough to stay in
  cache, and multiplying in float32 is faster from about 16 rows on; so is the backward, which
  widens again instead of keeping the blocks.
- Everything else: ``F.linear``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_WIDEN_FROM_ROWS = 16
# Rows of the weight that are widened at once: 4 MiB of float32 at 2,048 columns.
_WIDEN_BLOCK = 512


def _emulates_bfloat16() -> bool:
    """Whether bfloat16 products are emulated: an x86 processor without instructions for them."""
    if not hasattr(torch.cpu, "get_capabilities"):
        return False
    has = torch.cpu.get_capabilities()
    return has.get("architecture") == "x86_64" and not (
        has.get("avx512_bf16") or has.get("amx_bf16")
    )


EMULATED_BFLOAT16 = _emulates_bfloat16()


def project(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x W^T``, or ``x W^T + b`` rounded once.

    Args:
        x: ``[N, D]``.
        weight: ``[F, D]``; any strides.
        bias: ``[F]`` or None.

    Returns:
        ``[N, F]`` in x's dtype (under autocast: as ``F.linear``).
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.linear(x, weight, bias)
    if x.shape[0] == 1 and bias is None and not torch.is_grad_enabled():
        return torch.matmul(weight, x[0])[None]
    if (
        EMULATED_BFLOAT16
        and x.dtype == weight.dtype == torch.bfloat16
        and x.shape[0] >= _WIDEN_FROM_ROWS
        and not torch.is_autocast_enabled("cpu")
        and type(weight) in (Tensor, nn.Parameter)  # the product of a DTensor is its own affair
    ):
        widened: Tensor = _Widened.apply(x, weight, bias)
        return widened
    return F.linear(x, weight, bias)


class _Widened(torch.autograd.Function):
    """:func:`project` in float32, a block of the weight at a time, in both directions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        wide = x.float()
        blocks = weight.split(_WIDEN_BLOCK)
        shifts = [None] * len(blocks) if bias is None else bias.float().split(_WIDEN_BLOCK)
        return torch.cat(
            [
                F.linear(wide, block.float(), shift).to(x.dtype)
                for block, shift in zip(blocks, shifts, strict=True)
            ],
            dim=-1,
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        wide = gradient.float()
        blocks = wide.split(_WIDEN_BLOCK, dim=-1)
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            total = torch.zeros(x.shape, dtype=torch.float32)
            for block, rows in zip(blocks, weight.split(_WIDEN_BLOCK), strict=True):
                total.addmm_(block, rows.float())
            of_x = total.to(x.dtype)
        if ctx.needs_input_grad[1]:
            tokens = x.float()
            of_weight = torch.cat([(block.T @ tokens).to(x.dtype) for block in blocks])
        if ctx.needs_input_grad[2]:
            of_bias = wide.sum(0).to(x.dtype)
        return of_x, of_weight, of_bias


class Projection(nn.Linear):
    """``nn.Linear`` that computes by :func:`project`; a drop-in for it, without bias by default.

    Args:
        inputs: size of the last axis of the input.
        outputs: of the output.
        bias: whether there is one.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool = False) -> None:
        super().__init__(inputs, outputs, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., inputs] -> [..., outputs]``."""
        if x.dim() == 2:
            return project(x, self.weight, self.bias)
        y = project(x.reshape(-1, x.shape[-1]), self.weight, self.bias)
        return y.reshape(*x.shape[:-1], y.shape[-1])
