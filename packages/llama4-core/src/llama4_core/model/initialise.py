"""Random weights for models that are trained, tested or tried without a checkpoint."""

from __future__ import annotations

import torch
from torch import nn


def initialise(model: nn.Module, seed: int) -> None:
    """Fills every parameter in place, the same for the same seed whatever the order of modules.

    Vectors that scale (weights of norms) become 1, other vectors 0, embeddings are normal with
    standard deviation 1, matrices normal with standard deviation ``fan_in ** -0.5``, which keeps
    the size of activations through the network; the fan-in of a stack ``[E, out, in]`` is its last
    axis.
    """
    with torch.no_grad():
        for index, (name, parameter) in enumerate(sorted(model.named_parameters())):
            generator = torch.Generator(device="cpu").manual_seed(seed * 1_000_003 + index)
            if parameter.dim() < 2:
                parameter.fill_(1.0 if _scales(name) else 0.0)
                continue
            deviation = 1.0 if name == "embedding.weight" else parameter.shape[-1] ** -0.5
            for row in parameter if parameter.dim() == 3 else (parameter,):
                values = torch.randn(row.shape, generator=generator)
                row.copy_(values.mul_(deviation))


def _scales(name: str) -> bool:
    """Whether a vector multiplies: the weight of a norm, ``norm_pre`` as well as ``pre_norm``."""
    module, _, leaf = name.rpartition(".")
    return leaf == "weight" and "norm" in module.rpartition(".")[2]
