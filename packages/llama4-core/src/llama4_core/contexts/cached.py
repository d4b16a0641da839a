"""Sequences with memory: generation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from llama4_core.contexts.caches import LayerCache, Placement
from llama4_core.contexts.forward import ForwardFacts, LayerFacts, checked_lengths
from llama4_core.contexts.ledger import Ledger
from llama4_core.contexts.recurrent import RecurrentState
from llama4_core.errors import ContextError
from llama4_core.protocols.attention import AttentionBatch
from llama4_core.protocols.masks import Mask, SameDocument
from llama4_core.protocols.views import Mixer, Scan


class CachedContext:
    """The memory of a batch of sequences, one row each.

    ``step = cached.extend(lengths)`` announces the next tokens of each row and gives the context of
    one forward; what that forward stores is provisional until :meth:`commit`. Several steps may be
    taken before a commit, each after the forward of the one before; :meth:`rollback` forgets them
    all, also one whose forward failed or never came.

    Args:
        mixers: those of the model's layers.
        rows: number of sequences.
        make_cache: builds the storage of a layer (see :mod:`llama4_core.contexts.caches`).
        dtype, device: of keys and values.
        capacity: length that the sequences are expected to reach; caches grow past it when needed.
    """

    def __init__(
        self,
        mixers: Sequence[Mixer],
        rows: int,
        make_cache: Callable[..., LayerCache],
        dtype: torch.dtype,
        device: torch.device,
        *,
        capacity: int = 0,
    ) -> None:
        if rows < 1:
            raise ContextError(f"got {rows} rows; expected at least one sequence")
        self.mixers = list(mixers)
        self.rows = rows
        self.device = device
        self.lengths = (0,) * rows
        self.pending = (0,) * rows
        self._step: CachedStep | None = None
        self.caches: dict[int, LayerCache] = {}
        self.states: dict[int, RecurrentState] = {}
        groups: dict[Mask, list[LayerCache]] = {}
        for index, mixer in enumerate(self.mixers):
            kind = mixer.kind
            if kind is None:
                self.states[index] = RecurrentState(rows)
            else:
                cache = make_cache(rows, kind.kv_heads, kind.head_dim, 0, dtype, device)
                self.caches[index] = cache
                groups.setdefault(kind.mask, []).append(cache)
        self.ledgers = {
            mask: Ledger(mask, caches, rows, 0, capacity) for mask, caches in groups.items()
        }

    @property
    def nbytes(self) -> int:
        """Bytes allocated for keys, values and states, all rows together."""
        kept = sum(cache.nbytes for cache in self.caches.values())
        return kept + sum(state.nbytes for state in self.states.values())

    def extend(
        self,
        lengths: Sequence[int],
        *,
        training: bool = False,
        generator: torch.Generator | None = None,
        forced: Sequence[Tensor | None] | None = None,
    ) -> CachedStep:
        """The context of a forward over ``lengths[b]`` further tokens of each row.

        Raises:
            ContextError: not one length per row, a negative one, or no token at all; or the step
                before was never run.
        """
        self._require_run()
        lengths = checked_lengths(lengths, "row", 0)
        if len(lengths) != self.rows or not any(lengths):
            raise ContextError(
                f"got lengths {list(lengths)}; expected {self.rows} numbers, one per row, not all 0"
            )
        first = [kept + extra for kept, extra in zip(self.lengths, self.pending, strict=True)]
        for ledger in self.ledgers.values():
            ledger.reserve(self.lengths, first, lengths)
        facts = ForwardFacts(
            first, lengths, self.device, training=training, generator=generator, forced=forced
        )
        step = CachedStep(self, facts, first, lengths)
        self.pending = tuple(
            extra + length for extra, length in zip(self.pending, lengths, strict=True)
        )
        self._step = step
        return step

    def _require_run(self) -> None:
        """Refuses to go on behind a step whose keys were never stored."""
        if self._step is not None and not self._step.begun:
            raise ContextError(
                f"the step of lengths {list(self._step.lengths)} was never run; expected one "
                "forward per step: call the model with it, or rollback() first"
            )

    def announced(self, step: CachedStep) -> bool:
        """Whether ``step`` is the one that comes next."""
        return step is self._step

    def commit(self, lengths: Sequence[int] | None = None) -> None:
        """Keeps the first ``lengths[b]`` provisional tokens of each row (None: all of them).

        Raises:
            ContextError: more is to be kept than was provided, or the last step was never run.
        """
        kept = self.pending if lengths is None else checked_lengths(lengths, "row", 0)
        if len(kept) != self.rows or any(
            keep > have for keep, have in zip(kept, self.pending, strict=False)
        ):
            raise ContextError(
                f"cannot commit {list(kept)} tokens; expected one number per row, at most the "
                f"provisional {list(self.pending)}"
            )
        if any(kept):
            self._require_run()
        for state in self.states.values():
            state.commit(kept)
        self._step = None
        self.lengths = tuple(have + keep for have, keep in zip(self.lengths, kept, strict=True))
        self.pending = (0,) * self.rows
        for ledger in self.ledgers.values():
            ledger.trim(self.lengths)

    def rollback(self) -> None:
        """Forgets every provisional token."""
        self.commit((0,) * self.rows)


class CachedStep:
    """The context of one forward over a cached batch."""

    def __init__(
        self,
        owner: CachedContext,
        facts: ForwardFacts,
        first: Sequence[int],
        lengths: tuple[int, ...],
    ) -> None:
        self.facts = facts
        self.lengths = lengths
        self.begun = False
        self._owner = owner
        grad = torch.is_grad_enabled()
        plans: dict[Any, Any] = {}
        placements = {
            mask: ledger.placement(first, lengths, owner.device)
            for mask, ledger in owner.ledgers.items()
        }
        self._views: list[CachedView | RecurrentView] = []
        for index, mixer in enumerate(owner.mixers):
            kind = mixer.kind
            if kind is None:
                self._views.append(RecurrentView(facts, lengths, owner.states[index]))
                continue
            backend = kind.backends.pick(facts.count, grad)
            key = (id(backend), kind.mask, kind.score_terms)
            if key not in plans:
                plans[key] = backend.plan(
                    AttentionBatch(
                        segments=owner.ledgers[kind.mask].segments(first, lengths),
                        mask=kind.mask & SameDocument(),
                        score_terms=kind.score_terms,
                        key_layout="head_major",
                        device=str(owner.device),
                        grad=grad,
                    )
                )
            self._views.append(
                CachedView(facts, backend, plans[key], owner.caches[index], placements[kind.mask])
            )

    def begin(self, tokens: Tensor, shared: Mapping[str, Tensor]) -> None:
        """See :meth:`ForwardFacts.begin`.

        Raises:
            ContextError: also when the step was run before, or a commit or rollback came between.
        """
        if self.begun or not self._owner.announced(self):
            raise ContextError(
                f"this step of lengths {list(self.lengths)} was run before, or a commit or "
                "rollback came after it; expected one forward per step: call extend() again"
            )
        self.facts.begin(tokens, shared, self._views)
        self.begun = True

    @property
    def positions(self) -> Tensor:
        """``[N]`` int64."""
        return self.facts.positions

    def layer(self, index: int) -> CachedView | RecurrentView:
        """The view of layer ``index``."""
        return self._views[index]


class CachedView(LayerFacts):
    """A cached step, seen from a softmax layer."""

    def __init__(
        self,
        facts: ForwardFacts,
        backend: Any,
        plan: Any,
        cache: LayerCache,
        placement: Placement,
    ) -> None:
        super().__init__(facts)
        self.backend = backend
        self.plan = plan
        self.cache = cache
        self.placement = placement

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float,
        score_tensors: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Stores k and v, then attends over everything kept: ``[N, H, K]``."""
        self.cache.write(k, v, self.placement)
        keys = self.cache.keys
        out: Tensor = self.backend(
            # Under autocast q is narrower than what is kept.
            q.to(keys.dtype),
            keys,
            self.cache.values,
            self.plan,
            scale=scale,
            score_tensors=score_tensors,
        )
        return out

    def recur(self, inputs: Mapping[str, Tensor], scan: Scan) -> Tensor:
        """Not for softmax layers.

        Raises:
            ContextError: always; a mixer that recurs must have ``kind = None``.
        """
        raise ContextError("a layer with an attention kind asked for a recurrence; set kind = None")


class RecurrentView(LayerFacts):
    """A cached step, seen from a recurrent layer."""

    def __init__(
        self, facts: ForwardFacts, lengths: tuple[int, ...], state: RecurrentState
    ) -> None:
        super().__init__(facts)
        self.lengths = lengths
        self.state = state

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float,
        score_tensors: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Not for recurrent layers.

        Raises:
            ContextError: always; a mixer that attends must state its ``kind``.
        """
        raise ContextError("a layer without an attention kind asked for attention; state its kind")

    def recur(self, inputs: Mapping[str, Tensor], scan: Scan) -> Tensor:
        """Advances every row's state over its new tokens."""
        return self.state.extend(inputs, scan, self.lengths)
