"""AdamW, as torch has it, with the groups that transformers want."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from llama4_train.optimizers.together import Masters
from llama4_train.protocols import Parameter

_NARROW = (torch.bfloat16, torch.float16)


def adamw(
    parameters: Sequence[Parameter],
    lr: float,
    *,
    betas: tuple[float, float] = (0.9, 0.95),
    eps: float = 1e-8,
    weight_decay: float = 0.1,
    masters: bool = True,
) -> Any:
    """``torch.optim.AdamW``, fused: decay on matrices and experts, none on vectors and embeddings.

    Args:
        parameters: to be trained.
        lr: largest learning rate.
        betas: of AdamW (Loshchilov and Hutter, 2019); the second is that of the published recipes
            of large models.
        eps: of AdamW.
        weight_decay: of AdamW, decoupled.
        masters: keep float32 copies of narrower weights.
    """

    def build(given: Sequence[Parameter]) -> Any:
        groups = []
        for decay, roles in (
            (weight_decay, ("matrix", "experts", "router", "head")),
            (0.0, ("vector", "embedding")),
        ):
            values = [one.value for one in given if one.role in roles]
            if values:
                groups.append({"params": values, "weight_decay": decay, "base_lr": lr})
        return torch.optim.AdamW(groups, lr=lr, betas=tuple(betas), eps=eps, fused=True)

    return with_masters(parameters, build) if masters else build(parameters)


def with_masters(
    parameters: Sequence[Parameter], build: Callable[[Sequence[Parameter]], Any]
) -> Any:
    """``build(parameters)``, over float32 copies where the weights are narrower."""
    if not any(one.value.dtype in _NARROW for one in parameters):
        return build(parameters)
    copies = [
        replace(one, value=nn.Parameter(one.value.detach().float().clone())) for one in parameters
    ]
    pairs = [(one.value, copy.value) for one, copy in zip(parameters, copies, strict=True)]
    return Masters(pairs, build(copies))
