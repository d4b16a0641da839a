"""Checks of the socket attention_backends."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import assume
from hypothesis import strategies as st

from llama4_core.protocols.attention import Segment
from llama4_core.protocols.masks import Causal, Chunked, SameDocument, kinds_of
from llama4_core.protocols.problems import AttentionProblem
from llama4_core.protocols.scores import Sink
from llama4_core.testing.attention_cases import (
    CAUSAL,
    MASKS,
    NO_TERMS,
    SHAPES,
    TERMS,
    AttentionCase,
    Document,
    agrees,
    cases,
    visible,
)
from llama4_core.testing.attention_numerics import NUMERICS
from llama4_core.testing.check import Check, Refused, Subject, check
from llama4_core.testing.compare import close, holds, same
from llama4_core.testing.strategies import partitions, strided, walled

# --- what it accepts ----------------------------------------------------------------------------


def _every_problem(subject: Subject) -> list[AttentionProblem]:
    return [
        AttentionProblem(
            heads,
            groups,
            size,
            dtype=dtype,
            device=device,
            mask_kinds=kinds_of(make(4, 4) & SameDocument()),
            score_terms=frozenset(type(term).__name__ for term in terms(heads)),
            key_layout=layout,
            grad=grad,
        )
        for heads, groups, size in SHAPES
        for dtype in ("float32", "bfloat16", "float16")
        for device in {subject.device, "cpu", "cuda"}
        for make in MASKS.values()
        for terms in TERMS.values()
        for layout in ("flat", "head_major")
        for grad in (False, True)
    ]


@check(
    why="assembly asks this before it chooses; a part that refuses everything can never run, and a "
    "refusal without a reason leaves the user of `llama4 explain` in the dark",
    cases=lambda subject: st.none(),
    examples=1,
)
def supports_answers(subject: Subject, case: None) -> None:
    """``supports`` answers each problem with None or a reason, and accepts at least one."""
    problems = _every_problem(subject)
    answers = [subject.refusal(problem) for problem in problems]
    for problem, answer in zip(problems, answers, strict=True):
        holds(
            answer is None or (isinstance(answer, str) and bool(answer.strip())),
            f"supports({problem}) gave {answer!r}; expected None or a reason",
        )
    if None in answers:
        return
    if "not installed here" in str(answers[0]):
        raise Refused(str(answers[0]))
    raise AssertionError(f"supports refuses every problem, the first because: {answers[0]}")


# --- the definition -----------------------------------------------------------------------------


@check(
    properties=(2, 3, 6),
    why="a wrong mask lets tokens see what they must not, or hides what they need: text degrades "
    "silently, often only past the first chunk",
    cases=cases(),
)
def matches_definition(subject: Subject, case: AttentionCase) -> None:
    """The output equals attention computed pair by pair from the mask's ``visible``."""
    agrees(subject, case, case.inputs(subject.device), "output")


@check(
    properties=(2, 4, 5),
    why="generation calls this for every token of every layer",
    cases=cases(decode=True, masks=CAUSAL),
)
def decode_matches_definition(subject: Subject, case: AttentionCase) -> None:
    """One query per document, behind caches of different lengths, equals the definition."""
    agrees(subject, case, case.inputs(subject.device), "decode output")


@st.composite
def _long(draw: Any, short: AttentionCase) -> AttentionCase:
    """A case whose stream is long enough for code that works in blocks."""
    mask = MASKS[draw(st.sampled_from(_mask_names(short)))](
        draw(st.sampled_from((64, 130, 700))), draw(st.sampled_from((33, 256)))
    )
    start = draw(st.sampled_from((0, 0, 70, 300)))
    first = mask.horizon(start)
    documents = (
        Document(0, draw(st.sampled_from((129, 520))), 0),
        Document(start, draw(st.sampled_from((40, 270))), first),
    )
    return dataclasses.replace(short, mask=mask, documents=documents, slots=(1, 0))


def _mask_names(case: AttentionCase) -> list[str]:
    kinds = case.problem.mask_kinds
    return [name for name, make in MASKS.items() if kinds_of(make(4, 4) & SameDocument()) == kinds]


@check(
    properties=(2,),
    why="kernels work in blocks; an error at a block's border shows in long prompts only",
    cases=lambda subject: cases(spices=("plain",))(subject).flatmap(_long),
    examples=5,
)
def long_documents(subject: Subject, case: AttentionCase) -> None:
    """Documents of hundreds of tokens equal the definition."""
    agrees(subject, case, case.inputs(subject.device), "output of a long stream")


@check(
    properties=(6,),
    why="grouped heads that read the wrong keys give fluent nonsense",
    cases=cases(terms=NO_TERMS),
)
def grouped_heads(subject: Subject, case: AttentionCase) -> None:
    """G kv heads equal H kv heads that are copies."""
    problem = dataclasses.replace(case.problem, kv_heads=case.problem.heads)
    assume(problem != case.problem and subject.refusal(problem) is None)
    inputs = case.inputs(subject.device)
    groups = case.problem.heads // case.problem.kv_heads
    copies = dataclasses.replace(
        inputs,
        keys=inputs.keys.repeat_interleave(groups, 1),
        values=inputs.values.repeat_interleave(groups, 1),
    )
    tolerance = subject.tolerance(case.problem.dtype)
    close(inputs.run(subject.build()), copies.run(subject.build()), tolerance, "grouped heads")


@check(
    properties=(11,),
    why="short prompts must not notice that a layer is chunked",
    cases=cases(masks=("chunked",)),
)
def large_chunk_is_causal(subject: Subject, case: AttentionCase) -> None:
    """A chunk that holds the whole document changes nothing."""
    documents = tuple(dataclasses.replace(d, first=0) for d in case.documents)
    size = max(d.start + d.queries for d in documents)
    chunked = dataclasses.replace(case, mask=Causal() & Chunked(size), documents=documents)
    causal = dataclasses.replace(case, mask=Causal(), documents=documents)
    kinds = frozenset({"Causal", "SameDocument"})
    assume(subject.refusal(dataclasses.replace(case.problem, mask_kinds=kinds)) is None)
    got, expected = (c.inputs(subject.device).run(subject.build()) for c in (chunked, causal))
    close(got, expected, subject.tolerance(case.problem.dtype), "chunk of the whole document")


@check(
    properties=(13,),
    why="a weight that is negative, or a sum of weights above one, blows up deep models",
    cases=cases(),
)
def convex_hull(subject: Subject, case: AttentionCase) -> None:
    """Each output lies between the least and the largest visible value (and 0 with a sink)."""
    inputs = case.inputs(subject.device)
    got = inputs.run(subject.build()).double()
    groups = case.problem.heads // case.problem.kv_heads
    slack = subject.tolerance(case.problem.dtype) * max(1.0, float(inputs.values.abs().max()))
    for segment, rows in inputs.rows():
        seen = visible(inputs.batch.mask, segment).to(got.device)[:, :, None, None]
        values = inputs.of_segment(inputs.values, segment).double()
        values = values.repeat_interleave(groups, 1)[None]
        low = values.masked_fill(~seen, float("inf")).amin(1)
        high = values.masked_fill(~seen, float("-inf")).amax(1)
        if Sink() in case.terms:
            low, high = low.clamp(max=0), high.clamp(min=0)
        inside = (got[rows] >= low - slack) & (got[rows] <= high + slack)
        holds(bool(inside.all()), "an output lies outside of the values that its query may see")


# --- tokens do not disturb each other -----------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """A case and a number between 0 and 1 that picks a place in it."""

    case: AttentionCase
    where: float


@check(
    properties=(1,),
    why="a model that sees the future trains to a perfect loss and generates garbage",
    cases=lambda subject: st.builds(Split, cases(masks=CAUSAL)(subject), st.floats(0, 0.999)),
)
def causality(subject: Subject, case: Split) -> None:
    """Changing a later token leaves earlier outputs, and other documents, equal bit for bit."""
    inputs = case.case.inputs(subject.device)
    before = inputs.run(subject.build())
    segment, rows = inputs.rows()[int(case.where * len(inputs.batch.segments))]
    changed = int(case.where * segment.query_length)
    index = segment.key_length - segment.query_length + changed
    q, keys, values = inputs.q.clone(), inputs.keys.clone(), inputs.values.clone()
    future = dataclasses.replace(inputs, q=q, keys=keys, values=values)
    q[rows.start + changed : rows.stop] += 1
    future.of_segment(keys, segment)[index:] += 3
    future.of_segment(values, segment)[index:] -= 2
    after = future.run(subject.build())
    kept = torch.ones(len(before), dtype=torch.bool, device=before.device)
    kept[rows.start + changed : rows.stop] = False
    same(after[kept], before[kept], "outputs before the changed token")


@dataclass(frozen=True)
class Pieces:
    """A whole document, and how it is cut."""

    case: AttentionCase
    lengths: tuple[int, ...]


def _pieces(subject: Subject) -> st.SearchStrategy[Pieces]:
    whole = cases(masks=CAUSAL, past=False, largest=24, key_layout="head_major")(subject)
    return whole.flatmap(
        lambda case: partitions(case.documents[0].queries).map(lambda cut: Pieces(case, cut))
    )


@check(
    properties=(4,),
    why="prefill and decode must agree, or generation drifts from what was trained",
    cases=_pieces,
)
def incremental_equals_full(subject: Subject, case: Pieces) -> None:
    """Any split of a document into steps over a growing cache equals the full pass."""
    first = case.case.documents[0]
    whole = dataclasses.replace(case.case, documents=(first,), slots=case.case.slots[:1])
    whole = dataclasses.replace(whole, slots=(0,))
    inputs = whole.inputs(subject.device)
    backend, done, outputs = subject.build(), 0, []
    for length in case.lengths:
        seen = whole.mask.horizon(done)
        step = dataclasses.replace(
            inputs.batch,
            segments=(Segment(done, length, seen, done + length - seen, 0, whole.offset + seen),),
        )
        part = dataclasses.replace(inputs, batch=step, q=inputs.q[done : done + length])
        outputs.append(part.run(backend))
        done += length
    tolerance = subject.tolerance(whole.problem.dtype)
    close(torch.cat(outputs), inputs.run(backend), tolerance, f"steps {case.lengths}")


@check(
    properties=(5,),
    why="what a user gets must not depend on who else is being served",
    cases=cases(),
)
def batch_invariance(subject: Subject, case: AttentionCase) -> None:
    """A document alone gives what it gives among others."""
    inputs = case.inputs(subject.device)
    together = inputs.run(subject.build())
    for segment, rows in inputs.rows():
        alone = dataclasses.replace(
            inputs,
            batch=dataclasses.replace(inputs.batch, segments=(segment,)),
            q=inputs.q[rows],
        )
        if case.problem.key_layout == "flat":
            stop = segment.key_offset + segment.key_length
            alone = dataclasses.replace(
                alone,
                batch=dataclasses.replace(
                    alone.batch, segments=(dataclasses.replace(segment, key_offset=0),)
                ),
                keys=inputs.keys[segment.key_offset : stop],
                values=inputs.values[segment.key_offset : stop],
            )
        tolerance = subject.tolerance(case.problem.dtype)
        close(alone.run(subject.build()), together[rows], tolerance, "a document alone")


# --- memory -------------------------------------------------------------------------------------


@check(
    properties=(5,),
    why="caches are larger than what they hold; what an earlier user left there must not leak",
    cases=cases(key_layout="head_major"),
)
def unused_slots_are_harmless(subject: Subject, case: AttentionCase) -> None:
    """Finite garbage in cache entries that no segment names changes nothing, bit for bit."""
    inputs = case.inputs(subject.device)
    used = torch.zeros_like(inputs.keys, dtype=torch.bool)
    for segment in inputs.batch.segments:
        inputs.of_segment(used, segment)[:] = True
    dirty = dataclasses.replace(
        inputs,
        keys=torch.where(used, inputs.keys, 50.0),
        values=torch.where(used, inputs.values, 1000.0),
    )
    same(dirty.run(subject.build()), inputs.run(subject.build()), "output beside garbage")


@check(
    why="reading past the end of a tensor gives other users' data, or a crash",
    cases=cases(),
)
def stays_inside(subject: Subject, case: AttentionCase) -> None:
    """Nothing outside of the given tensors is read: they lie between walls of NaN."""
    inputs = case.inputs(subject.device)
    walls = inputs.with_tensors(walled)
    tolerance = subject.tolerance(case.problem.dtype)
    close(walls.run(subject.build()), inputs.run(subject.build()), tolerance, "between walls")


@check(
    properties=(14,),
    why="projections and caches hand over views; a kernel that ignores strides mixes up heads",
    cases=cases(),
)
def strides(subject: Subject, case: AttentionCase) -> None:
    """Tensors with other strides give the same output."""
    inputs = case.inputs(subject.device)
    spread = inputs.with_tensors(strided)
    tolerance = subject.tolerance(case.problem.dtype)
    close(spread.run(subject.build()), inputs.run(subject.build()), tolerance, "strided tensors")


@check(
    why="all layers of a kind share a plan; one that keeps data answers with another layer's",
    cases=cases(),
)
def plan_is_pure(subject: Subject, case: AttentionCase) -> None:
    """A plan holds no data: it serves other tensors, often; inputs stay as they are."""
    inputs = case.inputs(subject.device)
    other = inputs.with_tensors(lambda x: x.flip(0) * 0.5 + 0.25)
    backend = subject.build()
    plan = backend.plan(inputs.batch)
    kept = [x.clone() for x in (inputs.q, inputs.keys, inputs.values)]
    first = inputs.call(backend, plan)
    second = other.call(backend, plan)
    same(inputs.call(backend, plan), first, "the same plan a second time")
    same(second, other.run(subject.build()), "a shared plan beside a fresh one")
    for now, before in zip((inputs.q, inputs.keys, inputs.values), kept, strict=True):
        same(now, before, "an input after the call")


CHECKS: tuple[Check, ...] = (
    supports_answers,
    matches_definition,
    decode_matches_definition,
    long_documents,
    grouped_heads,
    large_chunk_is_causal,
    convex_hull,
    causality,
    incremental_equals_full,
    batch_invariance,
    unused_slots_are_harmless,
    stays_inside,
    strides,
    plan_is_pure,
    *NUMERICS,
)
