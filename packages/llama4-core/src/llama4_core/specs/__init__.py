"""Model descriptions: frozen, validated, without torch."""

from llama4_core.specs.model import (
    AttentionSpec,
    DenseSpec,
    LayerSpec,
    ModelSpec,
    MoESpec,
    RopeScaling,
    RopeSpec,
    TemperatureSpec,
    TokenIds,
    VisionSpec,
)
from llama4_core.specs.presets import PRESETS, preset

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
    "PRESETS",
    "preset",
]
