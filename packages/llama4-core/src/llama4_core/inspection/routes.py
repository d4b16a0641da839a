"""Comparing which experts two routers choose, and with what weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def flips_of(
    given: Tensor, own: Tensor, logits: Tensor | None, allowed: Tensor
) -> tuple[Tensor, Tensor]:
    """Tokens with other experts, and those of them that no near tie explains, ``[N]`` bool.

    A near tie: the logit of every expert that only the subject chose is, within twice what rounding
    may do to it, as large as the smallest logit that the reference chose.
    """
    if given.shape != own.shape:
        flipped = torch.ones(given.shape[0], dtype=torch.bool)
        return flipped, flipped
    flipped = (given.sort(-1).values != own.sort(-1).values).any(-1)
    if logits is None:
        return flipped, flipped
    strange = (own[:, :, None] != given[:, None, :]).all(-1) & (own >= 0)
    gap = logits.gather(-1, given.clamp(min=0)).amin(-1, keepdim=True) - logits.gather(
        -1, own.clamp(min=0)
    )
    # the logits of all tokens are about as large; see deviation()
    size = logits.double().square().sum(-1)
    slack = 2 * allowed * torch.maximum(size, size.mean()).sqrt()
    lost = (own < 0).sum(-1) != (given < 0).sum(-1)
    return flipped, flipped & (lost | (strange & (gap > slack[:, None])).any(-1))


def same_choice(
    reference: Mapping[str, Tensor], found: Mapping[str, Tensor], path: str
) -> tuple[Tensor, Tensor]:
    """Weights of both sides in the order of the ids, 0 for tokens whose experts differ."""
    ids = path.replace("weights", "experts")
    pair = []
    for side in (reference, found):
        order = side[ids].argsort(-1)
        pair.append((side[ids].gather(-1, order), side[path].gather(-1, order)))
    same = (pair[0][0] == pair[1][0]).all(-1, keepdim=True)
    return pair[0][1].where(same, 0.0), pair[1][1].where(same, 0.0)
