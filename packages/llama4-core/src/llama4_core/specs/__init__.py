"""Model descriptions: frozen, validated, without torch."""

from llama4_core.specs.model import (
    AttentionSpec,
    DenseSpec,
    LayerSpec,
    MoESpec,
    ModelSpec,
    RopeScaling,
    RopeSpec,
    TemperatureSpec,
    TokenIds,
    VisionSpec,
)

__all__ = [
    "AttentionSpec",
    "DenseSpec",
    "LayerSpec",
    "MoESpec",
    "ModelSpec",
    "RopeScaling",
    "RopeSpec",
    "TemperatureSpec",
    "TokenIds",
    "VisionSpec",
]
