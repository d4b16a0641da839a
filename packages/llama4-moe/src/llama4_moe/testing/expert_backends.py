"""Checks of the socket expert_backends, for ``llama4 check expert_backend:NAME``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

from llama4_core.protocols.problems import ExpertProblem
from llama4_core.protocols.routing import Routing
from llama4_core.protocols.weights import ExpertWeights
from llama4_core.testing.check import Check, Refused, Subject, check
from llama4_core.testing.compare import close, holds, same
from llama4_core.testing.profiles import GRADIENT
from llama4_core.testing.strategies import DTYPES, walled
from llama4_moe.testing.draws import ExpertCase, expert_cases


@dataclass(frozen=True)
class BackendCase:
    """One call of a backend, and the dtype of its tensors."""

    drawn: ExpertCase
    dtype: str

    def problem(self, device: str, **facts: Any) -> ExpertProblem:
        """What ``supports`` is asked."""
        d = self.drawn
        return ExpertProblem(
            d.experts,
            d.top_k,
            d.hidden,
            d.width,
            dtype=self.dtype,
            weight_layout="in_out" if d.transposed else "out_in",
            device=device,
            tokens=d.tokens,
            **facts,
        )

    def inputs(self, device: str) -> Inputs:
        """The tensors: the same ones each time."""
        x, routing, weights = self.drawn.build(DTYPES[self.dtype])
        gate_up, down = weights.gate_up, weights.down
        if not isinstance(gate_up, Tensor) or not isinstance(down, Tensor):
            raise TypeError("the strategy draws plain weights")
        return Inputs(
            x.to(device),
            routing.experts.to(device),
            routing.weights.to(device),
            gate_up.to(device),
            down.to(device),
            self.drawn.weight_on,
        )


@dataclass(frozen=True)
class Inputs:
    """Tensors of one call: x ``[N, D]``, ids and gates ``[N, K]``, the two banks."""

    x: Tensor
    ids: Tensor
    gates: Tensor
    gate_up: Tensor
    down: Tensor
    weight_on: str

    def run(self, backend: Any) -> Tensor:
        """Calls a backend."""
        y: Tensor = backend(
            self.x,
            Routing(self.ids, self.gates),
            ExpertWeights(self.gate_up, self.down),
            weight_on=self.weight_on,
        )
        return y


def definition(inputs: Inputs) -> Tensor:
    """The sum over each token's experts, one after the other, in float64."""
    x, gates = inputs.x.double(), inputs.gates.double()
    gate_up, down = inputs.gate_up.double(), inputs.down.double()
    rows = []
    for token, chosen in enumerate(inputs.ids.tolist()):
        y = 0 * x[token]
        for slot, expert in enumerate(chosen):
            if expert < 0:
                continue
            weight = gates[token, slot]
            row = x[token] * weight if inputs.weight_on == "input" else x[token]
            gate, up = (gate_up[expert] @ row).chunk(2)
            part = down[expert] @ (F.silu(gate) * up)
            y = y + (part * weight if inputs.weight_on == "output" else part)
        rows.append(y)
    # The zero keeps a gradient path to both banks where nobody is visited.
    nothing = 0 * (gate_up.sum() + down.sum() + gates.sum())
    return torch.stack(rows) + nothing if rows else x + nothing


def cases(
    *, dtypes: tuple[str, ...] = ("float32", "bfloat16"), **facts: Any
) -> Callable[[Subject], st.SearchStrategy[BackendCase]]:
    """Calls that a subject supports, with these facts of the problem."""

    def strategy(subject: Subject) -> st.SearchStrategy[BackendCase]:
        accepted, first = [], ""
        for dtype in dtypes:
            for layout in ("out_in", "in_out"):
                problem = ExpertProblem(
                    4, 2, 16, 16, dtype, weight_layout=layout, device=subject.device, **facts
                )
                reason = subject.refusal(problem)
                if reason is None:
                    accepted.append((dtype, layout == "in_out"))
                first = first or reason or ""
        if not accepted:
            raise Refused(first)
        return st.builds(
            lambda drawn, choice: BackendCase(replace(drawn, transposed=choice[1]), choice[0]),
            expert_cases(),
            st.sampled_from(accepted),
        ).filter(lambda case: subject.refusal(case.problem(subject.device, **facts)) is None)

    return strategy


def _run(subject: Subject, case: BackendCase) -> tuple[Inputs, Tensor]:
    inputs = case.inputs(subject.device)
    return inputs, inputs.run(subject.build())


# --- what it accepts ----------------------------------------------------------------------------


def _every_problem(subject: Subject) -> list[ExpertProblem]:
    return [
        ExpertProblem(4, 2, 64, width, dtype, form, layout, device, grad, tokens=tokens)
        for width in (64, 12)
        for dtype in ("float32", "bfloat16", "float16")
        for form in ("plain", "no-such-format")
        for layout in ("out_in", "in_out")
        for device in {subject.device, "cpu", "cuda"}
        for grad in (False, True)
        for tokens in (None, 1, 4096)
    ]


@check(
    why="assembly asks this before it chooses; a part that refuses everything can never run, and "
    "weights in a format that nobody knows must not be taken for plain numbers",
    cases=lambda subject: st.none(),
    examples=1,
)
def supports_answers(subject: Subject, case: None) -> None:
    """``supports`` answers with None or a reason, accepts something, refuses unknown formats."""
    problems = _every_problem(subject)
    answers = [subject.refusal(problem) for problem in problems]
    for problem, answer in zip(problems, answers, strict=True):
        holds(
            answer is None or (isinstance(answer, str) and bool(answer.strip())),
            f"supports({problem}) gave {answer!r}; expected None or a reason",
        )
        if problem.weight_format == "no-such-format":
            holds(answer is not None, "weights of an unknown format are accepted")
    if None not in answers:
        if "not installed here" in str(answers[0]):
            raise Refused(str(answers[0]))
        raise AssertionError(f"supports refuses every problem, the first because: {answers[0]}")


# --- the definition -----------------------------------------------------------------------------


@check(
    properties=(25,),
    why="experts hold most of the model: an error here is an error in every token",
    cases=cases(),
)
def matches_definition(subject: Subject, case: BackendCase) -> None:
    """The output is the sum over each token's experts: hot, empty and no experts, no tokens too."""
    inputs, y = _run(subject, case)
    holds(y.dtype == inputs.x.dtype, f"got {y.dtype}, expected x's {inputs.x.dtype}")
    close(y, definition(inputs), subject.tolerance(case.dtype), "output")


@check(
    properties=(23, 28),
    why="an expert with weight 0 is how routers say 'none': it must not leave a trace",
    cases=cases(),
)
def zero_weight_is_absence(subject: Subject, case: BackendCase) -> None:
    """An expert with weight 0 contributes what an id of -1 contributes: nothing."""
    inputs, _ = _run(subject, case)
    silent = inputs.ids % 2 == 0
    zero = replace(inputs, gates=inputs.gates.masked_fill(silent, 0.0))
    absent = replace(zero, ids=inputs.ids.masked_fill(silent, -1))
    backend = subject.build()
    close(zero.run(backend), absent.run(backend), subject.tolerance(case.dtype), "weight 0")
    none = replace(inputs, gates=torch.zeros_like(inputs.gates))
    same(none.run(backend) == 0, torch.ones_like(inputs.x, dtype=torch.bool), "all weights 0")


@check(
    properties=(26,),
    why="a token that comes back to the wrong place gives another token's answer",
    cases=cases(),
)
def dispatch_and_combine(subject: Subject, case: BackendCase) -> None:
    """With equal experts and weights 1 each token gets its own expert output, once per slot."""
    inputs = case.inputs(subject.device)
    present = inputs.ids >= 0
    equal = replace(
        inputs,
        gates=present.to(inputs.gates.dtype),
        gate_up=inputs.gate_up[:1].expand_as(inputs.gate_up),
        down=inputs.down[:1].expand_as(inputs.down),
    )
    alone = replace(
        equal,
        ids=torch.zeros_like(inputs.ids[:, :1]),
        gates=torch.ones_like(inputs.gates[:, :1]),
    )
    visits = present.sum(1, keepdim=True)
    expected = definition(alone) * visits
    close(equal.run(subject.build()), expected, subject.tolerance(case.dtype), "output")


@check(
    properties=(17,),
    why="sharding and merging renumber experts",
    cases=cases(),
)
def expert_permutation(subject: Subject, case: BackendCase) -> None:
    """Renumbering the experts, weights and ids alike, changes nothing."""
    inputs, before = _run(subject, case)
    order = torch.randperm(case.drawn.experts).to(inputs.ids.device)
    number = order.argsort()
    moved = replace(
        inputs,
        ids=torch.where(inputs.ids < 0, inputs.ids, number[inputs.ids.clamp(min=0)]),
        gate_up=inputs.gate_up[order],
        down=inputs.down[order],
    )
    close(moved.run(subject.build()), before, subject.tolerance(case.dtype), "renumbered experts")


@check(
    properties=(18,),
    why="what a user gets must not depend on who else is being served, or in which order",
    cases=cases(),
)
def token_permutation(subject: Subject, case: BackendCase) -> None:
    """Permuting the tokens permutes the output; a token alone gives what it gives among others."""
    inputs, before = _run(subject, case)
    backend, tolerance = subject.build(), subject.tolerance(case.dtype)
    order = torch.randperm(case.drawn.tokens).to(inputs.ids.device)
    for rows, what in ((order, "permuted tokens"), (order[:1], "a token alone")):
        chosen = replace(inputs, x=inputs.x[rows], ids=inputs.ids[rows], gates=inputs.gates[rows])
        close(chosen.run(backend), before[rows], tolerance, what)


# --- memory, gradients, compilation -------------------------------------------------------------


@check(
    properties=(14,),
    why="checkpoints are mapped as they lie: banks arrive as transposed views of a file",
    cases=cases(),
)
def strides(subject: Subject, case: BackendCase) -> None:
    """Transposed banks and strided tokens give the output of contiguous ones."""
    inputs, before = _run(subject, case)
    layouts = {
        "contiguous": replace(
            inputs, gate_up=inputs.gate_up.contiguous(), down=inputs.down.contiguous()
        ),
        "strided tokens": replace(inputs, x=torch.stack([inputs.x, inputs.x], -1)[..., 0]),
    }
    for what, changed in layouts.items():
        got = changed.run(subject.build())
        close(got, before, subject.tolerance(case.dtype), what)


@check(
    why="reading past the end of a tensor gives other users' data, or a crash",
    cases=cases(),
)
def stays_inside(subject: Subject, case: BackendCase) -> None:
    """Nothing outside of the given tensors is read: they lie between walls of NaN."""
    inputs, before = _run(subject, case)
    walls = replace(
        inputs, x=walled(inputs.x), gate_up=walled(inputs.gate_up), down=walled(inputs.down)
    )
    close(walls.run(subject.build()), before, subject.tolerance(case.dtype), "between walls")


@check(
    why="the same tensors are used again by the next layer and by the backward pass",
    cases=cases(),
)
def inputs_stay(subject: Subject, case: BackendCase) -> None:
    """A call changes none of its inputs and gives the same bits the second time."""
    inputs = case.inputs(subject.device)
    fields = ("x", "ids", "gates", "gate_up", "down")
    before = {name: getattr(inputs, name).clone() for name in fields}
    backend = subject.build()
    first = inputs.run(backend)
    same(inputs.run(backend), first, "output the second time")
    for name in fields:
        same(getattr(inputs, name), before[name], f"{name} after the call")


@check(
    properties=(15,),
    why="a wrong gradient trains a worse model without any error; a missing one stops training "
    "on several devices",
    cases=cases(dtypes=("float32",), grad=True),
)
def gradient(subject: Subject, case: BackendCase) -> None:
    """Gradients of tokens, gates and banks equal those of the definition; none is missing."""
    inputs = case.inputs(subject.device)
    names = ("x", "gates", "gate_up", "down")
    found = []
    for call in (lambda i: i.run(subject.build()), definition):
        leaves = {name: getattr(inputs, name).detach().requires_grad_() for name in names}
        y = call(dataclasses.replace(inputs, **leaves))
        weights = torch.linspace(-1, 1, y.numel(), device=y.device).view(y.shape).to(y.dtype)
        total = (y * weights).sum()
        found.append(torch.autograd.grad(total, list(leaves.values()), allow_unused=True))
    for name, got, expected in zip(names, *found, strict=True):
        if got is None:
            holds(name in ("x", "gates"), f"{name} got no gradient")
            holds(not bool(expected.any()), f"{name} got no gradient")
        else:
            limit = GRADIENT * subject.tolerance("float32")
            close(got, expected, limit, f"gradient of {name}")


@check(
    properties=(16,),
    why="serving and training compile the model; a graph break stops them",
    cases=cases(compiled=True),
    examples=2,
)
def compiles(subject: Subject, case: BackendCase) -> None:
    """``torch.compile(fullgraph=True)`` gives the same output."""
    inputs = case.inputs(subject.device)
    backend = subject.build()

    def call(x: Tensor, ids: Tensor, gates: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
        return Inputs(x, ids, gates, gate_up, down, inputs.weight_on).run(backend)

    torch.compiler.reset()
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        got = compiled(inputs.x, inputs.ids, inputs.gates, inputs.gate_up, inputs.down)
    close(got, definition(inputs), subject.tolerance(case.dtype), "compiled output")


CHECKS: tuple[Check, ...] = (
    supports_answers,
    matches_definition,
    zero_weight_is_absence,
    dispatch_and_combine,
    expert_permutation,
    token_permutation,
    strides,
    stays_inside,
    inputs_stay,
    gradient,
    compiles,
)
