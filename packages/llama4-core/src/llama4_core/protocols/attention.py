"""The contract of an attention backend (contract 1).

A backend has two calls. ``plan(batch)`` runs on the host, once per forward and attention kind, and
sees only Python ints. ``backend(q, keys, values, plan, ...)`` touches device tensors only: no
``.item()``, no shape that depends on data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from llama4_core.protocols.masks import Mask
from llama4_core.protocols.scores import ScoreTerm

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Segment:
    """The queries of one document in one forward, and the keys kept for it.

    Query positions are ``query_start .. query_start + query_length - 1``, key positions
    ``key_start .. key_start + key_length - 1``, both without gaps. The keys include those of the
    queries themselves, which come last, so both ranges end at the same position.

    Attributes:
        query_start, query_length: positions of the queries.
        key_start, key_length: positions of the keys.
        slot: row of a head-major cache that holds the keys (0 for flat keys).
        key_offset: index of the first key: along S of a head-major cache, along the stream for
            flat keys.
    """

    query_start: int
    query_length: int
    key_start: int
    key_length: int
    slot: int = 0
    key_offset: int = 0


@dataclass(frozen=True)
class AttentionBatch:
    """Everything that a backend may plan with, for one attention kind and one forward.

    The queries of the segments lie back to back in the stream of N tokens, in order. Every segment
    is a document of its own: no query ever sees another segment's keys, and ``mask`` always
    contains ``SameDocument()``.

    Attributes:
        segments: one per document, each with at least one query.
        mask: the variant's mask and ``SameDocument()``.
        score_terms: the variant's score terms, in order of application.
        key_layout: "flat": keys ``[sum of key lengths, G, K]``, documents back to back;
            "head_major": keys ``[slots, G, S, K]``, of which the segment's slot, offset and length
            say what is valid.
        device: where the tensors will be, e.g. "cpu" or "cuda:0": a plan may hold index tensors.
        grad: gradients may be asked for.
    """

    segments: tuple[Segment, ...]
    mask: Mask
    score_terms: tuple[ScoreTerm, ...] = ()
    key_layout: str = "flat"
    device: str = "cpu"
    grad: bool = False

    @property
    def tokens(self) -> int:
        """Number of queries in the stream, N."""
        return sum(segment.query_length for segment in self.segments)


class AttentionBackend(Protocol):
    """Computes softmax attention. Instances carry no state besides settings.

    Class attributes (all optional, with these defaults):
        differentiable_lse = False: the log-sum-exp has a correct gradient.
        graph_safe = False: the device call can be captured in a CUDA graph.
    """

    def plan(self, batch: AttentionBatch) -> Any:
        """Turns the batch into whatever the device call needs; runs on the host."""

    def __call__(
        self,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        plan: Any,
        *,
        scale: float,
        return_lse: bool = False,
        score_tensors: Mapping[str, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """``softmax(scale * q k^T, masked, with the batch's score terms) v``.

        Args:
            q: ``[N, H, K]``.
            keys: as the batch's key layout says; query head h reads kv head ``h // (H // G)``.
            values: laid out as the keys.
            plan: what :meth:`plan` returned for this forward.
            scale: factor on the scores, usually ``K ** -0.5``.
            return_lse: also return the log-sum-exp of each query's scores.
            score_tensors: tensors that the score terms name.

        Returns:
            Output ``[N, H, K]`` in q's dtype; with ``return_lse`` also lse ``[N, H]``, float32,
            natural logarithm, after the score terms (sink included).
        """
