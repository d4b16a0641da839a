"""The router of most other mixtures: a softmax over all experts."""

from __future__ import annotations

from torch import Tensor

from llama4_moe.routers.linear import LinearRouter


class SoftmaxTopK(LinearRouter):
    """The K largest logits, weighted by the softmax over all E experts.

    With ``renormalise`` the weights of a token sum to one, which equals a softmax over its K
    logits.
    """

    def scores(self, logits: Tensor, experts: Tensor) -> Tensor:
        """``softmax(logits)[experts]``."""
        return logits.softmax(dim=-1).gather(-1, experts)
