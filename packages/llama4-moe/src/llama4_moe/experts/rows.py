"""With how many rows the experts' products run.

oneDNN, which multiplies bfloat16 on processors that have instructions for it, builds a primitive
for each number of rows that it has not met: about 1.3 ms, more than the product of a small expert
itself. An expert sees another number of tokens in every step, so that its tokens are filled up with
rows of zeros to a multiple of :data:`FILLED_ROWS`; the gradients of its products have the filled
number of rows too, and what belongs to the added rows is zero.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from llama4_core.model.projection import EMULATED_BFLOAT16

FILLED_ROWS = 64
"""Few numbers of rows, and at most half a block of waste per expert on average."""


def rows_multiple(dtype: torch.dtype, device: str, *, emulated: bool = EMULATED_BFLOAT16) -> int:
    """What the number of rows of an expert's products should be a multiple of.

    A rule and no measurement at run time, so that equal inputs give equal numbers in every process.
    On a processor with AMX a training step of a small model in bfloat16 took half the time with
    filled rows (3,546 to 6,635 tokens/s, loop over experts; not run on such a processor since). On
    processors that emulate bfloat16 the product is widened to float32
    (:mod:`llama4_core.model.projection`), where any number of rows is as good as another.

    Args:
        dtype: of tokens and weights.
        device: type of device.
        emulated: the processor has no bfloat16 instructions.
    """
    native = dtype == torch.bfloat16 and device == "cpu" and not emulated
    return FILLED_ROWS if native else 1


def filled(x: Tensor, multiple: int) -> Tensor:
    """``x [n, C]`` with rows of zeros up to a multiple; itself where none are missing."""
    missing = -x.shape[0] % multiple
    return F.pad(x, (0, 0, 0, missing)) if missing else x
