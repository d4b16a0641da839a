"""Choosing the largest logits, with ties that always fall the same way."""

from __future__ import annotations

import torch
from torch import Tensor

# Above this many rounds one stable sort is cheaper than repeated maxima.
_ROUNDS = 8


def largest(scores: Tensor, count: int) -> Tensor:
    """Ids of the ``count`` largest scores of each row, largest first; of equal ones the lowest id.

    ``torch.topk`` promises no order among equal values. ``torch.max`` does (the first), and for the
    few experts that a token visits repeated maxima are also the faster way.

    Args:
        scores: ``[N, E]`` float.
        count: K, at most E.

    Returns:
        ``[N, K]`` int64, without repeats in a row.
    """
    scores = scores.detach()
    if count == 1:
        return scores.max(dim=-1, keepdim=True).indices
    if count > _ROUNDS:
        return scores.sort(dim=-1, descending=True, stable=True).indices[:, :count]
    # What is taken becomes -inf, below the least value that a candidate can have.
    scores = scores.clamp(min=torch.finfo(scores.dtype).min)
    chosen = []
    for _ in range(count):
        ids = scores.max(dim=-1, keepdim=True).indices
        chosen.append(ids)
        scores = scores.scatter(-1, ids, float("-inf"))
    return torch.cat(chosen, dim=-1)
