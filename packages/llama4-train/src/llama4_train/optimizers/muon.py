"""Muon: momentum whose every matrix is made nearly orthogonal before it is taken as a step.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024. A stack of experts
is a batch of matrices, each of them made orthogonal for itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from llama4_train.optimizers.adamw import adamw
from llama4_train.optimizers.masters import with_masters
from llama4_train.optimizers.settings import at_least_zero, check_parameters, share
from llama4_train.optimizers.together import Together
from llama4_train.protocols import Parameter

# Coefficients of the quintic of Jordan et al.: steep at zero, so that five rounds are enough.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
# Below this Frobenius norm a gradient is nothing but rounding: it is not blown up to a full step.
SMALLEST_NORM = 1e-7


def orthogonalise(matrices: Tensor, rounds: int = ROUNDS) -> Tensor:
    """Moves the singular values of ``[..., out, in]`` close to 1, each matrix for itself.

    ``X <- a X + (b A + c A^2) X`` with ``A = X X^T``, from ``X / |X|``: after five rounds singular
    values lie between 0.68 and 1.14 unless they were below a hundredth of the norm. It is
    computed in the dtype of ``matrices``; ``torch.optim.Muon`` computes it in bfloat16.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    wide = matrices.mT if tall else matrices
    x = wide / wide.norm(dim=(-2, -1), keepdim=True).clamp(min=SMALLEST_NORM)
    x = x.reshape(-1, *wide.shape[-2:])
    for _ in range(rounds):
        gram = x @ x.mT
        # Sums go into the products: at these sizes a pass over memory costs as much as a product.
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    x = x.reshape(wide.shape)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon over matrices ``[out, in]`` and stacks of them ``[E, out, in]``.

    ``m <- beta m + (1 - beta) g``; weights shrink by ``lr * weight_decay`` of themselves, and the
    step is ``lr sqrt(max(1, out / in))`` times ``orthogonalise(beta m + (1 - beta) g)`` (Nesterov).

    Args:
        matrices: parameters of two or three axes.
        lr: learning rate.
        momentum: beta.
        weight_decay: decoupled.
    """

    def __init__(
        self,
        matrices: Sequence[torch.nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            matrices,
            {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "base_lr": lr},
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Takes one step; parameters without a gradient stay as they are."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter.grad)
                momentum = state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
                ahead = parameter.grad.lerp(momentum, group["momentum"])
                rows, columns = parameter.shape[-2:]
                size = group["lr"] * math.sqrt(max(1.0, rows / columns))
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(orthogonalise(ahead), alpha=-size)


def muon(
    parameters: Sequence[Parameter],
    lr: float,
    *,
    adamw_lr: float | None = None,
    momentum: float = 0.95,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.95),
    masters: bool = True,
) -> Any:
    """Muon for matrices and experts, AdamW without decay for everything else.

    Args:
        parameters: to be trained.
        lr: largest learning rate of Muon.
        adamw_lr: largest learning rate of AdamW, for embeddings, head, routers, vectors, and
            kernels of more than two axes; None for a tenth of ``lr``, which is the ratio between
            the usual rates of both (0.02 and 0.002).
        momentum: of Muon.
        weight_decay: of Muon, decoupled.
        betas: of AdamW.
        masters: keep float32 copies of narrower weights.

    Raises:
        RecipeError: a setting is out of range, or there is nothing to train.
    """
    check_parameters(parameters)
    at_least_zero("lr", lr)
    at_least_zero("weight_decay", weight_decay)
    share("momentum", momentum)
    other_lr = lr / 10 if adamw_lr is None else adamw_lr
    at_least_zero("adamw_lr", other_lr)

    def build(given: Sequence[Parameter]) -> Any:
        matrices = [one.value for one in given if _is_matrix(one)]
        others = [one for one in given if not _is_matrix(one)]
        members: list[Any] = []
        if matrices:
            members.append(Muon(matrices, lr, momentum, weight_decay))
        if others:
            members.append(adamw(others, other_lr, betas=betas, weight_decay=0.0, masters=False))
        return Together(members)

    return with_masters(parameters, build) if masters else build(parameters)


def _is_matrix(one: Parameter) -> bool:
    return (one.role, one.value.dim()) in {("matrix", 2), ("experts", 3)}
