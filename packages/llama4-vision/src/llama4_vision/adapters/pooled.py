"""An adapter without a shuffle: the mean of each square of places."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from llama4_core.model.projection import Projection
from llama4_core.protocols.parts import Parts
from llama4_core.specs.model import VisionSpec
from llama4_vision.adapters.inputs import block_of, check_features


class PooledLinear(nn.Module):
    """``gelu(fc(mean of each square of places))`` with a bias: as many tokens as pixel shuffle.

    Of the spec's numbers ``adapter_width`` has no meaning here: there is one layer.

    Args:
        spec: shuffle ratio, one over the edge of a square; and the width of the output.
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
        self.fc = Projection(width, spec.adapter_output, bias=True)

    def forward(self, features: Tensor) -> Tensor:
        """``[B, P, W] -> [B, T, A]``."""
        check_features(features, *self.inputs)
        B, _, W = features.shape
        rows, columns = self.grid[0] // self.block, self.grid[1] // self.block
        split = features.reshape(B, rows, self.block, columns, self.block, W)
        return F.gelu(self.fc(split.mean(dim=(2, 4)).reshape(B, rows * columns, W)))
