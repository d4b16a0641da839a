"""Comparisons whose failure says what was wrong, where and by how much."""

from __future__ import annotations

import torch
from torch import Tensor


def close(got: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Raises unless ``|got - expected| <= tolerance * max(1, max |expected|)`` everywhere.

    Equal infinities are equal; NaN never is.
    """
    if got.shape != expected.shape:
        raise AssertionError(
            f"{what}: got shape {list(got.shape)}, expected {list(expected.shape)}"
        )
    if not got.numel():
        return
    a, b = got.detach().double().cpu(), expected.detach().double().cpu()
    finite = b[b.isfinite()]
    bound = tolerance * max(1.0, float(finite.abs().max()) if finite.numel() else 0.0)
    wrong = ~(((a - b).abs() <= bound) | (a == b))
    if wrong.any():
        place = tuple(wrong.nonzero()[0].tolist())
        error = (a - b).abs().nan_to_num(float("inf")).max()
        raise AssertionError(
            f"{what}: at {list(place)} got {a[place]:.6g}, expected {b[place]:.6g}; "
            f"{int(wrong.sum())} of {wrong.numel()} numbers differ, largest error {error:.3g}, "
            f"allowed {bound:.3g}"
        )


def same(got: Tensor, expected: Tensor, what: str) -> None:
    """Raises unless both tensors are equal bit for bit."""
    if got.shape != expected.shape or got.dtype != expected.dtype:
        raise AssertionError(
            f"{what}: got {got.dtype} {list(got.shape)}, expected {expected.dtype} "
            f"{list(expected.shape)}"
        )
    if not torch.equal(got, expected):
        differ = (got != expected).nonzero()
        place = tuple(differ[0].tolist())
        raise AssertionError(
            f"{what}: expected equal bits; at {list(place)} got {got[place]}, expected "
            f"{expected[place]}, and {len(differ)} numbers differ"
        )


def holds(condition: bool, what: str) -> None:
    """Raises with ``what`` unless the condition is true."""
    if not condition:
        raise AssertionError(what)
