"""Joins attention over two disjoint sets of keys by their log-sum-exps.

With ``l = logaddexp(l1, l2)``, softmax attention over the union of the keys is
``exp(l1 - l) o1 + exp(l2 - l) o2``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from llama4_core.errors import ComponentError


def merge(
    output: Tensor,
    lse: Tensor,
    other_output: Tensor,
    other_lse: Tensor,
    *,
    differentiable_lse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Attention over the keys of both, for the same queries.

    Args:
        output: ``[N, H, K]``.
        lse: ``[N, H]``, natural logarithm; minus infinity where no key was visible.
        other_output: as ``output``, over the other keys.
        other_lse: as ``lse``, over the other keys.
        differentiable_lse: the backend that made the log-sum-exps declares their gradient.

    Returns:
        Output in the dtype of ``output``, and its log-sum-exp.

    Raises:
        ComponentError: gradients are wanted, but the log-sum-exps have none. torch's kernels
            return such: the merged output would be right and its gradient silently wrong.
    """
    if not differentiable_lse:
        refuse_gradient("merging by log-sum-exp", output, lse, other_output, other_lse)
    total = torch.logaddexp(lse, other_lse)
    # Where neither side saw a key both weights are 0, not exp(-inf + inf).
    base = total.masked_fill(total == float("-inf"), 0.0)
    weight = (lse - base).exp()[..., None]
    other_weight = (other_lse - base).exp()[..., None]
    merged = weight * output + other_weight * other_output
    return merged.to(output.dtype), total


def refuse_gradient(what: str, *tensors: Tensor) -> None:
    """Raises if torch would record a gradient for any of the tensors."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        raise ComponentError(
            f"{what} got tensors that require grad, but this backend's log-sum-exp has no "
            "gradient; expected inference: use torch.no_grad() or the eager backend"
        )
