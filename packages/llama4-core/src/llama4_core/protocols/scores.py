"""Score terms: what a variant adds to plain ``softmax(scale * q k^T + mask) v``.

Each term is a frozen value with a brute-force definition, :meth:`apply` on the whole score matrix,
which the eager backend evaluates in the order in which the variant lists its terms. A backend names
the kinds that it can compute; it refuses a problem with any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from llama4_core.errors import SpecError

if TYPE_CHECKING:
    from torch import Tensor


class ScoreTerm(Protocol):
    """A change of the scores before the softmax, or of the softmax itself."""

    def apply(
        self, scores: Tensor, distance: Tensor, tensors: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Changes ``scores [H, T, S]``; ``distance [T, S]`` is query minus key position.

        Returns the new scores and, for a term that adds to the softmax's denominator, the logits
        ``[H]`` of one further column whose value is zero (else None).
        """


@dataclass(frozen=True)
class SoftCap:
    """``score -> cap * tanh(score / cap)``, applied to the scaled scores."""

    cap: float

    def __post_init__(self) -> None:
        if not self.cap > 0:
            raise SpecError(f"SoftCap got cap {self.cap!r}; expected a number above 0")

    def apply(self, scores: Any, distance: Any, tensors: Mapping[str, Any]) -> tuple[Any, None]:
        return self.cap * (scores / self.cap).tanh(), None


@dataclass(frozen=True)
class Sink:
    """A learned logit per head, ``tensors["sink"] [H]``, that joins the softmax with value zero."""

    def apply(self, scores: Any, distance: Any, tensors: Mapping[str, Any]) -> tuple[Any, Any]:
        return scores, tensors["sink"]


@dataclass(frozen=True)
class DistanceBias:
    """``score - slope[h] * (query position - key position)``: a linear penalty per head."""

    slopes: tuple[float, ...]

    def apply(self, scores: Any, distance: Any, tensors: Mapping[str, Any]) -> tuple[Any, None]:
        slopes = scores.new_tensor(self.slopes)[:, None, None]
        return scores - slopes * distance.to(scores.dtype), None
