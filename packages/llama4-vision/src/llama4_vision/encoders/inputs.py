"""What encoders refuse, in one place: numbers that do not fit, and tiles that are none."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llama4_core.errors import ModalityError, SpecError
from llama4_core.specs.model import VisionSpec


def check_heads(spec: VisionSpec, multiple: int, path: str) -> None:
    """Raises SpecError unless the heads divide the width into multiples of ``multiple``."""
    if spec.width % spec.heads or spec.width // spec.heads % multiple:
        raise SpecError(
            f"{path}: VisionSpec.width is {spec.width} with {spec.heads} heads; expected a width "
            f"that is {spec.heads} times a multiple of {multiple}"
        )


def check_tiles(tiles: Tensor, shape: tuple[int, int, int], weight: Tensor) -> None:
    """Refuses what is no batch of tiles.

    Args:
        tiles: what an encoder was called with.
        shape: channels, height and width of a tile.
        weight: the first that the tiles are multiplied by.

    Raises:
        ModalityError: another shape, no tile, or another dtype than the weights have.
    """
    expected = f"[B, {shape[0]}, {shape[1]}, {shape[2]}]"
    if tiles.dim() != 4 or tuple(tiles.shape[1:]) != shape:
        raise ModalityError(f"tiles have shape {list(tiles.shape)}; expected {expected}")
    if tiles.shape[0] == 0:
        raise ModalityError(f"got no tiles; expected {expected} with at least one")
    if not tiles.is_floating_point():
        raise ModalityError(
            f"tiles are {tiles.dtype}; expected floating-point numbers in [-1, 1], as "
            "llama4_vision.ImageProcessor makes them"
        )
    if tiles.dtype != weight.dtype and not torch.is_autocast_enabled(tiles.device.type):
        raise ModalityError(
            f"tiles are {tiles.dtype} and the encoder's weights {weight.dtype}; pass "
            f"tiles.to({weight.dtype})"
        )


def check_layers(out_layers: Sequence[int], layers: int) -> None:
    """Refuses layers that do not exist.

    Raises:
        ModalityError: one is no whole number from 0, too large, or asked for twice.
    """
    for index in out_layers:
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < layers:
            raise ModalityError(
                f"out_layers holds {index!r}; expected whole numbers from 0 to {layers - 1}, the "
                "last of the encoder's blocks"
            )
    if len(set(out_layers)) != len(out_layers):
        raise ModalityError(
            f"out_layers is {list(out_layers)}; expected each block once: use its tensor twice"
        )
