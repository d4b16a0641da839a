"""Drives one mixer through the contexts, as a model of one layer would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from llama4_core.contexts.cached import CachedContext
from llama4_core.contexts.caches import HeadMajorCache
from llama4_core.contexts.packed import PackedContext

CPU = torch.device("cpu")


def through(mixer: Any, context: Any, x: Tensor) -> Tensor:
    """One forward of ``x [N, D]``."""
    rotary = getattr(getattr(mixer, "variant", None), "rotary", None)
    shared = {} if rotary is None else {rotary.name: rotary(context.positions)}
    context.begin(torch.zeros(x.shape[0], dtype=torch.int64), shared)
    out: Tensor = mixer(x, context.layer(0))
    return out


def packed(mixer: Any, documents: Sequence[Tensor]) -> list[Tensor]:
    """Whole documents ``[T, D]``, back to back, in one forward."""
    lengths = [len(document) for document in documents]
    context = PackedContext([mixer], lengths, CPU)
    return list(through(mixer, context, torch.cat(list(documents))).split(lengths))


def memory(
    mixer: Any, rows: int, *, capacity: int = 0, make_cache: Callable[..., Any] = HeadMajorCache
) -> CachedContext:
    """The memory of one layer for ``rows`` sequences."""
    return CachedContext([mixer], rows, make_cache, torch.float32, CPU, capacity=capacity)


def step(mixer: Any, kept: CachedContext, pieces: Sequence[Tensor]) -> list[Tensor]:
    """The next tokens of each row, ``[T, D]`` with T = 0 allowed; they stay provisional."""
    lengths = [len(piece) for piece in pieces]
    with torch.no_grad():
        context = kept.extend(lengths)
        return list(through(mixer, context, torch.cat(list(pieces))).split(lengths))
