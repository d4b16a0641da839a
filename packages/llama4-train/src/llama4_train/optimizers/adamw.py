"""AdamW, as torch has it, with the groups that transformers want."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from llama4_train.optimizers.masters import with_masters
from llama4_train.optimizers.settings import at_least_zero, check_parameters, pair
from llama4_train.protocols import Parameter

NOT_DECAYED = ("vector", "embedding")
"""Roles without weight decay: weights of norms belong near 1, and rare tokens would fade."""


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
        betas: of the running means of gradients and of their squares (Loshchilov and Hutter,
            "Decoupled weight decay regularization", 2019); 0.95 is that of the published recipes
            of large models (Touvron et al., "Llama 2", 2023).
        eps: added to the root of the second mean.
        weight_decay: decoupled: weights shrink by ``lr * weight_decay`` of themselves per step.
        masters: keep float32 copies of narrower weights.

    Raises:
        RecipeError: a setting is out of range, or there is nothing to train.
    """
    check_parameters(parameters)
    at_least_zero("lr", lr)
    at_least_zero("eps", eps)
    at_least_zero("weight_decay", weight_decay)
    both = pair("betas", betas)

    def build(given: Sequence[Parameter]) -> Any:
        groups = []
        for decay, values in (
            (weight_decay, [one.value for one in given if one.role not in NOT_DECAYED]),
            (0.0, [one.value for one in given if one.role in NOT_DECAYED]),
        ):
            if values:
                groups.append({"params": values, "weight_decay": decay, "base_lr": lr})
        return torch.optim.AdamW(groups, lr=lr, betas=both, eps=eps, fused=True)

    return with_masters(parameters, build) if masters else build(parameters)
