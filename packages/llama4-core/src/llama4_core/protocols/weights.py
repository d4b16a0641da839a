"""Weights: plain tensors, or packed values made by a quantiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

PLAIN = "plain"


@dataclass(frozen=True)
class PackedWeight:
    """A weight in a packed format.

    Attributes:
        format: name of the format; linear and expert backends declare which ones they run.
        tensors: the parts, by name, as they are stored in a checkpoint.
        shape: logical shape of the weight that they stand for.
    """

    format: str
    tensors: Mapping[str, Tensor]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ExpertWeights:
    """The weights of a bank of SwiGLU experts, ``down(silu(gate x) * (up x))``.

    Attributes:
        gate_up: ``[E, 2F, D]``, gate rows first; any strides (a transposed view is fine).
        down: ``[E, D, F]``.
    """

    gate_up: Tensor | PackedWeight
    down: Tensor | PackedWeight

    @property
    def format(self) -> str:
        """Name of the packed format, or "plain"."""
        return self.gate_up.format if isinstance(self.gate_up, PackedWeight) else PLAIN
