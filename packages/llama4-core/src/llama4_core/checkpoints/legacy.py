"""The older positions of Llama 4's image encoder, as the first of Meta's checkpoints hold them."""

from __future__ import annotations

import torch
from torch import Tensor

from llama4_core.errors import CheckpointError

OLD_POSITIONS = "vision_embeddings.vision_encoder.positional_embedding"
NEW_POSITIONS = f"{OLD_POSITIONS}_vlm"


def new_positions(old: Tensor, rows: int, columns: int) -> Tensor:
    """Positions as the encoder adds them, from the older ones.

    The older embedding has the class token first, and its grid is read half a place up and to the
    left of each place, linearly and with zeros outside:

    ``new[y, x] = (old[y - 1, x - 1] + old[y - 1, x] + old[y, x - 1] + old[y, x]) / 4``

    This is what the load hook of Meta's reference does: it asks for the values at ``2 x / columns -
    1``, which for torch's ``grid_sample`` is the corner of a place and not its middle. The encoder
    was trained on the result. The class token's row goes last, as it is. Sums are taken in float32.

    Source: llama-models 0.3.0, ``models/llama4/vision/encoder.py``, ``VisionEncoder.load_hook``. It
    refuses another grid, and so does this.

    Args:
        old: ``[1 + rows * columns, W]``, class token first.
        rows: of the grid of places.
        columns: of it.

    Returns:
        ``[rows * columns + 1, W]``, class token last, in the dtype of ``old``.

    Raises:
        CheckpointError: another number of places.
    """
    if old.dim() != 2 or old.shape[0] != rows * columns + 1:
        raise CheckpointError(
            f"{OLD_POSITIONS} has {list(old.shape)}; expected {rows * columns + 1} rows, one for "
            f"the class token and one for each place of {rows} x {columns}"
        )
    grid = old[1:].float().unflatten(0, (rows, columns))
    # A row of zeros above and a column at the left: what lies outside.
    wide = torch.nn.functional.pad(grid, (0, 0, 1, 0, 1, 0))
    sums = wide[:-1, :-1] + wide[:-1, 1:] + wide[1:, :-1] + wide[1:, 1:]
    return torch.cat([(sums / 4).flatten(0, 1), old[:1].float()]).to(old.dtype)
