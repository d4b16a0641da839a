"""Llama 4's image encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from llama4_core.contexts.packed import PackedContext
from llama4_core.errors import ModalityError
from llama4_core.model.projection import Projection
from llama4_core.protocols.encoders import Encoded
from llama4_core.protocols.parts import Parts
from llama4_core.specs.model import VisionSpec
from llama4_vision.encoders.block import EncoderBlock


class Llama4Encoder(nn.Module):
    """A transformer over the patches of each tile and one class token behind them.

    Args:
        spec: numbers of the encoder.
        parts: the assembler at this path.
    """

    def __init__(self, spec: VisionSpec, parts: Parts) -> None:
        super().__init__()
        side = spec.image_size // spec.patch_size
        self.grid = (side, side)
        self.width = spec.width
        self.head_dim = spec.width // spec.heads
        self.theta = spec.theta
        self.patch_size = spec.patch_size
        self.shape = (spec.channels, spec.image_size, spec.image_size)
        self.patch_embedding = Projection(spec.channels * spec.patch_size**2, spec.width)
        self.class_embedding = nn.Parameter(torch.empty(spec.width))
        self.positional_embedding = nn.Parameter(torch.empty(side * side + 1, spec.width))
        self.norm_pre = nn.LayerNorm(spec.width, spec.norm_eps)
        self.layers = nn.ModuleList(
            EncoderBlock(
                spec.width,
                spec.heads,
                spec.mlp_width,
                spec.norm_eps,
                "none",
                parts.child(f"layers.{index}"),
            )
            for index in range(spec.layers)
        )
        self.norm_post = nn.LayerNorm(spec.width, spec.norm_eps)

    def forward(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """See :class:`~llama4_core.protocols.encoders.Encoder`."""
        if inputs.dim() != 4 or tuple(inputs.shape[1:]) != self.shape:
            raise ModalityError(
                f"tiles have shape {list(inputs.shape)}; expected [B, {self.shape[0]}, "
                f"{self.shape[1]}, {self.shape[2]}]"
            )
        B = inputs.shape[0]
        places = self.grid[0] * self.grid[1]
        patches = self.patch_embedding(patches_of(inputs, self.patch_size))
        last = self.class_embedding.expand(B, 1, -1)
        x = torch.cat([patches, last], dim=1) + self.positional_embedding
        x = self.norm_pre(x).flatten(0, 1)
        angles = rotations(self.grid, self.head_dim, self.theta, x.device).repeat(B, 1)
        context = PackedContext(
            [layer.attention for layer in self.layers], [places + 1] * B, x.device
        )
        hidden = {}
        for index, layer in enumerate(self.layers):
            x = layer(x, context.layer(index), angles)
            if index in out_layers:
                hidden[index] = x.unflatten(0, (B, places + 1))[:, :places]
        x = self.norm_post(x).unflatten(0, (B, places + 1))[:, :places]
        return Encoded(x, tuple(hidden[index] for index in out_layers))


def patches_of(images: Tensor, size: int) -> Tensor:
    """``[B, C, height, width]`` to ``[B, P, C size size]``: channel, then row, then column."""
    B, C, height, width = images.shape
    rows, columns = height // size, width // size
    split = images.reshape(B, C, rows, size, columns, size)
    return split.permute(0, 2, 4, 1, 3, 5).reshape(B, rows * columns, C * size * size)


def rotations(grid: tuple[int, int], head_dim: int, theta: float, device: torch.device) -> Tensor:
    """Rotations of the places of one tile, and none for the class token: ``[P + 1, K / 2]``.

    The first quarter of the head's components turns by ``(x + 1) f_m``, the second by ``(y + 1) f_m``, with
    ``f_m = theta^(-2 m / (K / 2))``.
    """
    rows, columns = grid
    half = head_dim // 2
    steps = torch.arange(0, half, 2, dtype=torch.float64, device=device) / half
    frequencies = theta**-steps
    x = torch.arange(1, columns + 1, device=device).repeat(rows)
    y = torch.arange(1, rows + 1, device=device).repeat_interleave(columns)
    angles = torch.cat([x[:, None] * frequencies, y[:, None] * frequencies], dim=-1)
    angles = torch.cat([angles, angles.new_zeros(1, angles.shape[1])])
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)
