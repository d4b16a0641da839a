"""Building blocks of cases: shapes, seeds, and a few extreme values; never single elements.

A seeded tensor takes milliseconds to draw and shrinks to seed 0; a list of floats takes ten times
as long and shrinks to nothing that tells more.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}

SPICES = ("plain", "ties", "zeros", "outliers", "tiny")


@dataclass(frozen=True)
class Numbers:
    """Where the numbers of a case come from.

    Attributes:
        seed: of the generator.
        spice: "plain" standard normal; "ties" rounded to halves; "zeros" half of the rows zero;
            "outliers" a few numbers ten times as large; "tiny" scaled by 1e-3.
    """

    seed: int
    spice: str = "plain"

    def source(self) -> Source:
        """A fresh stream of tensors: the same ones each time."""
        return Source(self)


class Source:
    """Draws tensors one after the other."""

    def __init__(self, numbers: Numbers) -> None:
        self.spice = numbers.spice
        self.generator = torch.Generator().manual_seed(numbers.seed)

    def __call__(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor of this shape on the CPU."""
        drawn = torch.randn(shape, generator=self.generator, dtype=torch.float32)
        if self.spice == "ties":
            drawn = (2 * drawn).round() / 2
        elif self.spice == "zeros" and drawn.dim():
            drawn[::2] = 0.0
        elif self.spice == "outliers":
            chosen = torch.rand(shape, generator=self.generator) < 0.02
            drawn = torch.where(chosen, 10 * drawn, drawn)
        elif self.spice == "tiny":
            drawn = drawn * 1e-3
        return drawn.to(dtype)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Whole numbers ``low .. high - 1``, int64."""
        return torch.randint(low, high, shape, generator=self.generator)

    def permutation(self, count: int) -> Tensor:
        """``[count]`` int64."""
        return torch.randperm(count, generator=self.generator)


def numbers(*spices: str) -> st.SearchStrategy[Numbers]:
    """Sources of numbers with one of the spices (none given: any)."""
    return st.builds(Numbers, st.integers(0, 2**16), st.sampled_from(spices or SPICES))


def partitions(total: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Ways to cut ``total`` tokens into consecutive pieces of at least one."""
    if total <= 1:
        return st.just((total,) if total else ())
    cuts = st.sets(st.integers(1, total - 1), max_size=5)
    return cuts.map(lambda found: _pieces([0, *sorted(found), total]))


def _pieces(borders: list[int]) -> tuple[int, ...]:
    return tuple(stop - start for start, stop in itertools.pairwise(borders))


def strided(x: Tensor) -> Tensor:
    """The same numbers at other strides: every second element of a larger tensor."""
    if x.dim() == 0 or x.numel() == 0:
        return x
    spread = x.new_full((*x.shape[:-1], 2 * x.shape[-1]), float("nan"))
    view = spread[..., ::2]
    with torch.no_grad():
        view.copy_(x)
    return view


def walled(x: Tensor) -> Tensor:
    """The same numbers between walls of NaN, which nobody may read."""
    if x.dim() == 0 or x.numel() == 0:
        return x
    storage = x.new_full((x.numel() + 256,), float("nan"))
    view = storage[128 : 128 + x.numel()].view(x.shape)
    with torch.no_grad():
        view.copy_(x)
    return view
