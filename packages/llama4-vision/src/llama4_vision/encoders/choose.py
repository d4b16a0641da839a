"""The encoder of a description and the adapter behind it, from the catalogue."""

from __future__ import annotations

from typing import Any

from llama4_core.protocols.parts import Parts
from llama4_core.protocols.problems import EncoderProblem
from llama4_core.specs.model import VisionSpec


def encoder_and_adapter(spec: VisionSpec, parts: Parts) -> tuple[Any, Any]:
    """Builds the parts in the slots ``encoder`` and ``adapter`` at this path."""
    problem = EncoderProblem(
        "vision",
        spec.channels,
        spec.image_size,
        spec.image_size,
        spec.patch_size,
        parts.dtype,
        parts.device,
    )
    encoder = parts.build(
        "encoders", "encoder", spec.encoder, spec, parts.child("encoder"), problem=problem
    )
    adapter = parts.build(
        "adapters",
        "adapter",
        spec.adapter,
        spec,
        encoder.grid,
        encoder.width,
        parts.child("adapter"),
    )
    return encoder, adapter
