"""Rotary encoding in two dimensions."""

from __future__ import annotations

import torch
from torch import Tensor


def rotations(grid: tuple[int, int], head_dim: int, theta: float, device: torch.device) -> Tensor:
    """How far the places of one tile turn, and the class token behind them, which does not.

    Of the ``K / 2`` pairs of a head the first half turns by ``(x + 1) f_m`` and the second by
    ``(y + 1) f_m``, with ``f_m = theta^(-2 m / (K / 2))``: x, the column, comes first. Angles are
    formed in float64.

    Args:
        grid: rows and columns of places.
        head_dim: K, a multiple of 4.
        theta: base of the frequencies.
        device: of the result.

    Returns:
        ``[P + 1, K / 2]`` complex128.
    """
    rows, columns = grid
    half = head_dim // 2
    steps = torch.arange(0, half, 2, dtype=torch.float64, device=device) / half
    frequencies = theta**-steps
    x = torch.arange(1, columns + 1, device=device).repeat(rows)
    y = torch.arange(1, rows + 1, device=device).repeat_interleave(columns)
    angles = torch.cat([x[:, None] * frequencies, y[:, None] * frequencies], dim=-1)
    angles = torch.cat([angles, angles.new_zeros(1, angles.shape[1])])
    return torch.polar(torch.ones_like(angles), angles)


def turned(x: Tensor, turns: Tensor) -> Tensor:
    """Turns pairs ``(2 j, 2 j + 1)`` of ``x [..., P, K]`` by ``turns [P, K / 2]``, in float32.

    Returns:
        ``[..., P, K]`` in x's dtype, contiguous whatever the strides of x: the copy that widening
        is anyway lays a head's places side by side, which attention reads fastest.
    """
    accuracy = torch.float64 if x.dtype == torch.float64 else torch.float32
    wide = x.to(accuracy, memory_format=torch.contiguous_format)
    pairs = torch.view_as_complex(wide.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * turns.to(pairs.dtype)).flatten(-2).to(x.dtype)
