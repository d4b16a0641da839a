"""Checks of the socket mixers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from llama4_core.contexts.caches import HeadMajorCache
from llama4_core.errors import SpecError
from llama4_core.plugins.catalogue import catalogue
from llama4_core.plugins.choose import Assembler
from llama4_core.plugins.overrides import Overrides
from llama4_core.specs.model import AttentionSpec, RopeSpec, TemperatureSpec
from llama4_core.testing.check import Check, Subject, check
from llama4_core.testing.compare import close, holds, same
from llama4_core.testing.layer_driver import memory, packed, step
from llama4_core.testing.strategies import Numbers, numbers, partitions

WIDTH = 12
EPS = 1e-5
ROPE = RopeSpec(100.0)
SPECS = (
    AttentionSpec("nope-global", 2, 2, 8),
    AttentionSpec("nope-global", 4, 2, 8, temperature=TemperatureSpec(0.1, 4.0)),
    AttentionSpec("irope-chunked", 4, 2, 8, rope=ROPE, chunk=5, qk_norm=True),
    AttentionSpec("irope-chunked", 2, 2, 8, rope=ROPE, chunk=5),
    AttentionSpec("full-rope", 2, 1, 8, rope=ROPE),
    AttentionSpec("sliding-window", 4, 2, 8, rope=ROPE, window=6),
    AttentionSpec("capped-sink", 2, 2, 8, rope=ROPE, soft_cap=5.0, sink=True),
)


def build(subject: Subject, spec: AttentionSpec) -> Any:
    """The mixer with random weights, assembled from the installed components."""
    parts = Assembler(catalogue(), Overrides({}), dtype="float32", device=subject.device)
    mixer = subject.build(spec, WIDTH, EPS, parts.child("layers.0.attention"))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in mixer.parameters():
            scale = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 1.0
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return mixer.eval()


@functools.lru_cache(maxsize=64)
def _accepted(call: Callable[..., Any], subject_name: str) -> tuple[tuple[AttentionSpec, ...], str]:
    found, first = [], ""
    for spec in SPECS:
        try:
            build(Subject("mixers", subject_name, call), spec)
        except SpecError as error:
            first = first or str(error)
        else:
            found.append(spec)
    return tuple(found), first


@dataclass(frozen=True)
class MixerCase:
    """Documents for one layer.

    Attributes:
        spec: of the layer.
        lengths: of the documents.
        cuts: per document, how it is cut into steps.
        numbers: source of the hidden states.
    """

    spec: AttentionSpec
    lengths: tuple[int, ...]
    cuts: tuple[tuple[int, ...], ...]
    numbers: Numbers

    def documents(self) -> list[Tensor]:
        """Hidden states ``[T, D]`` of each."""
        source = self.numbers.source()
        return [source(length, WIDTH) for length in self.lengths]


def _cases(subject: Subject) -> st.SearchStrategy[MixerCase]:
    specs, reason = _accepted(subject.build, subject.name)
    if not specs:
        raise AssertionError(f"every description is refused, the first because: {reason}")

    def cut(lengths: list[int]) -> st.SearchStrategy[MixerCase]:
        return st.builds(
            MixerCase,
            st.sampled_from(specs),
            st.just(tuple(lengths)),
            st.tuples(*(partitions(length) for length in lengths)),
            numbers("plain", "ties", "zeros", "tiny"),
        )

    return st.lists(st.integers(1, 24), min_size=1, max_size=3).flatmap(cut)


@check(
    properties=(1,),
    why="a layer that sees the future trains to a perfect loss and generates garbage",
    cases=_cases,
)
def causality(subject: Subject, case: MixerCase) -> None:
    """Changing a later token leaves earlier outputs, and other documents, equal bit for bit."""
    mixer = build(subject, case.spec)
    documents = case.documents()
    before = packed(mixer, documents)
    place = case.cuts[0][0] - 1  # the end of the first piece: any place of the document
    documents[0] = documents[0].clone()
    documents[0][place:] += 1
    after = packed(mixer, documents)
    same(after[0][:place], before[0][:place], "outputs before the changed token")
    for now, then in zip(after[1:], before[1:], strict=True):
        same(now, then, "another document")


@check(
    properties=(4,),
    why="prefill and decode must agree, or generation drifts from what was trained",
    cases=_cases,
)
def incremental_equals_full(subject: Subject, case: MixerCase) -> None:
    """Any split into steps, each document at its own pace, equals the full pass."""
    mixer = build(subject, case.spec)
    documents = case.documents()
    kept = memory(mixer, len(documents))
    outputs: list[list[Tensor]] = [[] for _ in documents]
    left = [
        list(document.split(list(cut))) for document, cut in zip(documents, case.cuts, strict=True)
    ]
    while any(left):
        pieces = [row.pop(0) if row else documents[0][:0] for row in left]
        for row, out in enumerate(step(mixer, kept, pieces)):
            outputs[row].append(out)
        kept.commit()
    for row, expected in enumerate(packed(mixer, documents)):
        close(torch.cat(outputs[row]), expected, subject.tolerance("float32"), f"document {row}")


@check(
    properties=(4,),
    why="speculative decoding proposes tokens and takes some back; what is left of them leaks",
    cases=_cases,
)
def rollback_is_exact(subject: Subject, case: MixerCase) -> None:
    """Provisional tokens that are not committed leave no trace, wherever the cut is."""
    mixer = build(subject, case.spec)
    documents = case.documents()
    kept = memory(mixer, len(documents))
    wrong = [document.flip(0) + 1 for document in documents]
    step(mixer, kept, wrong)
    kept.rollback()
    first = [cut[0] for cut in case.cuts]
    # Right tokens, then wrong ones behind them; only the right ones are committed.
    mixed = [
        torch.cat([document[:count], other])
        for document, count, other in zip(documents, first, wrong, strict=True)
    ]
    step(mixer, kept, mixed)
    kept.commit(first)
    rest = [document[count:] for document, count in zip(documents, first, strict=True)]
    if not any(len(piece) for piece in rest):
        return
    outputs = step(mixer, kept, rest)
    for row, expected in enumerate(packed(mixer, documents)):
        close(outputs[row], expected[first[row] :], subject.tolerance("float32"), f"document {row}")


@check(
    properties=(5,),
    why="what a user gets must not depend on who else is being served",
    cases=_cases,
)
def batch_invariance(subject: Subject, case: MixerCase) -> None:
    """A document alone gives what it gives among others."""
    mixer = build(subject, case.spec)
    documents = case.documents()
    for row, together in enumerate(packed(mixer, documents)):
        alone = packed(mixer, [documents[row]])[0]
        close(alone, together, subject.tolerance("float32"), f"document {row} alone")


@check(
    why="state in a module leaks between users, and is counted twice by activation checkpointing",
    cases=_cases,
)
def forward_is_pure(subject: Subject, case: MixerCase) -> None:
    """A forward changes nothing in the module: the same again gives the same bits."""
    mixer = build(subject, case.spec)
    state = {name: value.clone() for name, value in mixer.state_dict().items()}
    documents = case.documents()
    before = packed(mixer, documents)
    packed(mixer, [document + 1 for document in documents])
    for now, then in zip(packed(mixer, documents), before, strict=True):
        same(now, then, "the same forward again")
    for name, value in mixer.state_dict().items():
        same(value, state[name], name)


@check(
    why="capacity planning promises users a context length by these bytes",
    cases=_cases,
)
def state_spec_is_true(subject: Subject, case: MixerCase) -> None:
    """What is kept is what ``state_spec`` states, to the byte."""
    mixer = build(subject, case.spec)
    documents = case.documents()
    longest = max(case.lengths)
    kept = memory(
        mixer,
        len(documents),
        capacity=longest,
        make_cache=functools.partial(HeadMajorCache, bounded=False),
    )
    step(mixer, kept, documents)
    kept.commit()
    elements = mixer.state_spec.elements(longest, bounded=False)
    stated = len(documents) * elements * torch.float32.itemsize
    holds(kept.nbytes == stated, f"keeps {kept.nbytes} bytes; state_spec states {stated}")


@check(
    properties=(15,),
    why="a weight without a gradient is never trained",
    cases=_cases,
)
def weights_get_gradients(subject: Subject, case: MixerCase) -> None:
    """Every weight gets a gradient, and it is finite."""
    mixer = build(subject, case.spec)
    out = torch.cat(packed(mixer, case.documents()))
    out.square().sum().backward()
    for name, parameter in mixer.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:
            raise AssertionError(f"{name} got no gradient")
        holds(bool(parameter.grad.isfinite().all()), f"the gradient of {name} is not finite")


CHECKS: tuple[Check, ...] = (
    causality,
    incremental_equals_full,
    rollback_is_exact,
    batch_invariance,
    forward_is_pure,
    state_spec_is_true,
    weights_get_gradients,
)
