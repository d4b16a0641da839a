"""Adapters written into the weights, and taken out again exactly."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from llama4_train.lora.attach import (
    ASIDE,
    CHILD,
    Adapters,
    Merged,
    adapted,
    attach,
    detach,
    places,
    refuse_none,
)
from llama4_train.lora.low_rank import LowRank


@torch.no_grad()
def merge(model: nn.Module) -> list[str]:
    """Writes every adapter into its weight: ``W + (alpha / rank) B A``, rounded once.

    The model is then an ordinary one: no adapter is among its modules, parameters or stored
    weights, every backend runs as it would without, and it is saved and exported as ever.

    The weights from before are kept as they are, not as what subtraction would leave: merged
    weights are written into new memory, and :func:`unmerge` puts the old ones back. Of a checkpoint
    that is mapped from its files the old ones cost no memory.

    Args:
        model: with adapters; those that are merged already stay so.

    Returns:
        Names of the changed parameters, in the order of the model.

    Raises:
        TrainingError: there is nothing to merge.
    """
    found = [place for place in places(model) if not place.merged]
    refuse_none(found, "adapter that is not merged")
    for module in {id(place.module): place.module for place in found}.values():
        before: dict[str, Tensor] = {}
        for name, adapter in getattr(module, CHILD).items():
            parameter = getattr(module, name)
            before[name] = parameter.data
            parameter.data = _merged(parameter.data, adapter)
        setattr(module, ASIDE, Merged(detach(module), before))
    return [place.name for place in found]


@torch.no_grad()
def unmerge(model: nn.Module) -> list[str]:
    """Undoes :func:`merge`: every weight is bit for bit what it was, its adapter beside it again.

    What happened to the merged weights in between is lost; a move to another device or dtype is
    repeated on what comes back. What is trained and what is frozen stays as it is.

    Returns:
        Names of the restored parameters, in the order of the model.

    Raises:
        TrainingError: nothing is merged.
    """
    found = [place for place in places(model) if place.merged]
    refuse_none(found, "merged adapter")
    for module in {id(place.module): place.module for place in found}.values():
        aside: Merged = getattr(module, ASIDE)
        delattr(module, ASIDE)
        for name, weight in aside.weights.items():
            parameter = getattr(module, name)
            parameter.data = weight.to(parameter.device, parameter.dtype)
            aside.adapters[name].to(parameter.device)
        attach(module, aside.adapters)
        aside.adapters.train(module.training)
    return [place.name for place in found]


def remove(model: nn.Module) -> list[str]:
    """Takes every adapter off; merged ones stay in the weights, for good.

    Nothing of the adapters is kept: the weights from before a merge are let go too. Parameters stay
    frozen, see :func:`llama4_core.model.freezing.unfreeze`.

    Returns:
        Names of the parameters that had one, in the order of the model.

    Raises:
        TrainingError: there is none.
    """
    names = [one.name for one in adapted(model)]
    refuse_none(names, "adapter")
    for module in list(model.modules()):
        if isinstance(getattr(module, ASIDE, None), Merged):
            delattr(module, ASIDE)
        elif isinstance(getattr(module, CHILD, None), Adapters):
            detach(module)
    return names


def _merged(weight: Tensor, adapter: LowRank) -> Tensor:
    """In the wider of both dtypes, one expert at a time, so that little memory is needed."""
    merged = torch.empty_like(weight)
    if weight.dim() == 2:
        return merged.copy_(weight + adapter.change())
    for number in range(weight.shape[0]):
        merged[number] = weight[number] + adapter.change(number)
    return merged
