"""Cases of softmax attention, their tensors, and attention's definition by brute force."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from llama4_core.protocols.attention import AttentionBatch, Segment
from llama4_core.protocols.masks import (
    Causal,
    Chunked,
    Everything,
    Mask,
    Place,
    SameDocument,
    SlidingWindow,
    kinds_of,
)
from llama4_core.protocols.problems import AttentionProblem
from llama4_core.protocols.scores import DistanceBias, ScoreTerm, Sink, SoftCap
from llama4_core.testing.check import Refused, Subject
from llama4_core.testing.compare import close, holds
from llama4_core.testing.strategies import DTYPES, Numbers, numbers

MASKS: dict[str, Callable[[int, int], Mask]] = {
    "causal": lambda size, other: Causal(),
    "chunked": lambda size, other: Causal() & Chunked(size),
    "window": lambda size, other: Causal() & SlidingWindow(size),
    "chunked window": lambda size, other: Causal() & Chunked(size) & SlidingWindow(other),
    "everything": lambda size, other: Everything(),
}
TERMS: dict[str, Callable[[int], tuple[ScoreTerm, ...]]] = {
    "none": lambda heads: (),
    "cap": lambda heads: (SoftCap(2.0),),
    "sink": lambda heads: (Sink(),),
    "bias": lambda heads: (DistanceBias(tuple(0.5 / (h + 1) for h in range(heads))),),
    "cap and sink": lambda heads: (SoftCap(3.0), Sink()),
}
CAUSAL = ("causal", "chunked", "window", "chunked window")
NO_TERMS = ("none",)
SHAPES = ((1, 1, 16), (2, 2, 8), (4, 2, 16), (5, 1, 8), (6, 2, 32))
"""(H, G, K): one head, one group per head, groups of 2, 3 and Llama 4's 5."""


@dataclass(frozen=True)
class Document:
    """Queries ``start .. start + queries - 1``; keys from ``first`` on."""

    start: int
    queries: int
    first: int


@dataclass(frozen=True)
class AttentionCase:
    """One batch for a backend.

    Attributes:
        problem: what ``supports`` was asked.
        mask: without ``SameDocument()``.
        terms: score terms.
        documents: of the stream, in order.
        slots: of a head-major cache, one per document, and unused ones.
        offset, spare: unused entries before and after the keys of a slot.
        numbers: source of the tensors.
    """

    problem: AttentionProblem
    mask: Mask
    terms: tuple[ScoreTerm, ...]
    documents: tuple[Document, ...]
    slots: tuple[int, ...]
    offset: int
    spare: int
    numbers: Numbers

    def batch(self, device: str) -> AttentionBatch:
        """What the backend plans with."""
        segments, flat = [], 0
        for document, slot in zip(self.documents, self.slots, strict=False):
            length = document.start + document.queries - document.first
            head_major = self.problem.key_layout == "head_major"
            segments.append(
                Segment(
                    query_start=document.start,
                    query_length=document.queries,
                    key_start=document.first,
                    key_length=length,
                    slot=slot if head_major else 0,
                    key_offset=self.offset if head_major else flat,
                )
            )
            flat += length
        return AttentionBatch(
            segments=tuple(segments),
            mask=self.mask & SameDocument(),
            score_terms=self.terms,
            key_layout=self.problem.key_layout,
            device=device,
            grad=self.problem.grad,
        )

    def inputs(self, device: str = "cpu") -> Inputs:
        """The tensors of this case: the same ones each time."""
        batch, source = self.batch(device), self.numbers.source()
        dtype = DTYPES[self.problem.dtype]
        heads, groups, size = self.problem.heads, self.problem.kv_heads, self.problem.head_dim
        lengths = [segment.key_length for segment in batch.segments]
        shape: tuple[int, ...]
        if self.problem.key_layout == "flat":
            shape = (sum(lengths), groups, size)
        else:
            shape = (len(self.slots), groups, self.offset + max(lengths) + self.spare, size)
        q = source(batch.tokens, heads, size, dtype=dtype).to(device)
        keys = source(*shape, dtype=dtype).to(device)
        values = source(*shape, dtype=dtype).to(device)
        tensors = {"sink": source(heads).to(device)} if Sink() in self.terms else {}
        return Inputs(batch, q, keys, values, size**-0.5, tensors)


@dataclass(frozen=True)
class Inputs:
    """A planned batch and its tensors."""

    batch: AttentionBatch
    q: Tensor
    keys: Tensor
    values: Tensor
    scale: float
    score_tensors: Mapping[str, Tensor]

    def run(self, backend: Any, *, return_lse: bool = False) -> Any:
        """Plans and calls a backend."""
        return self.call(backend, backend.plan(self.batch), return_lse=return_lse)

    def call(self, backend: Any, plan: Any, *, return_lse: bool = False) -> Any:
        """Calls a backend with a plan."""
        return backend(
            self.q,
            self.keys,
            self.values,
            plan,
            scale=self.scale,
            return_lse=return_lse,
            score_tensors=self.score_tensors,
        )

    def with_tensors(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """The same batch with q, keys and values changed."""
        return replace(self, q=change(self.q), keys=change(self.keys), values=change(self.values))

    def of_segment(self, keys: Tensor, segment: Segment) -> Tensor:
        """Keys or values ``[S, G, K]`` of one segment."""
        stop = segment.key_offset + segment.key_length
        if self.batch.key_layout == "flat":
            return keys[segment.key_offset : stop]
        return keys[segment.slot, :, segment.key_offset : stop].transpose(0, 1)

    def rows(self) -> list[tuple[Segment, slice]]:
        """The segments and their rows of the stream."""
        found, row = [], 0
        for segment in self.batch.segments:
            found.append((segment, slice(row, row + segment.query_length)))
            row += segment.query_length
        return found


def visible(mask: Mask, segment: Segment) -> Tensor:
    """``[T, S]`` bool: the mask asked pair by pair, with Python ints."""
    queries = range(segment.query_start, segment.query_start + segment.query_length)
    keys = range(segment.key_start, segment.key_start + segment.key_length)
    if len(queries) * len(keys) > 4096:
        at = torch.tensor(queries)[:, None], torch.tensor(keys)[None]
        none = torch.zeros_like(at[0] + at[1])
        return mask.visible(Place(at[0], none), Place(at[1], none))
    return torch.tensor(
        [[bool(mask.visible(Place(i, 0), Place(j, 0))) for j in keys] for i in queries]
    )


def definition(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Attention as it is defined, in float64: output ``[N, H, K]`` and lse ``[N, H]``."""
    outputs, sums = [], []
    tensors = {name: tensor.double() for name, tensor in inputs.score_tensors.items()}
    for segment, rows in inputs.rows():
        q = inputs.q[rows].double().transpose(0, 1)
        groups = inputs.q.shape[1] // inputs.keys.shape[1]
        k, v = (
            inputs.of_segment(kept, segment).double().transpose(0, 1).repeat_interleave(groups, 0)
            for kept in (inputs.keys, inputs.values)
        )
        scores = inputs.scale * q @ k.transpose(1, 2)
        i = segment.query_start + torch.arange(q.shape[1], device=q.device)
        j = segment.key_start + torch.arange(k.shape[1], device=q.device)
        denominators = []
        for term in inputs.batch.score_terms:
            scores, column = term.apply(scores, i[:, None] - j[None], tensors)
            if column is not None:
                denominators.append(column[:, None, None].expand(-1, q.shape[1], 1))
        seen = visible(inputs.batch.mask, segment).to(q.device)
        scores = scores.masked_fill(~seen, float("-inf"))
        total = torch.cat([scores, *denominators], -1).logsumexp(-1)
        outputs.append(((scores - total[..., None]).exp() @ v).transpose(0, 1))
        sums.append(total.transpose(0, 1))
    return torch.cat(outputs), torch.cat(sums)


@functools.lru_cache(maxsize=256)
def _accepted(
    refusal: Callable[[Any], str | None],
    masks: tuple[str, ...],
    terms: tuple[str, ...],
    fixed: tuple[tuple[str, Any], ...],
) -> tuple[tuple[tuple[AttentionProblem, str, str], ...], str]:
    """The problems that are not refused, and the first reason met."""
    facts = dict(fixed)
    dtypes = (facts.pop("dtype"),) if "dtype" in facts else ("float32", "bfloat16")
    layouts = (facts.pop("key_layout"),) if "key_layout" in facts else ("flat", "head_major")
    found, first = [], ""
    for mask in masks:
        for term in terms:
            for heads, groups, size in SHAPES:
                for dtype in dtypes:
                    for layout in layouts:
                        problem = AttentionProblem(
                            heads,
                            groups,
                            size,
                            dtype=dtype,
                            mask_kinds=kinds_of(MASKS[mask](4, 4) & SameDocument()),
                            score_terms=frozenset(type(t).__name__ for t in TERMS[term](heads)),
                            key_layout=layout,
                            **facts,
                        )
                        reason = refusal(problem)
                        if reason is None:
                            found.append((problem, mask, term))
                        first = first or reason or ""
    return tuple(found), first


@st.composite
def _cases(
    draw: Any,
    accepted: tuple[tuple[AttentionProblem, str, str], ...],
    decode: bool,
    largest: int,
    spices: tuple[str, ...],
    past: bool,
) -> AttentionCase:
    problem, mask_name, term = draw(st.sampled_from(accepted))
    size, other = draw(st.integers(1, 8)), draw(st.integers(1, 5))
    mask = MASKS[mask_name](size, other)
    documents = []
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, 20)) if past else 0
        queries = 1 if decode else draw(st.integers(1, largest))
        first = draw(st.integers(0, mask.horizon(start)))
        documents.append(Document(start, queries, first))
    unused = draw(st.integers(0, 2))
    return AttentionCase(
        problem,
        mask,
        TERMS[term](problem.heads),
        tuple(documents),
        tuple(draw(st.permutations(range(len(documents) + unused)))),
        draw(st.integers(0, 2)),
        draw(st.integers(0, 3)),
        draw(numbers(*spices)),
    )


def cases(
    *,
    masks: tuple[str, ...] = tuple(MASKS),
    terms: tuple[str, ...] = tuple(TERMS),
    decode: bool = False,
    largest: int = 12,
    spices: tuple[str, ...] = (),
    past: bool = True,
    **fixed: Any,
) -> Callable[[Subject], st.SearchStrategy[AttentionCase]]:
    """Cases that a subject supports.

    Args:
        masks: names in ``MASKS``.
        terms: names in ``TERMS``.
        decode: one query per document.
        largest: most queries of a document.
        spices: of the numbers.
        past: documents may have keys before their first query.
        fixed: fields of the problem.
    """

    def strategy(subject: Subject) -> st.SearchStrategy[AttentionCase]:
        facts = {"device": subject.device, **fixed}
        accepted, reason = _accepted(subject.refusal, masks, terms, tuple(facts.items()))
        if not accepted:
            raise Refused(reason)
        return _cases(accepted, decode, largest, spices, past)

    return strategy


def agrees(subject: Subject, case: AttentionCase, inputs: Inputs, what: str) -> None:
    """Raises unless a fresh backend gives the definition's output in q's dtype."""
    got = inputs.run(subject.build())
    holds(got.dtype == inputs.q.dtype, f"{what}: got {got.dtype}, expected q's {inputs.q.dtype}")
    close(got, definition(inputs)[0], subject.tolerance(case.problem.dtype), what)
