"""The two small matrices of one weight."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llama4_core.model.projection import project


class LowRank(nn.Module):
    """The change ``(alpha / rank) B A`` of a weight ``[out, in]`` or of a stack ``[E, out, in]``.

    B starts at zero, so that a fresh adapter changes nothing. For a weight of 16 bits the adapter
    is float32: it is small, and steps of 1e-4 of its size would vanish in the rounding of bfloat16.
    It is cast to the dtype of the tokens where it meets them.

    Args:
        weight: what is changed; gives shape, device and dtype and is not kept.
        rank: of the change, for each expert.
        alpha: see above.
        dropout: probability with which an input of A is dropped in training; the others grow by
            ``1 / (1 - dropout)``.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float, dropout: float = 0.0) -> None:
        super().__init__()
        *stack, outputs, inputs = weight.shape
        dtype = torch.promote_types(weight.dtype, torch.float32)
        self.rank = rank
        self.alpha = alpha
        self.dropout = dropout
        self.A = nn.Parameter(torch.empty(*stack, rank, inputs, dtype=dtype, device=weight.device))
        self.B = nn.Parameter(torch.zeros(*stack, outputs, rank, dtype=dtype, device=weight.device))

    @property
    def scale(self) -> float:
        """``alpha / rank``."""
        return self.alpha / self.rank

    @torch.no_grad()
    def reset(self, seed: int) -> None:
        """Draws A uniformly from ``+- in ** -0.5``, the same on every device; B becomes 0.

        The bound is that of torch's linear layers, and of PEFT's adapters.
        """
        generator = torch.Generator(device="cpu").manual_seed(seed)
        bound = 1 / math.sqrt(self.A.shape[-1])
        for matrix in self.A.view(-1, *self.A.shape[-2:]):
            drawn = torch.rand(matrix.shape, generator=generator)
            matrix.copy_(drawn.mul_(2 * bound).sub_(bound))
        self.B.zero_()

    def dropped(self, x: Tensor) -> Tensor:
        """``x`` as A sees it."""
        return F.dropout(x, self.dropout, self.training)

    def forward(self, x: Tensor) -> Tensor:
        """``B A x``, not yet scaled, of a single matrix: ``[..., in] -> [..., out]``."""
        rows = self.dropped(x).reshape(-1, x.shape[-1])
        y = project(project(rows, self.A.to(x.dtype)), self.B.to(x.dtype))
        return y.view(*x.shape[:-1], y.shape[-1])

    def change(self, expert: int | None = None) -> Tensor:
        """``(alpha / rank) B A``, of all experts or of one, in the dtype of the adapter."""
        if expert is None:
            return self.scale * (self.B @ self.A)
        return self.scale * (self.B[expert] @ self.A[expert])

    def extra_repr(self) -> str:
        """Rank, alpha and dropout."""
        return f"rank={self.rank}, alpha={self.alpha}, dropout={self.dropout}"
