"""Checks of quantisers: what becomes of a weight when it is kept in fewer bits.

There is no socket for them yet, so nothing here is found by ``llama4 check``; a test runs
:data:`CHECKS` on a :class:`~llama4_core.testing.check.Subject` whose ``build()`` gives a
:class:`Quantizer`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from hypothesis import strategies as st
from torch import Tensor

from llama4_core.testing.check import Check, Refused, Subject, check
from llama4_core.testing.compare import holds, same
from llama4_core.testing.strategies import DTYPES, Numbers, numbers, strided, walled

SPREADS = ("drawn", "equal", "one large", "growing")


class Quantizer(Protocol):
    """A way to keep weights ``[F, D]`` in fewer bits, groups of ``group`` neighbours in a row.

    Attributes:
        group: numbers that share a scale; divides D.
    """

    group: int

    def quantize(self, weight: Tensor) -> Any:
        """The weight in few bits."""

    def dequantize(self, stored: Any) -> Tensor:
        """``[F, D]`` in the dtype of the weight that was quantised."""

    def bound(self, stored: Any) -> Tensor:
        """``[F, D]`` largest error of each number, without the rounding to the weight's dtype.

        Half a step for whole numbers (scale / 2), half the distance to the next for floats.
        """


@dataclass(frozen=True)
class Case:
    """A weight.

    Attributes:
        rows, groups: F, and groups per row.
        dtype: of the weight.
        spread: "drawn" numbers; "equal" ones in each group; "one large" among small ones;
            "growing" along a row.
        numbers: source of them.
    """

    rows: int
    groups: int
    dtype: str
    spread: str
    numbers: Numbers

    def weight(self, group: int) -> Tensor:
        """``[F, D]``: the same each time."""
        drawn = self.numbers.source()(self.rows, self.groups, group)
        if self.spread == "equal":
            drawn = drawn[..., :1].expand_as(drawn).clone()
        elif self.spread == "one large":
            drawn[..., 0] = 100 * drawn[..., 0].abs() + 1
        elif self.spread == "growing":
            drawn = drawn.sort(dim=-1).values
        return drawn.flatten(1).to(DTYPES[self.dtype])


def _cases(subject: Subject) -> st.SearchStrategy[Case]:
    return st.builds(
        Case,
        st.integers(1, 4),
        st.integers(1, 3),
        st.sampled_from(("float32", "bfloat16")),
        st.sampled_from(SPREADS),
        numbers(),
    )


def _slack(weight: Tensor) -> Tensor:
    """What rounding to the weight's dtype and float32 arithmetic may add."""
    return weight.double().abs() * torch.finfo(weight.dtype).eps + 1e-30


@check(
    properties=(42,),
    why="the bound is what users are told a quantised model loses",
    cases=_cases,
)
def error_is_bounded(subject: Subject, case: Case) -> None:
    """No number is off by more than the bound, and bounds are not looser than a group's spread."""
    quantizer = subject.build()
    weight = case.weight(quantizer.group)
    stored = quantizer.quantize(weight)
    back = quantizer.dequantize(stored)
    holds(back.shape == weight.shape, f"got {list(back.shape)}, expected {list(weight.shape)}")
    holds(back.dtype == weight.dtype, f"got {back.dtype}, expected the weight's {weight.dtype}")
    bound = quantizer.bound(stored).double()
    error = (back.double() - weight.double()).abs()
    wrong = error > bound * (1 + 1e-6) + _slack(weight)
    holds(not wrong.any(), f"error {error[wrong].tolist()[:1]}, bound {bound[wrong].tolist()[:1]}")
    largest = weight.double().abs().unflatten(-1, (-1, quantizer.group)).amax(-1, keepdim=True)
    # Even two levels per sign are within half of the largest number.
    loose = bound.unflatten(-1, (-1, quantizer.group)) > 0.5 * largest
    loose &= largest > 0  # what a group of zeros is scaled by is nobody's business
    holds(not loose.any(), "a bound of more than half of the largest number says nothing")


@check(
    properties=(42,),
    why="a checkpoint that is quantised again at every conversion must not drift",
    cases=_cases,
)
def idempotent(subject: Subject, case: Case) -> None:
    """Quantising what was quantised changes no bit."""
    quantizer = subject.build()
    once = quantizer.dequantize(quantizer.quantize(case.weight(quantizer.group)))
    same(quantizer.dequantize(quantizer.quantize(once)), once, "quantised again")


@check(
    properties=(42,),
    why="pruned weights and padding are zeros; a division by a scale of zero gives NaN",
    cases=_cases,
)
def zeros_and_equals(subject: Subject, case: Case) -> None:
    """Zeros stay zero, in whole groups too; equal numbers of a group stay equal and finite."""
    quantizer = subject.build()
    weight = case.weight(quantizer.group)
    weight[:, ::3] = 0
    back = quantizer.dequantize(quantizer.quantize(weight))
    holds(bool(back.isfinite().all()), "a number is not finite")
    holds(bool((back[weight == 0] == 0).all()), "a zero became something else")
    zeros = torch.zeros_like(weight)
    same(quantizer.dequantize(quantizer.quantize(zeros)), zeros, "all zeros")
    equal = weight.unflatten(-1, (-1, quantizer.group))[..., 1:2]
    level = equal.expand(*equal.shape[:-1], quantizer.group).flatten(1)
    back = quantizer.dequantize(quantizer.quantize(level)).unflatten(-1, (-1, quantizer.group))
    holds(bool((back == back[..., :1]).all()), "equal numbers of a group differ")
    holds(bool(back.isfinite().all()), "a group of equal numbers is not finite")


@check(
    properties=(42,),
    why="an order that flips between neighbours is a rounding bug that averages hide",
    cases=_cases,
)
def monotone(subject: Subject, case: Case) -> None:
    """Within a group a larger number never becomes a smaller one; signs never flip."""
    quantizer = subject.build()
    weight = case.weight(quantizer.group).unflatten(-1, (-1, quantizer.group)).sort(-1).values
    weight = weight.flatten(1)
    back = quantizer.dequantize(quantizer.quantize(weight))
    grouped = back.unflatten(-1, (-1, quantizer.group))
    holds(bool((grouped.diff(dim=-1) >= 0).all()), "the order within a group changed")
    holds(bool((back * weight >= 0).all()), "a sign flipped")


@check(
    properties=(43,),
    why="two numbers share a byte; a nibble in the wrong half is another weight",
    cases=_cases,
)
def packing(subject: Subject, case: Case) -> None:
    """``unpack(pack(codes))`` is the codes, for every code; only for those that pack."""
    quantizer = subject.build()
    pack, unpack = getattr(quantizer, "pack", None), getattr(quantizer, "unpack", None)
    if pack is None or unpack is None:
        raise Refused("the quantiser packs nothing: it has no pack(codes) and unpack(packed)")
    source = case.numbers.source()
    low, high = quantizer.codes
    codes = source.integers(low, high + 1, case.rows, case.groups * quantizer.group)
    codes.view(-1)[:2] = torch.tensor([low, high])[: codes.numel()]
    packed = pack(codes)
    holds(packed.nbytes < codes.numel(), f"{packed.nbytes} bytes for {codes.numel()} codes")
    same(unpack(packed).long(), codes, "unpacked codes")


@check(
    properties=(14,),
    why="weights are views of files, transposed and sliced",
    cases=_cases,
)
def strides(subject: Subject, case: Case) -> None:
    """Strided weights, or weights between walls of NaN, give the same; the weight stays."""
    quantizer = subject.build()
    weight = case.weight(quantizer.group)
    before = weight.clone()
    expected = quantizer.dequantize(quantizer.quantize(weight))
    same(weight, before, "the weight that was given")
    for change, what in ((strided, "strided"), (walled, "between walls")):
        same(quantizer.dequantize(quantizer.quantize(change(weight))), expected, what)


CHECKS: tuple[Check, ...] = (
    error_is_bounded,
    idempotent,
    zeros_and_equals,
    monotone,
    packing,
    strides,
)
