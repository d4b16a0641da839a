"""The arithmetic that a step of training needs, from the numbers of a description. No torch.

A product of ``[m, k]`` and ``[k, n]`` is ``2 m k n`` operations. What counts is what the model
needs, whoever computes it: of a mixture the experts that a token visits, of attention the pairs of
positions that may see each other. Padding, masked scores and what checkpointing computes again are
no work done. The backward is twice the forward: one product for the input, one for the weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llama4_core.errors import SpecError
from llama4_core.specs.model import AttentionSpec, DenseSpec, LayerSpec, ModelSpec, VisionSpec

_BACKWARD = 2


@dataclass(frozen=True)
class Flops:
    """Floating-point operations, of products and of attention apart.

    Attributes:
        products: of activations with weights.
        attention: of queries with keys, and of their weights with values.
    """

    products: int
    attention: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.products + self.attention

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.products + other.products, self.attention + other.attention)

    def times(self, factor: int) -> Flops:
        """So many times as many."""
        return Flops(self.products * factor, self.attention * factor)


def training_flops(
    spec: ModelSpec, lengths: Sequence[int], *, targets: int | None = None, tiles: int = 0
) -> Flops:
    """Forward and backward of documents, where every weight is trained.

    Args:
        spec: of the model.
        lengths: tokens of each document.
        targets: tokens whose logits are computed; None for all.
        tiles: pieces of pictures and films that the encoder sees.

    Raises:
        SpecError: a mixer or an encoder whose arithmetic only its component knows.
    """
    return forward_flops(spec, lengths, targets=targets, tiles=tiles).times(1 + _BACKWARD)


def forward_flops(
    spec: ModelSpec, lengths: Sequence[int], *, targets: int | None = None, tiles: int = 0
) -> Flops:
    """The forward alone; arguments and errors as for :func:`training_flops`."""
    tokens = sum(lengths)
    found = Flops(2 * spec.vocabulary * spec.width * (tokens if targets is None else targets), 0)
    for layer in spec.layers:
        _check_mixer(layer)
        weights = _attention_weights(layer.attention, spec.width)
        weights += _feed_forward_weights(layer, spec.width)
        found += Flops(2 * weights * tokens, _attention(layer.attention, lengths))
    if tiles:
        if spec.vision is None:
            raise SpecError(f"{spec.name} has no encoder of pictures; got {tiles} tiles")
        found += _tile(spec.vision, spec.width).times(tiles)
    return found


def visible_pairs(length: int, chunk: int | None = None, window: int | None = None) -> int:
    """Pairs of a position and one that it sees, in one causal document.

    Args:
        length: tokens.
        chunk: positions see no others than those of their own block of this size.
        window: and no others than this many of the latest.
    """
    blocks, rest = divmod(length, chunk) if chunk else (0, length)
    return blocks * _in_block(chunk or 0, window) + _in_block(rest, window)


def _in_block(length: int, window: int | None) -> int:
    rising = min(length, window or length)
    return rising * (rising + 1) // 2 + (length - rising) * rising


def _check_mixer(layer: LayerSpec) -> None:
    if layer.attention.mixer != "softmax":
        raise SpecError(
            f"only the mixer {layer.attention.mixer!r} itself knows its arithmetic; operations are "
            "counted for softmax attention"
        )


def _attention_weights(spec: AttentionSpec, width: int) -> int:
    return 2 * width * (spec.heads + spec.kv_heads) * spec.head_dim


def _feed_forward_weights(layer: LayerSpec, width: int) -> int:
    """Weights that one token meets."""
    spec = layer.feed_forward
    if isinstance(spec, DenseSpec):
        return 3 * width * spec.width
    return width * (spec.experts + 3 * spec.top_k * spec.width + 3 * spec.shared_width)


def _attention(spec: AttentionSpec, lengths: Sequence[int]) -> int:
    pairs = sum(visible_pairs(length, spec.chunk, spec.window) for length in lengths)
    return 4 * spec.heads * spec.head_dim * pairs


def _tile(vision: VisionSpec, width: int) -> Flops:
    """One tile through encoder, adapter and the projection into the text model."""
    if vision.foreign_parts:
        slot, got = vision.foreign_parts[0]
        raise SpecError(
            f"only the {slot} {got!r} itself knows its arithmetic; operations are counted for "
            "Llama 4's own"
        )
    patches = (vision.image_size // vision.patch_size) ** 2
    places = patches + 1
    block = 4 * vision.width**2 + 2 * vision.width * vision.mlp_width
    stem = vision.channels * vision.patch_size**2 * vision.width
    # One token for each group of patches that the shuffle puts together.
    tokens = round(patches * vision.shuffle_ratio**2)
    behind = vision.adapter_parameters or 0
    behind += vision.adapter_output * width
    products = patches * stem + places * vision.layers * block + tokens * behind
    return Flops(2 * products, 4 * vision.layers * vision.width * places**2)
