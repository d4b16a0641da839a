"""Layers by rule: the pattern that makes a stack of blocks a Llama 4."""

from __future__ import annotations

from collections.abc import Collection

from llama4_core.errors import SpecError
from llama4_core.specs.model import (
    AttentionSpec,
    DenseSpec,
    LayerSpec,
    MoESpec,
    RopeSpec,
    TemperatureSpec,
)

MOST_LAYERS = 10_000
"""Blocks of a model, at most: a damaged file must not ask for billions of them."""


def check_depth(count: int, where: str = "the model") -> None:
    """Refuses a number of blocks that no model has, before anything of that size is made.

    Raises:
        SpecError: ``count`` is above :data:`MOST_LAYERS`.
    """
    if count > MOST_LAYERS:
        raise SpecError(
            f"{where} has {count} layers; expected at most {MOST_LAYERS}: is the file damaged?"
        )


def every(interval: int | None, layers: int) -> tuple[int, ...]:
    """Indices ``i`` below ``layers`` with ``(i + 1) % interval == 0``; none for interval None.

    Both patterns of Llama 4 have this phase: position-free layers 3, 7, ... for interval 4,
    mixtures of experts in 1, 3, ... for step 2.

    Raises:
        SpecError: ``interval`` is below 1, or there are more than :data:`MOST_LAYERS`.
    """
    check_depth(layers)
    if interval is None:
        return ()
    if interval < 1:
        raise SpecError(
            f"the interval between special layers is {interval}; expected at least 1, or none"
        )
    return tuple(range(interval - 1, layers, interval))


def llama4_layers(
    count: int,
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    rope: RopeSpec,
    chunk: int | None,
    qk_norm: bool,
    temperature: TemperatureSpec | None,
    position_free: Collection[int],
    moe_layers: Collection[int],
    moe: MoESpec | None,
    dense: DenseSpec | None,
    unchunked: Collection[int] = (),
) -> tuple[LayerSpec, ...]:
    """The blocks of a Llama 4, first to last.

    Args:
        count: number of blocks.
        heads: H.
        kv_heads: G.
        head_dim: K.
        rope: of the layers that have positions.
        chunk: block size of their attention; None: they see everything before them.
        qk_norm: weightless norm of q and k, only where there are positions.
        temperature: of the position-free layers.
        position_free: indices of the layers without rotary encoding, with global attention.
        moe_layers: indices of the layers with a mixture of experts.
        moe: needed when ``moe_layers`` is not empty.
        dense: needed when a layer is not in ``moe_layers``.
        unchunked: indices of layers that have positions and yet no chunk.

    Raises:
        SpecError: an index has no layer, a feed-forward that is needed is missing, or there are
            more than :data:`MOST_LAYERS`.
    """
    check_depth(count)
    for what, indices in (
        ("position-free", position_free),
        ("mixture-of-experts", moe_layers),
        ("unchunked", unchunked),
    ):
        outside = sorted(i for i in indices if not 0 <= i < count)
        if outside:
            raise SpecError(
                f"the {what} layers name layer {outside[0]}; expected indices from 0 to {count - 1}"
            )
    free, expert, whole = set(position_free), set(moe_layers), set(unchunked)

    def attention(layer: int) -> AttentionSpec:
        if layer in free:
            return AttentionSpec("nope-global", heads, kv_heads, head_dim, temperature=temperature)
        if chunk is None or layer in whole:
            return AttentionSpec("full-rope", heads, kv_heads, head_dim, rope=rope, qk_norm=qk_norm)
        return AttentionSpec(
            "irope-chunked", heads, kv_heads, head_dim, rope=rope, chunk=chunk, qk_norm=qk_norm
        )

    def feed_forward(layer: int) -> DenseSpec | MoESpec:
        chosen = moe if layer in expert else dense
        if chosen is None:
            kind = "mixture of experts" if layer in expert else "dense feed-forward"
            raise SpecError(f"layer {layer} needs the numbers of a {kind}, and none are given")
        return chosen

    return tuple(LayerSpec(attention(i), feed_forward(i)) for i in range(count))
