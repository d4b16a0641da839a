"""Bugs of attention backends, planted into the eager one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from llama4_core.attention.eager import EagerAttention
from llama4_core.attention.support import eager_supports
from llama4_core.protocols.attention import AttentionBatch
from llama4_core.protocols.masks import (
    Causal,
    Chunked,
    Mask,
    Place,
    SlidingWindow,
    _Composable,
    both,
    parts_of,
)
from llama4_core.testing.attention_numerics import EveryThird, Halved
from llama4_core.testing.check import Subject
from llama4_core.testing.mutants import Mutant


@dataclass(frozen=True)
class Shifted(_Composable):
    """Causal, off by some positions: -1 is ``<`` for ``<=``."""

    ahead: int

    def visible(self, query: Place, key: Place) -> Any:
        """See :class:`~llama4_core.protocols.masks.Mask`."""
        return key.position <= query.position + self.ahead

    def horizon(self, position: int) -> int:
        """See :class:`~llama4_core.protocols.masks.Mask`."""
        return 0


def _same(value: Any, *rest: Any) -> Any:
    return value


class Broken(EagerAttention):
    """The eager backend, changed before and after its call.

    Args:
        batch: changes what is planned with.
        before: changes (q, keys, values).
        after: changes (output, lse), given the inputs and the plan.
    """

    def __init__(
        self,
        batch: Callable[[AttentionBatch], AttentionBatch] = _same,
        before: Callable[..., tuple[Tensor, Tensor, Tensor]] | None = None,
        after: Callable[..., tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        self.batch, self.before, self.after = batch, before, after

    def plan(self, batch: AttentionBatch) -> AttentionBatch:
        """Plans with the changed batch."""
        return super().plan(self.batch(batch))

    def __call__(
        self,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        plan: Any,
        *,
        return_lse: bool = False,
        **rest: Any,
    ) -> Any:
        """Calls with the changed tensors and changes the results."""
        if self.before is not None:
            q, keys, values = self.before(q, keys, values, plan)
        output, lse = super().__call__(q, keys, values, plan, return_lse=True, **rest)
        if self.after is not None:
            output, lse = self.after(output, lse, q=q, keys=keys, values=values, plan=plan)
        return (output, lse) if return_lse else output


def _masked(change: Callable[[Mask], Mask]) -> Callable[[AttentionBatch], AttentionBatch]:
    def changed(batch: AttentionBatch) -> AttentionBatch:
        parts = [change(part) for part in parts_of(batch.mask)]
        mask = parts[0]
        for part in parts[1:]:
            mask = both(mask, part)
        return replace(batch, mask=mask)

    return changed


def _chunk_plus_one(mask: Mask) -> Mask:
    return Chunked(mask.size + 1) if isinstance(mask, Chunked) else mask


def _chunk_minus_one(mask: Mask) -> Mask:
    return Chunked(max(1, mask.size - 1)) if isinstance(mask, Chunked) else mask


def _window_plus_one(mask: Mask) -> Mask:
    return SlidingWindow(mask.size + 1) if isinstance(mask, SlidingWindow) else mask


def _strict(mask: Mask) -> Mask:
    return Shifted(-1) if isinstance(mask, Causal) else mask


def _one_ahead(mask: Mask) -> Mask:
    return Shifted(1) if isinstance(mask, Causal) else mask


def _known_only(mask: Mask) -> Mask:
    return Causal() if isinstance(mask, EveryThird) else mask


def _decode_unmasked(batch: AttentionBatch) -> AttentionBatch:
    alone = all(segment.query_length == 1 for segment in batch.segments)
    return replace(batch, mask=Causal()) if alone else batch


def _first_key_lost(batch: AttentionBatch) -> AttentionBatch:
    segments = tuple(
        replace(
            s, key_start=s.key_start + 1, key_offset=s.key_offset + 1, key_length=s.key_length - 1
        )
        if s.key_length > s.query_length
        else s
        for s in batch.segments
    )
    return replace(batch, segments=segments)


def _heads_by_turns(q: Tensor, k: Tensor, v: Tensor, plan: Any) -> Any:
    copies = q.shape[1] // k.shape[1]
    return q, k.repeat(1, copies, *[1] * (k.dim() - 2)), v.repeat(1, copies, *[1] * (v.dim() - 2))


def _tail_scaled(output: Tensor, lse: Tensor, **inputs: Any) -> Any:
    row = torch.arange(output.shape[0])[:, None, None]
    return torch.where(row < 256, output, output * 1.01), lse


def _peek(output: Tensor, lse: Tensor, *, keys: Tensor, **inputs: Any) -> Any:
    place = keys.storage_offset() + keys.numel()
    if keys.untyped_storage().nbytes() // keys.element_size() <= place:
        return output, lse
    beyond = torch.as_strided(keys.detach(), (1,), (1,), place)
    return output + 0 * beyond, lse


def _packed_strides(x: Tensor) -> Tensor:
    return torch.as_strided(x, x.shape, torch.empty(x.shape, device="meta").stride())


class KeepsKeys(Broken):
    """Remembers the keys of the first call of a plan."""

    def plan(self, batch: AttentionBatch) -> Any:
        """A plan with room for data."""
        return {"batch": batch}

    def __call__(self, q: Tensor, keys: Tensor, values: Tensor, plan: Any, **rest: Any) -> Any:
        """Uses the remembered keys."""
        keys = plan.setdefault("keys", keys)
        return super().__call__(q, keys, values, plan["batch"], **rest)


class Halves(Broken):
    """Splits the keys in two and merges by the plain mean, not by the log-sum-exps."""

    def __call__(self, q: Tensor, keys: Tensor, values: Tensor, plan: Any, **rest: Any) -> Any:
        """Computes each half with the other half's values silenced."""
        found = super().__call__(q, keys, values, plan, **{**rest, "return_lse": True})
        blurred = super().__call__(q, keys * 0, values, plan, **{**rest, "return_lse": False})
        output = (found[0] + blurred) / 2
        return (output, found[1]) if rest.get("return_lse") else output


def _in_place(q: Tensor, k: Tensor, v: Tensor, plan: Any) -> Any:
    return q.mul_(1.5), k, v


def _past_detached(q: Tensor, k: Tensor, v: Tensor, plan: AttentionBatch) -> Any:
    past = any(s.key_length > s.query_length for s in plan.segments)
    return (q, k, v.detach() + 0 * v) if past else (q, k, v)


def _host_read(q: Tensor, k: Tensor, v: Tensor, plan: Any) -> Any:
    return (q, k, v) if float(q.sum()) < 1e30 else (q * 0, k, v)


def _wrong_lse_gradient(output: Tensor, lse: Tensor, **inputs: Any) -> Any:
    return output, 2 * lse - lse.detach()


def _accepts_unknown(problem: Any) -> str | None:
    return None if problem.key_layout in ("flat", "head_major") else "no"


def _mutant(
    bug: str,
    check: str,
    build: Callable[..., Any],
    refusal: Callable[[Any], str | None] | None = None,
) -> Mutant:
    subject = Subject("attention_backends", f"eager, {bug}", build, refusal or eager_supports)
    return Mutant(bug, check, subject)


def _batch(change: Callable[[AttentionBatch], AttentionBatch]) -> Callable[[], Broken]:
    return lambda: Broken(batch=change)


def _before(change: Callable[..., Any]) -> Callable[[], Broken]:
    return lambda: Broken(before=change)


def _after(change: Callable[..., Any]) -> Callable[[], Broken]:
    return lambda: Broken(after=change)


def _drop_terms(batch: AttentionBatch, kind: str) -> AttentionBatch:
    kept = tuple(term for term in batch.score_terms if type(term).__name__ != kind)
    return replace(batch, score_terms=kept)


class NoLengthCheck(Broken):
    """Takes as many queries as were planned and says nothing of the rest."""

    def __call__(self, q: Tensor, keys: Tensor, values: Tensor, plan: Any, **rest: Any) -> Any:
        """Cuts q off."""
        return super().__call__(q[: plan.tokens], keys, values, plan, **rest)


MUTANTS: tuple[Mutant, ...] = (
    _mutant("refuses without a reason", "supports-answers", EagerAttention, lambda problem: ""),
    _mutant("refuses everything", "supports-answers", EagerAttention, lambda problem: "not today"),
    _mutant("< for <= in the causal mask", "matches-definition", _batch(_masked(_strict))),
    _mutant("chunk one too large", "matches-definition", _batch(_masked(_chunk_plus_one))),
    _mutant("window one too large", "matches-definition", _batch(_masked(_window_plus_one))),
    _mutant("merged by the plain mean", "matches-definition", Halves),
    _mutant("decode sees other chunks", "decode-matches-definition", _batch(_decode_unmasked)),
    _mutant("wrong after 256 rows", "long-documents", _after(_tail_scaled)),
    _mutant("kv heads taken by turns", "grouped-heads", _before(_heads_by_turns)),
    _mutant("chunk one too small", "large-chunk-is-causal", _batch(_masked(_chunk_minus_one))),
    _mutant("weights sum to 1.5", "convex-hull", _after(lambda o, s, **i: (1.5 * o, s))),
    _mutant("sees one token ahead", "causality", _batch(_masked(_one_ahead))),
    _mutant("first key behind a cache lost", "incremental-equals-full", _batch(_first_key_lost)),
    _mutant(
        "depends on the number of documents",
        "batch-invariance",
        _after(lambda o, s, plan, **i: (o + 0.01 * len(plan.segments), s)),
    ),
    _mutant(
        "reads unused slots",
        "unused-slots-are-harmless",
        _after(lambda o, s, values, **i: (o + 1e-6 * values.mean(), s)),
    ),
    _mutant("reads past the end", "stays-inside", _after(_peek)),
    _mutant(
        "ignores strides",
        "strides",
        _before(lambda q, k, v, plan: (_packed_strides(q), k, v)),
    ),
    _mutant("plan keeps keys", "plan-is-pure", KeepsKeys),
    _mutant("scales q in place", "plan-is-pure", _before(_in_place)),
    _mutant("lse to base 2", "lse", _after(lambda o, s, **i: (o, s / math.log(2)))),
    _mutant("lse without the sink", "lse", _batch(lambda batch: _drop_terms(batch, "Sink"))),
    _mutant("keys get no gradient", "gradient", _before(lambda q, k, v, p: (q, k.detach(), v))),
    _mutant("no gradient behind a cache", "gradient-behind-keys", _before(_past_detached)),
    _mutant("gradient of lse doubled", "lse-gradient", _after(_wrong_lse_gradient)),
    _mutant(
        "soft-cap left out", "score-terms", _batch(lambda batch: _drop_terms(batch, "SoftCap"))
    ),
    _mutant(
        "unknown mask ignored",
        "unknown-is-refused",
        _batch(_masked(_known_only)),
        _accepts_unknown,
    ),
    _mutant(
        "unknown term ignored",
        "unknown-is-refused",
        _batch(lambda batch: _drop_terms(batch, Halved.__name__)),
        _accepts_unknown,
    ),
    _mutant("cuts off what was not planned", "wrong-stream-is-an-error", NoLengthCheck),
    _mutant("reads a number on the host", "compiles", _before(_host_read)),
)
