"""What this package offers to the catalogue. Imports without torch."""

from __future__ import annotations

from llama4_core.plugins.component import Component
from llama4_core.plugins.hookspecs import hookimpl
from llama4_vision import support

MODALITIES = (
    Component(
        "vision",
        "llama4_vision.modality:VisionModality",
        "pictures and films: tiles, encoder, adapter, projection",
        priority=10,
    ),
)

ENCODERS = (
    Component(
        "llama4",
        "llama4_vision.encoders.llama4:Llama4Encoder",
        "Llama 4: rotary in two dimensions, class token last",
        supports=support.square_images,
        priority=10,
    ),
    Component(
        "siglip",
        "llama4_vision.encoders.siglip:SiglipEncoder",
        "SigLIP-style: learned positions, no class token",
        supports=support.square_images,
    ),
)

ADAPTERS = (
    Component(
        "pixel-shuffle-mlp",
        "llama4_vision.adapters.shuffle:PixelShuffleMlp",
        "Llama 4: blocks of places side by side, then two layers, GELU after both",
        priority=10,
    ),
    Component(
        "pooled-linear",
        "llama4_vision.adapters.pooled:PooledLinear",
        "the mean of each block of places, then one layer",
    ),
)

COMMANDS = (
    Component(
        "show.tiling", "llama4_vision.cli.tiling:Command", "draw how a picture is cut into tiles"
    ),
)


@hookimpl
def llama4_modalities() -> tuple[Component, ...]:
    """Pictures and films."""
    return MODALITIES


@hookimpl
def llama4_encoders() -> tuple[Component, ...]:
    """Our encoders."""
    return ENCODERS


@hookimpl
def llama4_adapters() -> tuple[Component, ...]:
    """Our adapters."""
    return ADAPTERS


@hookimpl
def llama4_commands() -> tuple[Component, ...]:
    """Our subcommand."""
    return COMMANDS
