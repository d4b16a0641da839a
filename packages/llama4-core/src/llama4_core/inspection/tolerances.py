"""How far two implementations of one slot may part when both get the same inputs."""

from __future__ import annotations

import torch
from torch import Tensor

# Largest deviation of a token, relative to the size of its vector, per dtype of the coarser side
# and kind of slot. Three kinds:
#   each     one or two operations per number (norms, rotations, sums of two)
#   product  one matrix product, whose sum may be taken in another order
#   mixed    products around a softmax or a SwiGLU, with roundings in between
# float32 (unit roundoff 6e-8): the equal pairs of tests/test_bisect.py deviate by at most 4e-7, at
# width 64; sums over 80 times as many terms, or by another device, may deviate by ten times that.
# The smallest bug known, a norm's eps of 1e-6 for 1e-5 on inputs of size 1, is 4.5e-6, and it
# shows in norms, which stay exact at every width. bfloat16 (unit roundoff 4e-3), measured against
# float32 at most 6e-3, 7e-3 and 1.4e-2: two to four roundings, in attention those of the scores
# besides, which the softmax magnifies; weights may have been rounded on one side only. float16 has
# three bits more.
TOLERANCES = {
    "float32": {"each": 1e-6, "product": 1e-5, "mixed": 2e-5},
    "float16": {"each": 2e-3, "product": 3e-3, "mixed": 8e-3},
    "bfloat16": {"each": 1e-2, "product": 1.5e-2, "mixed": 4e-2},
}
COARSENESS = ("float64", "float32", "float16", "bfloat16")
# Rotations, and whatever is formed in float32 from positions, err by half a unit of the angle.
PER_POSITION = 2.0**-23

_PRODUCT = ("_proj", "attention", "router.logits", "router.weights", "logits")
_MIXED = ("mixed", "experts", "shared_expert", "feed_forward")


def coarser(left: str, right: str) -> str:
    """The dtype that decides; float64 counts as float32, as rotations are kept in complex64."""
    coarse = max(left, right, key=COARSENESS.index)
    return "float32" if coarse == "float64" else coarse


def tolerance(path: str, dtype: str, positions: Tensor) -> Tensor:
    """Tolerance ``[N]`` of each token at a slot."""
    kinds = TOLERANCES[dtype]
    if path.endswith(_PRODUCT):
        kind = kinds["product"]
    elif path.endswith(_MIXED):
        kind = kinds["mixed"]
    else:
        kind = kinds["each"]
    rotated = PER_POSITION if ".variant." in path else 0.0
    return kind + rotated * positions.double()


def deviation(reference: Tensor, subject: Tensor) -> Tensor:
    """``[N]``: distance of each token's vectors, relative to its size.

    The size is at least the root mean square over all tokens: a vector that happens to be small is
    as inexact as the sums that it comes from. NaN where just one side is NaN, or infinite.
    """
    a, b = reference.double().flatten(1), subject.double().flatten(1)
    if a.numel() == 0:
        return torch.zeros(a.shape[0], dtype=torch.float64)
    same = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, a - b)
    sizes = a.nan_to_num(0.0, 0.0, 0.0).square().sum(1)
    scale = torch.maximum(sizes, sizes.mean()).sqrt()
    distance = same.square().sum(1).sqrt()
    return torch.where(distance == 0, 0.0, distance / scale)
