"""Early fusion: features of other inputs in the place of embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from llama4_core.errors import ModalityError

# Others are packed forms, which say nothing about what is multiplied by them.
_COMPUTED = frozenset({torch.float32, torch.bfloat16, torch.float16, torch.float64})


def fuse(hidden: Tensor, places: Tensor, features: Tensor) -> Tensor:
    """Replaces ``hidden[n]`` by the next feature wherever ``places[n]``, in order.

    Every other row keeps its bits, and gradients reach features and the other rows alike. The
    shapes do not depend on data, so that a compiled forward is one graph; what is compiled must
    have been counted before, as :func:`check_places` does here.

    Args:
        hidden: ``[N, D]``.
        places: ``[N]`` bool.
        features: ``[M, D]``.

    Returns:
        ``[N, D]`` in hidden's dtype.

    Raises:
        ModalityError: M is not the number of places, or the widths differ.
    """
    if not torch.compiler.is_compiling():
        check_places(int(places.sum()) if places.device.type != "meta" else None, features, hidden)
    if features.shape[0] == 0:
        return hidden
    nearest = (places.cumsum(0) - 1).clamp(0, features.shape[0] - 1)
    return torch.where(places[:, None], features.to(hidden.dtype)[nearest], hidden)


def input_dtype(modality: Any, otherwise: torch.dtype | None) -> torch.dtype | None:
    """What inputs of a modality are cast to: what its weights are in.

    A checkpoint may keep its eyes in another dtype than its text model; features are cast where
    they are fused.

    Args:
        modality: a module, or anything else.
        otherwise: where it has no weights that inputs could be multiplied by.
    """
    weights = modality.parameters() if isinstance(modality, nn.Module) else ()
    found = (weight.dtype for weight in weights if weight.dtype in _COMPUTED)
    return next(found, otherwise)


def check_places(count: int | None, features: Tensor, hidden: Tensor) -> None:
    """Raises unless there are as many features as places, and they are as wide as the model.

    Args:
        count: placeholder tokens in the stream; None where they cannot be counted (meta tensors).
        features: ``[M, D]``.
        hidden: ``[N, D]``.
    """
    if features.dim() != 2 or features.shape[1] != hidden.shape[1]:
        raise ModalityError(
            f"features have shape {list(features.shape)}; expected [M, {hidden.shape[1]}], as wide "
            "as the text model"
        )
    if count is not None and features.shape[0] != count:
        raise ModalityError(
            f"got {features.shape[0]} features for {count} placeholder tokens; expected one for "
            "each: take tokens and features from the same pictures"
        )
