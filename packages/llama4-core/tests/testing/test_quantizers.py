"""The checks of quantisers hold for a naive one in whole numbers, and catch planted bugs."""

import pytest
import torch

from llama4_core.testing.check import FAILED, Subject, run
from llama4_core.testing.quantizers import CHECKS
from llama4_core.testing.tests import report

BY_NAME = {check.name: check for check in CHECKS}


class Int8:
    """Symmetric whole numbers of 8 bits, one scale per group of 4; the scale is a power of two.

    A power of two divides without rounding, so that what was quantised is a fixed point.
    """

    group = 4
    codes = (-127, 127)

    def scale(self, grouped):
        largest = grouped.abs().amax(-1, keepdim=True)
        step = torch.exp2(torch.log2(largest / self.codes[1]).ceil())
        return torch.where(largest > 0, step, torch.ones_like(step))

    def round(self, numbers):
        return numbers.round()

    def quantize(self, weight):
        grouped = weight.double().unflatten(-1, (-1, self.group))
        scale = self.scale(grouped)
        return self.round(grouped / scale).clamp(*self.codes), scale, weight.dtype

    def dequantize(self, stored):
        codes, scale, dtype = stored
        return (codes * scale).flatten(1).to(dtype)

    def bound(self, stored):
        codes, scale, _ = stored
        return (scale / 2).expand_as(codes).flatten(1)


class Int4(Int8):
    """Four bits, two codes in a byte, the first in the lower half."""

    codes = (-7, 7)

    def pack(self, codes):
        pairs = (codes + 8).to(torch.uint8).unflatten(-1, (-1, 2))
        return pairs[..., 0] | (pairs[..., 1] << 4)

    def unpack(self, packed):
        return torch.stack([packed & 15, packed >> 4], -1).flatten(-2).long() - 8


class Truncates(Int8):
    def round(self, numbers):
        return numbers.trunc()


class Boasts(Int8):
    def bound(self, stored):
        return super().bound(stored) / 4


class Shrugs(Int8):
    def bound(self, stored):
        return super().bound(stored) * 1000


class Drifts(Int8):
    def scale(self, grouped):
        # Leaves room at the top, so that each pass has another largest number.
        return 1.3 * grouped.abs().amax(-1, keepdim=True).clamp(min=1e-30) / self.codes[1]


class Divides(Int8):
    def scale(self, grouped):
        return grouped.abs().amax(-1, keepdim=True) / self.codes[1]


class Shifted(Int8):
    def round(self, numbers):
        return numbers.floor() + 1


class Wraps(Int8):
    def quantize(self, weight):
        codes, scale, dtype = super().quantize(weight)
        return torch.where(codes > 100, codes - 200, codes), scale, dtype


class HalvesSwapped(Int4):
    def unpack(self, packed):
        return super().unpack(packed).unflatten(-1, (-1, 2)).flip(-1).flatten(-2)


class LosesTop(Int4):
    def pack(self, codes):
        return super().pack(codes.clamp(max=6))


class Flat(Int8):
    def quantize(self, weight):
        flat = torch.as_strided(weight, weight.shape, (weight.shape[1], 1), weight.storage_offset())
        return super().quantize(flat.nan_to_num())


class InPlace(Int8):
    def quantize(self, weight):
        return super().quantize(weight.mul_(1.5))


MUTANTS = [
    (Truncates, "error-is-bounded"),
    (Boasts, "error-is-bounded"),
    (Shrugs, "error-is-bounded"),
    (Drifts, "idempotent"),
    (Divides, "zeros-and-equals"),
    (Shifted, "zeros-and-equals"),
    (Wraps, "monotone"),
    (HalvesSwapped, "packing"),
    (LosesTop, "packing"),
    (Flat, "strides"),
    (InPlace, "strides"),
]


@pytest.mark.parametrize("quantizer", [Int8, Int4], ids=lambda q: q.__name__)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_passes(quantizer, check):
    report(run(check, Subject("quantizers", quantizer.__name__, quantizer)))


@pytest.mark.parametrize(("mutant", "check"), MUTANTS, ids=lambda v: getattr(v, "__name__", v))
def test_caught(mutant, check):
    subject = Subject("quantizers", mutant.__name__, mutant)
    outcome = run(BY_NAME[check], subject, examples=25, seed=0, shrink=False)
    assert outcome.status == FAILED, f"{mutant.__name__} survives {check}"


def test_every_check_has_a_mutant():
    assert {check for _, check in MUTANTS} == set(BY_NAME)
