"""An image encoder in the style of SigLIP."""

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


class SiglipEncoder(nn.Module):
    """A transformer over the patches of each tile: learned positions, no class token.

    Patches are projected with a bias (a convolution whose stride is its size), positions are
    added, and blocks with the tanh form of the GELU follow, then a last norm. Of the spec's numbers
    ``theta`` has no meaning here.

    Source of the shape: Zhai et al., Sigmoid Loss for Language Image Pre-Training (2023), and
    transformers 5.23, ``models/siglip``, which parity is tested with.

    Args:
        spec: numbers of the encoder.
        parts: the assembler at this path.

    Raises:
        SpecError: the heads do not divide the width.
    """

    def __init__(self, spec: VisionSpec, parts: Parts) -> None:
        super().__init__()
        check_heads(spec, 1, parts.path)
        side = spec.image_size // spec.patch_size
        self.grid = (side, side)
        self.width = spec.width
        self.patch_size = spec.patch_size
        self.shape = (spec.channels, spec.image_size, spec.image_size)
        self.patch_embedding = Projection(spec.channels * spec.patch_size**2, spec.width, bias=True)
        self.positional_embedding = nn.Parameter(torch.empty(side * side, spec.width))
        self.layers = nn.ModuleList(
            EncoderBlock(
                spec.width,
                spec.heads,
                spec.mlp_width,
                side * side,
                spec.norm_eps,
                "tanh",
                parts.child(f"layers.{index}"),
            )
            for index in range(spec.layers)
        )
        self.norm_post = nn.LayerNorm(spec.width, spec.norm_eps)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the positions: normal with standard deviation ``W ** -0.5``."""
        nn.init.normal_(self.positional_embedding, std=self.width**-0.5)

    def forward(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """See :class:`~llama4_core.protocols.encoders.Encoder`."""
        check_tiles(inputs, self.shape, self.patch_embedding.weight)
        check_layers(out_layers, len(self.layers))
        patches = self.patch_embedding(patches_of(inputs, self.patch_size))
        x = patches + self.positional_embedding[:, None]
        x, hidden = through(self.layers, x, None, out_layers)
        features = self.norm_post(x).transpose(0, 1).contiguous()
        return Encoded(features, tuple(kept.transpose(0, 1).contiguous() for kept in hidden))
