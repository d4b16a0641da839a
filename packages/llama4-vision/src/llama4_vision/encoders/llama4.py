"""Llama 4's image encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from llama4_core.model.projection import Projection
from llama4_core.protocols.encoders import Encoded
from llama4_core.protocols.parts import Parts
from llama4_core.specs.model import VisionSpec
from llama4_vision.encoders.block import EncoderBlock, through
from llama4_vision.encoders.inputs import check_heads, check_layers, check_tiles
from llama4_vision.encoders.patches import patches_of
from llama4_vision.encoders.rotary import rotations


class Llama4Encoder(nn.Module):
    """A transformer over the patches of each tile and one class token behind them.

    Patches are projected without a bias, the class token comes last, learned positions are added,
    and a first norm follows. Every block turns queries and keys by where their place is
    (:func:`~llama4_vision.encoders.rotary.rotations`). A last norm ends it, and the class token is
    left out.

    Args:
        spec: numbers of the encoder.
        parts: the assembler at this path.

    Raises:
        SpecError: heads are no multiple of 4 wide, for two coordinates of pairs.
    """

    def __init__(self, spec: VisionSpec, parts: Parts) -> None:
        super().__init__()
        check_heads(spec, 4, parts.path)
        side = spec.image_size // spec.patch_size
        places = side * side + 1
        self.grid = (side, side)
        self.width = spec.width
        self.head_dim = spec.width // spec.heads
        self.theta = spec.theta
        self.patch_size = spec.patch_size
        self.shape = (spec.channels, spec.image_size, spec.image_size)
        self.patch_embedding = Projection(spec.channels * spec.patch_size**2, spec.width)
        self.class_embedding = nn.Parameter(torch.empty(spec.width))
        self.positional_embedding = nn.Parameter(torch.empty(places, spec.width))
        self.norm_pre = nn.LayerNorm(spec.width, spec.norm_eps)
        self.layers = nn.ModuleList(
            EncoderBlock(
                spec.width,
                spec.heads,
                spec.mlp_width,
                places,
                spec.norm_eps,
                "none",
                parts.child(f"layers.{index}"),
            )
            for index in range(spec.layers)
        )
        self.norm_post = nn.LayerNorm(spec.width, spec.norm_eps)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws class token and positions: normal with standard deviation ``W ** -0.5``."""
        for parameter in (self.class_embedding, self.positional_embedding):
            nn.init.normal_(parameter, std=self.width**-0.5)

    def forward(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """See :class:`~llama4_core.protocols.encoders.Encoder`."""
        check_tiles(inputs, self.shape, self.patch_embedding.weight)
        check_layers(out_layers, len(self.layers))
        patches = self.patch_embedding(patches_of(inputs, self.patch_size))
        last = self.class_embedding.to(patches.dtype).expand(1, patches.shape[1], -1)
        x = torch.cat([patches, last]) + self.positional_embedding[:, None]
        turns = rotations(self.grid, self.head_dim, self.theta, x.device)
        x, hidden = through(self.layers, self.norm_pre(x), turns, out_layers)
        return Encoded(_tiles_first(self.norm_post(x[:-1])), tuple(map(_without_class, hidden)))


def _tiles_first(x: Tensor) -> Tensor:
    """``[P, B, W] -> [B, P, W]``."""
    return x.transpose(0, 1).contiguous()


def _without_class(x: Tensor) -> Tensor:
    return _tiles_first(x[:-1])
