"""Checks of attention backends: log-sum-exp, gradients, score terms, refusals, compilation."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from llama4_core.errors import ComponentError, Llama4Error
from llama4_core.protocols.masks import Causal, Place, SameDocument, _Composable, kinds_of
from llama4_core.testing.attention_cases import (
    NO_TERMS,
    TERMS,
    AttentionCase,
    Inputs,
    agrees,
    cases,
    definition,
)
from llama4_core.testing.check import Check, Refused, Subject, check
from llama4_core.testing.compare import close, holds
from llama4_core.testing.profiles import GRADIENT


@check(
    why="merging partial results, as for long prompts over a cache, weighs them by this number",
    cases=cases(lse=True),
)
def lse(subject: Subject, case: AttentionCase) -> None:
    """The log-sum-exp is float32, natural, after the score terms, and leaves the output alone."""
    inputs = case.inputs(subject.device)
    got, total = inputs.run(subject.build(), return_lse=True)
    expected, expected_total = definition(inputs)
    tolerance = subject.tolerance(case.problem.dtype)
    holds(total.dtype == torch.float32, f"lse has dtype {total.dtype}; expected float32")
    close(total, expected_total, tolerance, "lse")
    close(got, expected, tolerance, "output beside lse")


def _gradients(inputs: Inputs, run: Any, numbers: Tensor) -> list[Tensor]:
    names = list(inputs.score_tensors)
    leaves = [inputs.q, inputs.keys, inputs.values, *(inputs.score_tensors[n] for n in names)]
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    traced = dataclasses.replace(
        inputs,
        q=leaves[0],
        keys=leaves[1],
        values=leaves[2],
        score_tensors=dict(zip(names, leaves[3:], strict=True)),
    )
    out = run(traced)
    found = torch.autograd.grad((out * numbers.to(out.dtype)).sum(), leaves, allow_unused=True)
    return [
        torch.zeros_like(leaf) if gradient is None else gradient
        for gradient, leaf in zip(found, leaves, strict=True)
    ]


def _same_gradients(subject: Subject, inputs: Inputs, run: Any, expected: Any, what: str) -> None:
    sample = expected(inputs)
    weights = torch.linspace(-1, 1, sample.numel(), device=sample.device).view(sample.shape)
    ours = _gradients(inputs, run, weights)
    exact = _gradients(inputs, expected, weights)
    for got, wanted, name in zip(ours, exact, ("q", "keys", "values", "sink"), strict=False):
        close(got, wanted, GRADIENT * subject.tolerance("float32"), f"gradient of {what} by {name}")


@check(
    properties=(15,),
    why="a wrong gradient trains a worse model without any error",
    cases=cases(grad=True, dtype="float32", past=False, spices=("plain", "zeros", "tiny")),
)
def gradient(subject: Subject, case: AttentionCase) -> None:
    """Gradients of q, keys, values and score tensors equal those of the definition."""
    inputs = case.inputs(subject.device)
    backend = subject.build()
    _same_gradients(
        subject, inputs, lambda x: x.run(backend), lambda x: definition(x)[0], "the output"
    )


@check(
    properties=(15,),
    why="training on a continued context is rare: an error is fine, a wrong gradient is not",
    cases=cases(grad=True, dtype="float32", spices=("plain", "zeros")),
)
def gradient_behind_keys(subject: Subject, case: AttentionCase) -> None:
    """With keys before the first query, gradients are right, or the call says that it has none."""
    inputs = case.inputs(subject.device)
    backend = subject.build()
    try:
        _gradients(inputs, lambda x: x.run(backend), torch.ones_like(inputs.q))
    except ComponentError:
        return
    _same_gradients(
        subject, inputs, lambda x: x.run(backend), lambda x: definition(x)[0], "the output"
    )


def _with_lse(subject: Subject) -> st.SearchStrategy[AttentionCase]:
    try:
        return cases(grad=True, lse=True, dtype="float32", spices=("plain",))(subject)
    except Refused:
        cases()(subject)  # refused altogether: it may not even be importable
        if getattr(subject.build(), "differentiable_lse", False):
            raise AssertionError(
                "differentiable_lse is declared, but every problem with grad and lse is refused"
            ) from None
        raise


@check(
    properties=(15,),
    why="torch's kernels return a log-sum-exp without a gradient: results merged by it are right, "
    "their gradients silently wrong",
    cases=_with_lse,
)
def lse_gradient(subject: Subject, case: AttentionCase) -> None:
    """The log-sum-exp has the right gradient, or problems that need it are refused."""
    backend = subject.build()
    holds(
        getattr(backend, "differentiable_lse", False),
        f"{case.problem} is accepted, but differentiable_lse is not declared",
    )
    inputs = case.inputs(subject.device)
    _same_gradients(
        subject,
        inputs,
        lambda x: x.run(backend, return_lse=True)[1],
        lambda x: definition(x)[1].float(),
        "lse",
    )


@check(
    why="a soft-cap or sink that is silently left out changes every number of a model that has one",
    cases=cases(terms=tuple(name for name in TERMS if name != "none")),
)
def score_terms(subject: Subject, case: AttentionCase) -> None:
    """Each accepted score term is applied as its definition says, in the given order."""
    agrees(subject, case, case.inputs(subject.device), f"output with {case.terms}")


@dataclass(frozen=True)
class EveryThird(_Composable):
    """A mask that no backend can know: keys at distances that are multiples of three."""

    def visible(self, query: Place, key: Place) -> Any:
        return (query.position - key.position) % 3 == 0

    def horizon(self, position: int) -> int:
        return 0


@dataclass(frozen=True)
class Halved:
    """A score term that no backend can know."""

    def apply(self, scores: Tensor, distance: Tensor, tensors: Any) -> tuple[Tensor, None]:
        return scores * 0.5 + (distance % 2).to(scores.dtype), None


@check(
    why="what a backend does not know it must refuse: ignoring it gives wrong numbers silently",
    cases=cases(masks=("causal",), terms=NO_TERMS, dtype="float32"),
)
def unknown_is_refused(subject: Subject, case: AttentionCase) -> None:
    """A mask or score term that it cannot know is refused, or computed right."""
    strange = dataclasses.replace(case, mask=Causal() & EveryThird())
    kinds = kinds_of(strange.mask & SameDocument())
    if subject.refusal(dataclasses.replace(case.problem, mask_kinds=kinds)) is None:
        agrees(subject, case, strange.inputs(subject.device), "output with an unknown mask")
    strange = dataclasses.replace(case, terms=(Halved(),))
    problem = dataclasses.replace(case.problem, score_terms=frozenset({"Halved"}))
    if subject.refusal(problem) is None:
        agrees(subject, case, strange.inputs(subject.device), "output with an unknown term")


@check(
    why="a stream that is not the planned one must stop, not give numbers of other tokens",
    cases=cases(spices=("plain",)),
)
def wrong_stream_is_an_error(subject: Subject, case: AttentionCase) -> None:
    """A call with more queries than were planned raises an error of this toolkit."""
    inputs = case.inputs(subject.device)
    backend = subject.build()
    plan = backend.plan(inputs.batch)
    longer = dataclasses.replace(inputs, q=torch.cat([inputs.q, inputs.q]))
    try:
        longer.call(backend, plan)
    except Llama4Error:
        return
    raise AssertionError("twice as many queries as planned were accepted without an error")


@check(
    properties=(16,),
    why="serving and training compile the model; a graph break or a wrong trace stops them",
    cases=cases(compiled=True, spices=("plain",), dtype="float32"),
    examples=2,
)
def compiles(subject: Subject, case: AttentionCase) -> None:
    """``torch.compile(fullgraph=True)`` of the device call gives the same output."""
    inputs = case.inputs(subject.device)
    backend = subject.build()
    plan = backend.plan(inputs.batch)

    def device_call(q: Tensor, keys: Tensor, values: Tensor) -> Any:
        return dataclasses.replace(inputs, q=q, keys=keys, values=values).call(backend, plan)

    torch.compiler.reset()
    compiled = torch.compile(device_call, backend="aot_eager", fullgraph=True)
    got = compiled(inputs.q, inputs.keys, inputs.values)
    expected = inputs.call(backend, plan)
    close(got, expected, subject.tolerance(case.problem.dtype), "compiled output")


NUMERICS: tuple[Check, ...] = (
    lse,
    gradient,
    gradient_behind_keys,
    lse_gradient,
    score_terms,
    unknown_is_refused,
    wrong_stream_is_an_error,
    compiles,
)
