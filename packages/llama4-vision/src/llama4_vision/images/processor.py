"""From a picture to what an encoder takes: the whole way in one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from llama4_core.errors import ModalityError
from llama4_vision.images.key import new_digest
from llama4_vision.images.limits import Limits, too_many_tiles
from llama4_vision.images.open import open_image
from llama4_vision.images.pixels import cut, resize
from llama4_vision.images.tiling import TilePlan, tile_plan

if TYPE_CHECKING:
    from torch import Tensor

    from llama4_core.specs.model import VisionSpec

CHANNELS = 3
"""Red, green, blue."""


@dataclass(frozen=True, eq=False)
class ProcessedImage:
    """A picture made ready.

    Attributes:
        pixel_values: ``[plan.tiles, 3, S, S]`` float32 in [-1, 1], the global tile last.
        plan: where the pixels went.
        key: of the picture (:func:`~llama4_vision.images.key.image_key`), before any resizing.
    """

    pixel_values: Tensor
    plan: TilePlan
    key: str


class ImageProcessor:
    """Makes pictures ready for an encoder, as Llama 4 was trained.

    Args:
        tile: S, edge of a tile in pixels: what the encoder takes.
        max_tiles: largest grid of one picture, without the global tile; ``limits.tiles`` when None.
        limits: of bytes, pixels and tiles; the defaults of :class:`Limits` when None.

    Raises:
        ModalityError: ``max_tiles`` is above the limit, or a number is no whole number from 1.
    """

    def __init__(
        self, tile: int = 336, max_tiles: int | None = None, limits: Limits | None = None
    ) -> None:
        self.limits = limits or Limits()
        self.tile = tile
        self.max_tiles = self.limits.tiles if max_tiles is None else max_tiles
        tile_plan(1, 1, self.tile, self.max_tiles)
        if self.max_tiles > self.limits.tiles:
            raise ModalityError(too_many_tiles(self.max_tiles, self.limits.tiles))

    @classmethod
    def from_spec(cls, vision: VisionSpec, limits: Limits | None = None) -> ImageProcessor:
        """The processor for a model's encoder.

        Raises:
            ModalityError: the encoder does not take pictures of three channels.
        """
        if vision.channels != CHANNELS:
            raise ModalityError(
                f"the encoder takes {vision.channels} channels; pictures are read as {CHANNELS} "
                "(RGB)"
            )
        return cls(vision.image_size, limits=limits)

    def plan(self, width: int, height: int) -> TilePlan:
        """How a picture of ``width x height`` pixels would be cut."""
        return tile_plan(width, height, self.tile, self.max_tiles)

    def __call__(self, source: Any) -> ProcessedImage:
        """Opens a picture (see :func:`~llama4_vision.images.open.open_image`) and processes it.

        Raises:
            ModalityError: it cannot be read, is too large, or is damaged.
        """
        return self.process(open_image(source, self.limits))

    def process(self, image: Image.Image, key: str | None = None) -> ProcessedImage:
        """Makes a picture ready that is open already.

        Args:
            image: of mode RGB, as :func:`~llama4_vision.images.open.open_image` returns it.
            key: the picture's key where the caller has it; hashing takes as long as resizing.

        Raises:
            ModalityError: the picture is not RGB, is too large, or cannot be decoded.
        """
        if not isinstance(image, Image.Image) or image.mode != "RGB":
            kind = getattr(image, "mode", type(image).__name__)
            raise ModalityError(
                f"the picture is {kind}; expected a Pillow image of mode RGB: open it with "
                "open_image"
            )
        self.limits.check_size(*image.size)
        plan = self.plan(*image.size)
        digest = new_digest(image) if key is None else None
        sizes = [(plan.resized_width, plan.resized_height)]
        if plan.has_global:
            sizes.append((plan.tile, plan.tile))
        resized, *squashed = resize(image, sizes, digest)
        tiles = cut(plan, resized, squashed[0] if squashed else None)
        return ProcessedImage(tiles, plan, key or digest.hexdigest())  # type: ignore[union-attr]
