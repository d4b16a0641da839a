"""Numbers too small for a processor to be quick with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def flushes_denormals() -> bool:
    """Whether results below 2^-126 become 0 on this thread."""
    smallest = torch.tensor(2.0**-126)
    return bool((smallest / 2) == 0)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Results of this thread below 2^-126, about 1.2e-38, become 0 inside, as on a GPU.

    Attention probabilities far from the maximum, times gradients, are such numbers, and a CPU
    multiplies with them many times slower: gradients of the encoder of ``llama4-tiny`` took 1.8
    times as long, those of the whole model 1.2 times (``benchmarks/denormals.py``). Threads take
    the setting over from the one that starts them, and torch starts its own once and for all at its
    first large operation: inside of this, they flush as well; outside, they stay as they are.
    Processors without such a setting are left as they are.
    """
    before = flushes_denormals()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
