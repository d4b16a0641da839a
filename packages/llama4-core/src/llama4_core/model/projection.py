"""Linear projections, by the product that is fast for the number of rows.

Three measured facts about torch 2.13 on a CPU (benchmarks/moe.py shows their sum):

- One row: ``F.linear`` in bfloat16 reaches about half of the memory bandwidth, a matrix-vector
  product all of it.
- Many rows in bfloat16, on a processor without bfloat16 arithmetic: the product is emulated at a
  third of the speed of float32. Widening a block of the weight at a time, small enough to stay in
  cache, and multiplying in float32 is faster from about 16 rows on.
- Everything else, and whatever needs a gradient (the backward would keep every widened block):
  ``F.linear``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
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
    if x.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return F.linear(x, weight, bias)
    if x.shape[0] == 1 and bias is None:
        return torch.matmul(weight, x[0])[None]
    if (
        EMULATED_BFLOAT16
        and x.dtype == weight.dtype == torch.bfloat16
        and x.shape[0] >= _WIDEN_FROM_ROWS
        and not torch.is_autocast_enabled("cpu")
    ):
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
    return F.linear(x, weight, bias)


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
