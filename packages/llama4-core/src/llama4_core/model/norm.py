"""Root-mean-square normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def rms_normalise(x: Tensor, eps: float) -> Tensor:
    """``x / sqrt(mean(x^2) + eps)`` over the last axis, computed in float32 (or wider)."""
    wide = x if x.dtype == torch.float64 else x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


class RMSNorm(nn.Module):
    """RMS norm with a weight: normalised in float32, cast back, **then** multiplied.

    The order matters in bfloat16 and is that of both published implementations.

    Args:
        width: size of the last axis.
        eps: added to the mean square.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalises ``x [..., D]``."""
        return rms_normalise(x, self.eps) * self.weight
