"""Activation checkpointing: blocks are run again in the backward instead of being remembered."""

from __future__ import annotations

import functools
from typing import Any

from torch.utils.checkpoint import checkpoint

from llama4_train.errors import RecipeError


def recompute(model: Any, kind: str) -> list[int]:
    """Lets blocks of a model forget their activations.

    Forward is pure, so that running it twice counts nothing twice. The names of modules and
    parameters stay what they are.

    Args:
        model: with ``layers``; its vision encoder's are treated alike.
        kind: "none", "full" for every block, "selective" for every second one: half of the memory
            saved for half of the work.

    Returns:
        The numbers of the blocks of the text model that are run twice.

    Raises:
        RecipeError: no such kind.
    """
    if kind == "none":
        return []
    if kind not in ("full", "selective"):
        raise RecipeError(f"checkpointing is {kind!r}; expected none, full or selective")
    each = 1 if kind == "full" else 2
    chosen = list(range(0, len(model.layers), each))
    encoder = getattr(model.vision, "encoder", None)
    blocks = [model.layers[index] for index in chosen]
    blocks += list(getattr(encoder, "layers", ()))[::each]
    for block in blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
    return chosen
