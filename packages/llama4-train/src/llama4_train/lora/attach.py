"""Putting adapters beside the weights of a module, and taking them off again.

Nothing is replaced: the module keeps its class and its parameters keep their names, and its forward
is added to by a hook. So globs, checkpoints, sharding and inspection see the model that they know,
with a child ``lora`` more here and there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from llama4_train.errors import TrainingError
from llama4_train.lora.experts import BANK, run_adapted
from llama4_train.lora.low_rank import LowRank

CHILD = "lora"
"""Name of the child that holds the adapters of a module."""

ASIDE = "merged_lora"
"""Name of the attribute that keeps what is merged."""

# Place of the backend among the arguments of a bank's forward(x, routing, backend, weight_on).
_BACKEND = 2


class Adapters(nn.ModuleDict):
    """The adapters of one module, by the names of its parameters.

    Attributes:
        hook: handle of the hook by which they take part in the forward.
        refuses_saving: read by :func:`llama4_core.save`.
    """

    hook: Any = None
    refuses_saving = (
        "is adapters, which no checkpoint has a place for; merge them with llama4_train.lora.merge "
        "first, or save them alone with save_adapter"
    )


@dataclass(frozen=True)
class Merged:
    """What a module with merged adapters keeps.

    Attributes:
        adapters: taken off the module.
        weights: of its parameters before.
    """

    adapters: Adapters
    weights: Mapping[str, Tensor]


@dataclass(frozen=True)
class Adapted:
    """A parameter with an adapter.

    Attributes:
        name: its path in the model.
        shape: of the parameter.
        rank: of the adapter.
        alpha: its change is ``(alpha / rank) B A``.
        size: numbers in A and B.
    """

    name: str
    shape: tuple[int, ...]
    rank: int
    alpha: float
    size: int


@dataclass(frozen=True)
class Place:
    """Where a model has an adapter."""

    path: str
    module: nn.Module
    parameter: str
    adapter: LowRank
    merged: bool

    @property
    def name(self) -> str:
        """Of the parameter."""
        return f"{self.path}.{self.parameter}" if self.path else self.parameter


def refusal(model: nn.Module, module: nn.Module, parameter: str) -> str | None:
    """Why a parameter cannot have an adapter here, or None."""
    value = getattr(module, parameter)
    if isinstance(module, nn.Linear):
        if parameter != "weight":
            return "is a vector"
        if module is getattr(model, "head", None):
            # Losses multiply by the head's weight block by block; they never call the module.
            return "is the head, whose weight losses use without calling it"
    elif not _is_bank(module) or parameter not in BANK:
        return "is neither the matrix of a linear projection nor a stack of experts"
    if not value.is_floating_point():
        return f"holds {value.dtype}, which has no gradient"
    return None


def _is_bank(module: nn.Module) -> bool:
    stacks = [getattr(module, name, None) for name in BANK]
    return all(isinstance(stack, nn.Parameter) and stack.dim() == 3 for stack in stacks)


def attach(module: nn.Module, adapters: Adapters) -> None:
    """Adds adapters to a module that has none, or new ones to those that it has."""
    held = getattr(module, CHILD, None)
    if isinstance(held, Adapters):
        held.update(dict(adapters.items()))
        return
    module.add_module(CHILD, adapters)
    adapters.hook = (
        module.register_forward_hook(_add, with_kwargs=True)
        if isinstance(module, nn.Linear)
        else module.register_forward_pre_hook(_adapt_backend, with_kwargs=True)
    )


def detach(module: nn.Module) -> Adapters:
    """Takes the adapters off a module."""
    adapters = getattr(module, CHILD)
    adapters.hook.remove()
    adapters.hook = None
    delattr(module, CHILD)
    return adapters


def places(model: nn.Module) -> Iterator[Place]:
    """Every adapter of a model, merged ones too, in its order."""
    for path, module in model.named_modules():
        held = getattr(module, CHILD, None)
        aside = getattr(module, ASIDE, None)
        if isinstance(aside, Merged):
            found: Mapping[str, nn.Module] = dict(aside.adapters.items())
        elif isinstance(held, Adapters):
            found = dict(held.items())
        else:
            continue
        for name, adapter in found.items():
            if isinstance(adapter, LowRank):
                yield Place(path, module, name, adapter, isinstance(aside, Merged))


def adapted(model: nn.Module) -> list[Adapted]:
    """What has an adapter in ``model``, merged or not, in its order."""
    return [
        Adapted(
            place.name,
            tuple(getattr(place.module, place.parameter).shape),
            place.adapter.rank,
            place.adapter.alpha,
            place.adapter.A.numel() + place.adapter.B.numel(),
        )
        for place in places(model)
    ]


def refuse_none(found: list[Any], what: str) -> None:
    """Complains about a model without adapters.

    Raises:
        TrainingError: ``found`` is empty.
    """
    if not found:
        raise TrainingError(
            f"the model has no {what}; add adapters with apply_lora or load_adapter first"
        )


def _add(module: Any, inputs: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> Tensor:
    """``W x + s B A x`` behind a linear projection."""
    x = inputs[0] if inputs else next(iter(named.values()))
    adapter = getattr(module, CHILD)["weight"]
    # Under autocast the product has another dtype than the tokens.
    return torch.add(output, adapter(x.to(output.dtype)), alpha=adapter.scale)


def _adapt_backend(
    module: Any, inputs: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A bank gets its backend with each call; here it gets one that knows the adapters."""
    adapters = dict(getattr(module, CHILD).items())
    if "backend" in named:
        return inputs, named | {"backend": partial(run_adapted, adapters, named["backend"])}
    place = slice(_BACKEND, _BACKEND + 1)
    wrapped = tuple(partial(run_adapted, adapters, backend) for backend in inputs[place])
    return (*inputs[:_BACKEND], *wrapped, *inputs[_BACKEND + 1 :]), named
