"""Llama 4's router, and the same with a bias that balances the load."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from llama4_core.errors import SpecError
from llama4_moe.routers.linear import LinearRouter
from llama4_moe.routers.selection import largest


class SigmoidTopK(LinearRouter):
    """The K largest logits, each with weight ``sigmoid(logit)``; not renormalised (Llama 4)."""

    def scores(self, logits: Tensor, experts: Tensor) -> Tensor:
        """``sigmoid(logits[experts])``."""
        return logits.gather(-1, experts).sigmoid()


class BalancedSigmoidTopK(SigmoidTopK):
    """:class:`SigmoidTopK` whose choice is balanced without an auxiliary loss.

    A buffer ``bias [E]`` is added to the scores for the choice only; the weights never see it.
    After each training step :meth:`after_step` raises the bias of experts below the mean load by
    ``rate`` and lowers that of experts above it (Wang et al., "Auxiliary-Loss-Free Load Balancing
    Strategy for Mixture-of-Experts", 2024; their rate is 0.001 on sigmoid scores). The bias is
    added to ``sigmoid(logit)``, as there, so that a rate means the same for every model.

    Llama 4 has no such bias. Towards the end of training :meth:`release` lets it shrink to 0, where
    the choice is that of :class:`SigmoidTopK`, bit for bit.

    A recipe changes the rate by an override that names this router with ``settings``.

    The bias stays float32 when the model is converted to another dtype: steps of 0.001 vanish in
    bfloat16.
    """

    bias: Tensor

    def __init__(
        self,
        hidden: int,
        experts: int,
        top_k: int,
        *,
        renormalise: bool = False,
        rate: float = 0.001,
    ) -> None:
        super().__init__(hidden, experts, top_k, renormalise=renormalise)
        number = isinstance(rate, int | float) and not isinstance(rate, bool)
        if not number or not 0 <= rate < math.inf:
            raise SpecError(f"rate is {rate!r}; expected a number of at least 0")
        self.rate = rate
        self.register_buffer("bias", torch.zeros(experts, dtype=torch.float32))

    def reset_parameters(self) -> None:
        """Draws the weight and forgets the bias."""
        super().reset_parameters()
        if "bias" in self._buffers:  # the base class calls this before there is one
            self.bias.zero_()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        exact = self.bias
        super()._apply(fn, recurse)
        if self.bias.dtype != torch.float32:
            self.bias = exact.to(device=self.bias.device)
        return self

    def select(self, logits: Tensor) -> Tensor:
        """The K largest of ``sigmoid(logits) + bias``; of ``logits`` where every bias is 0."""
        logits = logits.detach()
        # Distinct logits may have equal sigmoids, from about 17 all are 1 in float32: without a
        # bias the logits decide, as they do in a router that never had one.
        swayed = logits.sigmoid() + self.bias
        return largest(torch.where(self.bias.any(), swayed, logits), self.top_k)

    @torch.no_grad()
    def after_step(self, counts: Tensor) -> None:
        """``bias += rate * sign(mean(counts) - counts)``.

        Args:
            counts: ``[E]`` tokens per expert of the whole step, summed over all ranks.
        """
        load = counts.to(device=self.bias.device, dtype=torch.float32)
        self.bias.add_(torch.sign(load.mean() - load), alpha=self.rate)

    @torch.no_grad()
    def release(self, factor: float) -> None:
        """``bias *= factor``; exactly 0, not its negative, for a factor of 0."""
        if factor == 0:
            self.bias.zero_()
        else:
            self.bias.mul_(factor)
