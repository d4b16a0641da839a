"""Which tokens stand for a picture in the stream of text. No torch here.

::

    one tile    image_start  image patch*T  image_end
    a grid      image_start  { patch*T (tile_x_separator patch*T)*  tile_y_separator }*rows
                             image patch*T  image_end

Every row of a grid ends with ``tile_y_separator``, the last one too; the tile after ``image`` is
the global one. So 1920 x 1080 pixels, 3 rows of 5 tiles with T = 144, are 2,322 tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

from llama4_core.errors import ModalityError
from llama4_vision.images.tiling import TilePlan

IMAGE_START = "<|image_start|>"
IMAGE_END = "<|image_end|>"
IMAGE = "<|image|>"
PATCH = "<|patch|>"
TILE_X_SEPARATOR = "<|tile_x_separator|>"
TILE_Y_SEPARATOR = "<|tile_y_separator|>"


def layout(plan: TilePlan, tokens_per_tile: int) -> tuple[str, ...]:
    """Names of the special tokens of one picture, in order.

    Args:
        plan: of the picture's tiles.
        tokens_per_tile: T, features of one tile; 144 in the published models.

    Raises:
        ModalityError: ``tokens_per_tile`` is no whole number from 1.
    """
    count = tokens_per_tile
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ModalityError(f"tokens_per_tile is {count!r:.80}; expected a whole number from 1")
    patches = (PATCH,) * count
    grid: tuple[str, ...] = ()
    if plan.has_global:
        row = (*patches, *(TILE_X_SEPARATOR, *patches) * (plan.columns - 1), TILE_Y_SEPARATOR)
        grid = row * plan.rows
    return (IMAGE_START, *grid, IMAGE, *patches, IMAGE_END)


def layout_ids(
    plan: TilePlan, tokens_per_tile: int, specials: Mapping[str, int]
) -> tuple[int, ...]:
    """Ids of the tokens of one picture, in order.

    Args:
        plan: of the picture's tiles.
        tokens_per_tile: T, features of one tile.
        specials: name -> id of the tokenizer's special tokens.

    Raises:
        ModalityError: the tokenizer lacks one of the tokens.
    """
    names = layout(plan, tokens_per_tile)
    missing = [name for name in dict.fromkeys(names) if name not in specials]
    if missing:
        raise ModalityError(
            f"the tokenizer has no {', '.join(missing)}; pictures need a Llama 4 tokenizer, or one "
            "with these special tokens"
        )
    ids = {name: specials[name] for name in dict.fromkeys(names)}
    return tuple(ids[name] for name in names)
