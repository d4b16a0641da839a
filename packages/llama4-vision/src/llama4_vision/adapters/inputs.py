"""What adapters refuse, in one place."""

from __future__ import annotations

from torch import Tensor

from llama4_core.errors import ModalityError, SpecError
from llama4_core.specs.model import VisionSpec


def block_of(spec: VisionSpec, grid: tuple[int, int], path: str) -> int:
    """Edge of the squares of places that become one token: ``1 / shuffle_ratio``.

    Raises:
        SpecError: the ratio is not one over a whole number, or the squares do not fill the grid.
    """
    block = round(1 / spec.shuffle_ratio)
    # Ratios are written down by hand; a third has no exact float.
    if block < 1 or abs(block * spec.shuffle_ratio - 1) > 1e-6:
        raise SpecError(
            f"{path}: VisionSpec.shuffle_ratio is {spec.shuffle_ratio}; expected one over a whole "
            "number, such as 0.5"
        )
    if grid[0] % block or grid[1] % block:
        raise SpecError(
            f"{path}: VisionSpec.shuffle_ratio {spec.shuffle_ratio} takes squares of {block} x "
            f"{block} places, which do not fill a grid of {grid[0]} x {grid[1]}; choose image_size "
            "and patch_size for a multiple"
        )
    return block


def check_features(features: Tensor, places: int, width: int) -> None:
    """Refuses what is no encoder's features.

    Raises:
        ModalityError: another shape.
    """
    if features.dim() != 3 or tuple(features.shape[1:]) != (places, width):
        raise ModalityError(
            f"features have shape {list(features.shape)}; expected [B, {places}, {width}], as this "
            "adapter's encoder gives them"
        )
