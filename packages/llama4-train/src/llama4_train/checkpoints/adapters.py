"""Adapters of a run: put on as its recipe says, and merged when its model leaves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llama4_core.assembly.assemble import assemble
from llama4_core.errors import CheckpointError
from llama4_core.specs import ModelSpec
from llama4_train.lora.apply import apply_lora
from llama4_train.lora.merge import merge
from llama4_train.recipe import LoraPart, ModelPart


def adapt(model: Any, part: LoraPart, seed: int) -> None:
    """Puts the adapters of a recipe on a model."""
    alpha = 2.0 * part.rank if part.alpha is None else part.alpha
    apply_lora(model, part.rank, alpha, part.targets, part.dropout, seed=seed)


def merged(
    spec: ModelSpec, part: ModelPart, lora: LoraPart, tensors: Mapping[str, Tensor], place: Path
) -> dict[str, Tensor]:
    """The state of an ordinary model that computes what the stored one with adapters does.

    Args:
        spec: of the model.
        part: of the recipe that it was trained by.
        lora: its adapters.
        tensors: the stored state.
        place: where it was stored, for errors.

    Raises:
        CheckpointError: the state is not that of such a model.
    """
    model = assemble(spec, part.overrides, device="cpu", dtype=spec.dtype)
    adapt(model, lora, 0)
    fill(model, tensors, place)
    merge(model)
    state: dict[str, Tensor] = model.state_dict()
    return state


def fill(model: Any, tensors: Mapping[str, Tensor], place: Path) -> None:
    """Copies a stored state into a model, in the dtypes that this has.

    Raises:
        CheckpointError: the model has other weights; names the first.
    """
    own = model.state_dict()
    odd = sorted(own.keys() ^ tensors.keys()) or [
        name for name, tensor in own.items() if tensor.shape != tensors[name].shape
    ]
    if odd:
        raise CheckpointError(
            f"{place}: does not fit the model: {odd[0]} is missing or has another shape on one "
            "side; export the run (llama4_train.checkpoints.export), and start from that folder"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
