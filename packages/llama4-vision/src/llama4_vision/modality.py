"""Pictures and films in the stream of tokens of a text model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from llama4_core.errors import ModalityError, SpecError
from llama4_core.model.projection import Projection
from llama4_core.protocols.modalities import Reading
from llama4_core.protocols.parts import Parts
from llama4_core.protocols.problems import EncoderProblem
from llama4_core.specs.model import ModelSpec


class VisionModality(nn.Module):
    """Encoder, adapter and projection: the component ``vision`` of the socket modalities.

    Args:
        spec: of the model, with its vision.
        parts: the assembler at this path; slots ``encoder`` and ``adapter``.
    """

    kinds: tuple[str, ...] = ("image", "video")

    def __init__(self, spec: ModelSpec, parts: Parts) -> None:
        super().__init__()
        vision = spec.vision
        if vision is None or spec.tokens.image is None:
            raise SpecError(
                f"{spec.name} has no vision, or no tokens.image to put features at; set both"
            )
        self.placeholder = spec.tokens.image
        self.encoder = parts.build(
            "encoders",
            "encoder",
            vision.encoder,
            vision,
            parts.child("encoder"),
            problem=EncoderProblem(
                "vision",
                vision.channels,
                vision.image_size,
                vision.image_size,
                vision.patch_size,
                parts.dtype,
                parts.device,
            ),
        )
        self.adapter = parts.build(
            "adapters",
            "adapter",
            vision.adapter,
            vision,
            self.encoder.grid,
            self.encoder.width,
            parts.child("adapter"),
        )
        self.projector = Projection(self.adapter.width, spec.width)

    def forward(self, inputs: Tensor) -> Tensor:
        """``[B, C, height, width] -> [B, T, D]``."""
        features: Tensor = self.projector(self.adapter(self.encoder(inputs).features))
        return features

    def read(self, parts: Sequence[Any], tokenizer: Any) -> list[Reading]:
        """See :class:`~llama4_core.protocols.modalities.Modality`."""
        raise ModalityError("reading pictures is not written yet")

    def annotate(self, part: Any, text: str, path: Path) -> list[dict[str, Any]]:
        """See :class:`~llama4_core.protocols.modalities.Modality`."""
        raise ModalityError("drawing on pictures is not written yet")
