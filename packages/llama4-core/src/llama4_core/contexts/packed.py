"""Documents back to back, without memory: training and scoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from llama4_core.contexts.forward import ForwardFacts, LayerFacts, checked_lengths
from llama4_core.contexts.recurrent import grouped_scan
from llama4_core.errors import ContextError
from llama4_core.protocols.attention import AttentionBatch, Segment
from llama4_core.protocols.masks import SameDocument
from llama4_core.protocols.views import AttentionKind, Mixer, Scan


class PackedContext:
    """A stream of whole documents; positions restart at 0 in each.

    Everything that depends on lengths is planned here, on the host, once per attention kind: the
    blocks only touch tensors.

    Args:
        mixers: those of the model's layers, first to last.
        lengths: tokens of each document, at least 1.
        device: of the stream.
        training, generator, forced: see :class:`ForwardFacts`.

    Raises:
        ContextError: no document, or one without tokens.
    """

    def __init__(
        self,
        mixers: Sequence[Mixer],
        lengths: Sequence[int],
        device: torch.device,
        *,
        training: bool = False,
        generator: torch.Generator | None = None,
        forced: Sequence[Tensor | None] | None = None,
    ) -> None:
        self.lengths = checked_lengths(lengths, "document", 1)
        if not self.lengths:
            raise ContextError("got no documents; expected the length of at least one")
        self.facts = ForwardFacts(
            [0] * len(self.lengths),
            self.lengths,
            device,
            training=training,
            generator=generator,
            forced=forced,
        )
        grad = torch.is_grad_enabled()
        plans: dict[Any, Any] = {}
        self._views = []
        for mixer in mixers:
            kind = mixer.kind
            if kind is None:
                self._views.append(PackedView(self.facts, self.lengths, None, None))
                continue
            backend = kind.backends.pick(self.facts.count, grad)
            key = (id(backend), kind.mask, kind.score_terms)
            if key not in plans:
                plans[key] = backend.plan(self._batch(kind, device, grad))
            self._views.append(PackedView(self.facts, self.lengths, backend, plans[key]))

    def _batch(self, kind: AttentionKind, device: torch.device, grad: bool) -> AttentionBatch:
        segments, offset = [], 0
        for length in self.lengths:
            segments.append(Segment(0, length, 0, length, key_offset=offset))
            offset += length
        return AttentionBatch(
            segments=tuple(segments),
            mask=kind.mask & SameDocument(),
            score_terms=kind.score_terms,
            key_layout="flat",
            device=str(device),
            grad=grad,
        )

    def begin(self, tokens: Tensor, shared: Mapping[str, Tensor]) -> None:
        """See :meth:`ForwardFacts.begin`."""
        self.facts.begin(tokens, shared, self._views)

    @property
    def positions(self) -> Tensor:
        """``[N]`` int64."""
        return self.facts.positions

    def layer(self, index: int) -> PackedView:
        """The view of layer ``index``."""
        return self._views[index]


class PackedView(LayerFacts):
    """A packed context, seen from one layer."""

    def __init__(
        self, facts: ForwardFacts, lengths: tuple[int, ...], backend: Any, plan: Any
    ) -> None:
        super().__init__(facts)
        self.lengths = lengths
        self.backend = backend
        self.plan = plan

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float,
        score_tensors: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Attention within each document: ``[N, H, K]``."""
        out: Tensor = self.backend(q, k, v, self.plan, scale=scale, score_tensors=score_tensors)
        return out

    def recur(self, inputs: Mapping[str, Tensor], scan: Scan) -> Tensor:
        """The recurrence over each document, from an empty state."""
        outputs, _ = grouped_scan(inputs, scan, self.lengths, None)
        return outputs
