"""One differentiable forward over a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from llama4_core.protocols.routing import Routing
from llama4_train.errors import TrainingError
from llama4_train.protocols import Batch


def hidden_states(model: Any, batch: Batch) -> tuple[Tensor, Sequence[Routing | None]]:
    """Hidden states ``[N, D]`` after the final norm, and each layer's routing.

    Documents attend within themselves, with positions of their own. Pictures and films are encoded
    by the model's modalities and put in the place of their placeholder tokens.

    Raises:
        TrainingError: the batch has inputs that the model cannot read.
        ModalityError: inputs and placeholder tokens do not fit.
    """
    modalities = {modality.placeholder: modality for modality in model.modalities}
    for placeholder in batch.inputs:
        if placeholder not in modalities:
            known = ", ".join(map(str, modalities)) or "none: it is a text model"
            raise TrainingError(
                f"the batch has inputs for token {placeholder}; this model reads {known}: train a "
                "multimodal model, or leave pictures out of the data"
            )
    features = {
        placeholder: modalities[placeholder](inputs.to(model.device, model.dtype)).flatten(0, 1)
        for placeholder, inputs in batch.inputs.items()
    }
    hidden, routings = model(batch.tokens, model.packed(batch.lengths), features or None)
    return hidden, routings


def head_weight(model: Any) -> Tensor:
    """The head's rows ``[V, D]``: the embedding's where they are tied."""
    weight: Tensor = model.embedding.weight if model.head is None else model.head.weight
    return weight
