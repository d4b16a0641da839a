"""Pictures and films in the stream of tokens of a text model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from llama4_core.errors import ModalityError, SpecError
from llama4_core.model.projection import Projection
from llama4_core.protocols.modalities import Reading
from llama4_core.protocols.parts import Parts
from llama4_core.specs.model import ModelSpec
from llama4_vision.encoders.choose import encoder_and_adapter
from llama4_vision.images.limits import Limits

if TYPE_CHECKING:
    from llama4_core.tokenizers.tokenizer import Tokenizer

FRAME_TILES = 1
"""Largest grid of tiles of one frame of a film, unless ``frame_tiles`` is set. No convention is
published. With Scout's numbers, eight frames of one tile are 1,176 tokens beside their markers;
with the grids of pictures, frames of 1920 x 1080 would be 18,576."""


class VisionModality(nn.Module):
    """Encoder, adapter and projection: the component ``vision`` of the socket modalities.

    A film is one input: some of its frames as pictures, each behind the text that says where in the
    film it is (:mod:`llama4_vision.video.markers`).

    Args:
        spec: of the model, with its vision.
        parts: the assembler at this path; slots ``encoder`` and ``adapter``.

    Attributes:
        limits: what is refused before it is decoded: ``model.vision.limits = Limits(images=48)``.
            Films count as one image each, and ``frames`` is for each film.
        frame_tiles: largest grid of tiles of one frame of a film; ``limits.tiles`` if that is less.

    Raises:
        SpecError: the model has no vision, or no token to put features at.
    """

    kinds: tuple[str, ...] = ("image", "video")

    def __init__(self, spec: ModelSpec, parts: Parts) -> None:
        super().__init__()
        vision = spec.vision
        if vision is None or spec.tokens.image is None:
            raise SpecError(
                f"{spec.name} has no vision, or no tokens.image to put features at; set both"
            )
        self.limits = Limits()
        self.frame_tiles = FRAME_TILES
        self.placeholder = spec.tokens.image
        self._spec = vision
        self.encoder, self.adapter = encoder_and_adapter(vision, parts)
        self.projector = Projection(self.adapter.width, spec.width)

    @property
    def limits(self) -> Limits:
        """What is refused before it is decoded.

        Raises:
            ModalityError: set to something else than a Limits.
        """
        return self._limits

    @limits.setter
    def limits(self, value: Limits) -> None:
        if not isinstance(value, Limits):
            raise ModalityError(f"limits are {value!r:.80}; expected Limits(images=..., ...)")
        self._limits = value

    @property
    def frame_tiles(self) -> int:
        """Largest grid of tiles of one frame of a film.

        Raises:
            ModalityError: set to something else than a whole number from 1.
        """
        return self._frame_tiles

    @frame_tiles.setter
    def frame_tiles(self, value: int) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ModalityError(f"frame_tiles is {value!r:.80}; expected a whole number from 1")
        self._frame_tiles = value

    def forward(self, inputs: Tensor) -> Tensor:
        """Features of tiles.

        Args:
            inputs: ``[B, C, height, width]`` in the dtype and on the device of the weights.

        Returns:
            ``[B, T, D]``.

        Raises:
            ModalityError: another shape or dtype, or no tile.
        """
        features = self.adapter(self.encoder(inputs).features)
        # Some checkpoints store the projection as they do the text model, and not as the encoder.
        projected: Tensor = self.projector(features.to(self.projector.weight.dtype))
        return projected

    def read(self, parts: Sequence[Any], tokenizer: Tokenizer | None) -> list[Reading]:
        """See :class:`~llama4_core.protocols.modalities.Modality`.

        Args:
            parts: images and films of one prompt, in order.
            tokenizer: of the model; it needs the special tokens that
                :mod:`llama4_vision.images.layout` names.

        Raises:
            ModalityError: no such parts, or too many; one cannot be read; the tokenizer cannot
                write pictures down.
        """
        # Late: a training run that feeds tiles needs no Pillow to start.
        from llama4_vision.reading import Reader

        for part in parts:
            _kind(part)
        self.limits.check_images(len(parts))
        if not parts:
            return []
        reader = Reader(
            self._spec,
            self.adapter.tokens,
            self.placeholder,
            tokenizer,
            self.limits,
            self.frame_tiles,
        )
        return [
            reader.film(part.source, part.frames, part.fps)
            if _kind(part) == "video"
            else reader.image(part.source)
            for part in parts
        ]

    def annotate(self, part: Any, text: str, path: Path) -> list[dict[str, Any]]:
        """Draws the boxes that ``text`` says on a picture, or on the first frame of a film.

        Args:
            part: an image or a film.
            text: in the convention of :mod:`llama4_vision.grounding.boxes`.
            path: of the new picture.

        Returns:
            See :func:`llama4_vision.grounding.annotate.annotate`.

        Raises:
            ModalityError: the part cannot be read, or ``path`` cannot be written.
        """
        from llama4_vision.grounding.annotate import annotate
        from llama4_vision.images.open import open_image
        from llama4_vision.video.frames import read_frames

        if _kind(part) == "video":
            image = read_frames(part.source, count=1, limits=self.limits)[0].image
        else:
            image = open_image(part.source, self.limits)
        return annotate(image, text, path)


def _kind(part: Any) -> str:
    """The kind of a part: "image" or "video"."""
    kind = type(part).__name__.lower()
    if kind not in VisionModality.kinds or not hasattr(part, "source"):
        raise ModalityError(
            f"got {part!r:.80} to look at; expected an Image(source) or a Video(source)"
        )
    return kind
