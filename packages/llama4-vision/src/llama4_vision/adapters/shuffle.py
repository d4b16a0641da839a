"""Llama 4's adapter: pixel shuffle and two layers."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from llama4_core.model.projection import Projection
from llama4_core.protocols.parts import Parts
from llama4_core.specs.model import VisionSpec
from llama4_vision.adapters.inputs import block_of, check_features


class PixelShuffleMlp(nn.Module):
    """``gelu(fc2(gelu(fc1(shuffle(x)))))``: GELU after the second layer too, no biases.

    Args:
        spec: shuffle ratio and widths.
        grid: rows and columns of places.
        width: W, of the encoder's features.
        parts: the assembler at this path.

    Raises:
        SpecError: squares of places do not fill the grid.
    """

    def __init__(self, spec: VisionSpec, grid: tuple[int, int], width: int, parts: Parts) -> None:
        super().__init__()
        self.grid = grid
        self.block = block_of(spec, grid, parts.path)
        self.inputs = (grid[0] * grid[1], width)
        self.tokens = grid[0] * grid[1] // self.block**2
        self.width = spec.adapter_output
        self.fc1 = Projection(width * self.block**2, spec.adapter_width)
        self.fc2 = Projection(spec.adapter_width, spec.adapter_output)

    def forward(self, features: Tensor) -> Tensor:
        """``[B, P, W] -> [B, T, A]``."""
        check_features(features, *self.inputs)
        x = pixel_shuffle(features, self.grid, self.block)
        return F.gelu(self.fc2(F.gelu(self.fc1(x))))


def pixel_shuffle(features: Tensor, grid: tuple[int, int], block: int) -> Tensor:
    """Puts the features of each ``block x block`` of places side by side.

    ``[B, P, W] -> [B, P / block^2, block^2 W]``; blocks and the places in one are row-major.
    """
    B, _, W = features.shape
    rows, columns = grid[0] // block, grid[1] // block
    split = features.reshape(B, rows, block, columns, block, W)
    return split.permute(0, 1, 3, 2, 4, 5).reshape(B, rows * columns, block * block * W)


def pixel_unshuffle(tokens: Tensor, grid: tuple[int, int], block: int) -> Tensor:
    """Lays the places of each token out on their grid again: inverse of :func:`pixel_shuffle`.

    ``[B, P / block^2, block^2 W] -> [B, P, W]``.
    """
    B, _, wide = tokens.shape
    rows, columns = grid[0] // block, grid[1] // block
    split = tokens.reshape(B, rows, columns, block, block, wide // block**2)
    return split.permute(0, 1, 3, 2, 4, 5).reshape(B, grid[0] * grid[1], wide // block**2)
