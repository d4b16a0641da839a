"""Checks of the socket optimizers, for ``llama4 check optimizer:NAME``.

They are on a handful of small parameters, one of each role, and on gradients of a quadratic.
Optimizers are built with a learning rate and no other setting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from llama4_core.testing.check import Check, Refused, Subject, check
from llama4_core.testing.compare import close, holds, same
from llama4_train.optimizers.roles import ROLES
from llama4_train.protocols import Parameter
from llama4_train.testing.optimizer_cases import (
    CASES,
    LR,
    WIDE_AND_NARROW,
    Case,
    restored,
    signs,
    stored,
    take_steps,
    values_of,
)

# Sums of a few dozen numbers of the order of 1, in float64.
_ROUNDING = 1e-12


def _ran(subject: Subject, case: Case, count: int = 3) -> dict[str, Tensor]:
    """The values after ``count`` steps."""
    parameters = case.parameters(subject.device)
    optimizer = subject.build(parameters, LR)
    take_steps(optimizer, parameters, case.gradients(parameters, count))
    return values_of(parameters)


@check(
    why="the trainer sets each group's rate from base_lr; a weight in no group never learns",
    cases=lambda subject: WIDE_AND_NARROW,
    examples=10,
)
def groups_of_the_contract(subject: Subject, case: Case) -> None:
    """Every weight is in one group, once; the largest base_lr is the rate that was asked for."""
    parameters = case.parameters(subject.device)
    optimizer = subject.build(parameters, LR)
    groups = optimizer.param_groups
    for group in groups:
        holds({"lr", "base_lr"} <= group.keys(), f"a group has no lr or base_lr: {list(group)}")
        holds(0 < group["base_lr"] <= LR, f"base_lr is {group['base_lr']}, of lr {LR}")
    largest = max(group["base_lr"] for group in groups)
    holds(largest == LR, f"the largest base_lr is {largest}, not the {LR} that was asked for")
    held = [value for group in groups for value in group["params"]]
    holds(len({id(value) for value in held}) == len(held), "a weight is in two groups")
    shapes = sorted(tuple(value.shape) for value in held)
    expected = sorted(tuple(one.value.shape) for one in parameters)
    holds(shapes == expected, f"groups hold weights {shapes}, expected {expected}")
    for one in parameters:
        one.value.grad = torch.ones_like(one.value)
    optimizer.zero_grad()
    left = [one.name for one in parameters if one.value.grad is not None]
    holds(not left, f"zero_grad leaves gradients of {', '.join(left)}")


@check(
    why="an optimizer that climbs, or leaves a kind of weight alone, trains nothing",
    cases=lambda subject: WIDE_AND_NARROW,
    examples=10,
)
def descends(subject: Subject, case: Case) -> None:
    """Sixteen steps on ``sum (w - t)^2 / 2`` lower every weight's own part of it."""
    parameters = case.parameters(subject.device)
    generator = torch.Generator().manual_seed(case.seed + 2)
    # Further away than the steps can reach, so that none goes past its target.
    targets = [one.value.detach() + 2 * signs(one.value.shape, generator) for one in parameters]
    optimizer = subject.build(parameters, LR)
    before = _losses(parameters, targets)
    for _ in range(16):
        for one, target in zip(parameters, targets, strict=True):
            one.value.grad = one.value.detach() - target
        optimizer.step()
        optimizer.zero_grad()
    after = _losses(parameters, targets)
    for one, first, last in zip(parameters, before, after, strict=True):
        holds(last < first, f"the loss of {one.name} goes from {first:.6g} to {last:.6g}")


def _losses(parameters: Sequence[Parameter], targets: Sequence[Tensor]) -> list[float]:
    return [
        float((one.value.detach() - target).double().square().sum())
        for one, target in zip(parameters, targets, strict=True)
    ]


@check(
    why="warm-up and decay of the learning rate would do nothing",
    cases=lambda subject: WIDE_AND_NARROW,
    examples=10,
)
def the_rate_is_obeyed(subject: Subject, case: Case) -> None:
    """At rate 0 weights keep their bits, decay included; half the rate moves them less."""
    wide = replace(case, dtype=torch.float64)
    moved = []
    for share in (1.0, 0.5):
        parameters = wide.parameters(subject.device)
        optimizer = subject.build(parameters, LR)
        before = values_of(parameters)
        _set_rate(optimizer, share)
        take_steps(optimizer, parameters, wide.gradients(parameters, 1))
        moved.append(
            {name: (now - before[name]).norm() for name, now in values_of(parameters).items()}
        )
    for name, whole in moved[0].items():
        half = moved[1][name]
        holds(
            bool(0 < half < whole), f"{name} moves by {half:.6g} at half the rate, else {whole:.6g}"
        )
    parameters = case.parameters(subject.device)
    optimizer = subject.build(parameters, LR)
    given = case.gradients(parameters, 4)
    take_steps(optimizer, parameters, given[:2])
    before = values_of(parameters)
    _set_rate(optimizer, 0.0)
    take_steps(optimizer, parameters, given[2:])
    for name, now in values_of(parameters).items():
        same(now, before[name], f"{name} at rate 0")


def _set_rate(optimizer: Any, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


@check(
    why="frozen towers and unused experts would decay, or drift on old momentum",
    cases=lambda subject: st.tuples(WIDE_AND_NARROW, st.sets(st.sampled_from(ROLES), min_size=1)),
    examples=10,
)
def only_what_has_a_gradient_moves(subject: Subject, case: tuple[Case, set[str]]) -> None:
    """A weight without a gradient keeps its bits, also after steps in which it had one."""
    given, silent = case
    parameters = given.parameters(subject.device)
    optimizer = subject.build(parameters, LR)
    gradients = given.gradients(parameters, 2)
    take_steps(optimizer, parameters, gradients[:1])
    # What gets gradients is in float32 copies elsewhere: the sum of two steps may be one of those
    # that are too small to show, so only what has to stay is looked at here.
    before = values_of(parameters)
    for one, gradient in zip(parameters, gradients[1], strict=True):
        one.value.grad = None if one.role in silent else gradient.clone()
    kept = {one.name: one.value.grad for one in parameters if one.value.grad is not None}
    copies = {name: gradient.clone() for name, gradient in kept.items()}
    optimizer.step()
    for one in parameters:
        if one.role in silent:
            same(one.value.detach(), before[one.name], f"{one.name}, which has no gradient")
        elif given.dtype == torch.float32:
            changed = not torch.equal(one.value.detach(), before[one.name])
            holds(changed, f"{one.name} has a gradient and stays as it is")
    for name, gradient in kept.items():
        same(gradient, copies[name], f"gradient of {name} after the step")


@check(
    why="LoRA trains matrices alone, a frozen model one vector: each role must be enough",
    cases=lambda subject: st.tuples(CASES, st.sampled_from(ROLES)),
)
def roles_are_enough_alone(subject: Subject, case: tuple[Case, str]) -> None:
    """An optimizer of one role alone moves it, and as it does in company of the others."""
    given, role = case
    name = f"{role}.weight"
    company = given.parameters(subject.device)
    gradients = given.gradients(company, 2)
    optimizer = subject.build(company, LR)
    rates = _rates(optimizer, company)
    take_steps(optimizer, company, gradients)
    alone = replace(given, roles=(role,)).parameters(subject.device)
    optimizer = subject.build(alone, LR)
    # The rate of a role may be a share of the one that was asked for.
    for group in optimizer.param_groups:
        group["lr"] = rates[role]
    index = [one.role for one in company].index(role)
    take_steps(optimizer, alone, [[step[index]] for step in gradients])
    close(values_of(alone)[name], values_of(company)[name], _ROUNDING, f"{name} alone")


def _rates(optimizer: Any, parameters: Sequence[Parameter]) -> dict[str, float]:
    """The learning rate of each role; wide parameters are in the groups themselves."""
    roles = {id(one.value): one.role for one in parameters}
    return {
        roles[id(value)]: group["lr"]
        for group in optimizer.param_groups
        for value in group["params"]
    }


@check(
    why="experts are matrices side by side: one expert's data must not steer another's weights",
    cases=lambda subject: st.tuples(CASES, st.randoms(use_true_random=False)),
)
def experts_are_for_themselves(subject: Subject, case: tuple[Case, Any]) -> None:
    """A permutation of experts commutes with a step; other experts' gradients change nothing."""
    given, random = case
    alone = replace(given, roles=("experts",))
    order = list(range(given.experts))
    random.shuffle(order)
    plain = _stack(subject, alone, lambda stack: stack)
    turned = _stack(subject, alone, lambda stack: stack[order])
    close(turned, plain[order], _ROUNDING, f"experts in the order {order}")
    parameters = alone.parameters(subject.device)
    optimizer = subject.build(parameters, LR)
    changed = [step[0].clone() for step in alone.gradients(parameters, 2)]
    for gradient in changed:
        gradient[1:] *= 3
    take_steps(optimizer, parameters, [[gradient] for gradient in changed])
    got = parameters[0].value.detach()[0]
    close(got, plain[0], _ROUNDING, "the first expert, where others have other gradients")


def _stack(subject: Subject, case: Case, turn: Callable[[Tensor], Tensor]) -> Tensor:
    """A stack of experts after two steps from turned values with turned gradients."""
    (one,) = case.parameters(subject.device)
    gradients = case.gradients([one], 2)
    turned = [replace(one, value=nn.Parameter(turn(one.value.detach()).clone()))]
    optimizer = subject.build(turned, LR)
    take_steps(optimizer, turned, [[turn(step[0])] for step in gradients])
    return turned[0].value.detach()


@check(
    why="in bfloat16 steps below 1/128 of a weight are rounded away, and training stands still",
    cases=lambda subject: CASES,
    examples=5,
)
def small_updates_are_kept(subject: Subject, case: Case) -> None:
    """Thirty steps on weights in bfloat16 end within a step of bfloat16 of those in float32."""
    runs = {}
    for dtype in (torch.float32, torch.bfloat16):
        parameters = replace(case, dtype=dtype).parameters(subject.device)
        optimizer = subject.build(parameters, LR)
        # Always the same way, so that steps add up to more than one of bfloat16.
        given = case.gradients(parameters, 1) * 30
        take_steps(optimizer, parameters, given)
        runs[dtype] = values_of(parameters)
    for name, expected in runs[torch.float32].items():
        got = runs[torch.bfloat16][name]
        holds(got.dtype == torch.bfloat16, f"{name} is {got.dtype} now")
        # Half a step of rounding is 2^-9 of the largest power of two, itself over half the largest
        # number; twice that for optimizers that carry the rest along in another way.
        close(got.float(), expected, 2.0**-8, f"{name} in bfloat16")


@check(
    properties=(57,),
    why="a run that was killed and resumed would end with other weights than one that was not",
    cases=lambda subject: st.tuples(WIDE_AND_NARROW, st.integers(0, 3)),
    examples=10,
)
def resumes_bit_equal(subject: Subject, case: tuple[Case, int]) -> None:
    """The state, written as JSON and tensors, goes on in a new optimizer with the same bits."""
    given, done = case
    parameters = given.parameters(subject.device)
    gradients = given.gradients(parameters, done + 3)
    optimizer = subject.build(parameters, LR)
    take_steps(optimizer, parameters, gradients[:done])
    kept = stored(optimizer.state_dict())
    weights = values_of(parameters)
    _set_rate(optimizer, 0.5)
    take_steps(optimizer, parameters, gradients[done:])
    fresh = given.parameters(subject.device)
    resumed = subject.build(fresh, LR)
    with torch.no_grad():
        for one in fresh:
            one.value.copy_(weights[one.name])
    resumed.load_state_dict(restored(*kept))
    for one in fresh:
        same(one.value.detach(), weights[one.name], f"{one.name} after loading")
    _set_rate(resumed, 0.5)
    take_steps(resumed, fresh, gradients[done:])
    for name, expected in values_of(parameters).items():
        same(values_of(fresh)[name], expected, f"{name} of the resumed run")


@check(
    why="a result that cannot be repeated cannot be debugged, and paired comparisons lose pairing",
    cases=lambda subject: WIDE_AND_NARROW,
    examples=10,
)
def deterministic(subject: Subject, case: Case) -> None:
    """The same weights and gradients give the same bits."""
    first = _ran(subject, case)
    torch.manual_seed(case.seed)
    for name, value in _ran(subject, case).items():
        same(value, first[name], f"{name} the second time")


def _published(subject: Subject, *names: str) -> None:
    if subject.distribution != "llama4-train" or subject.name not in names:
        raise Refused(f"only {' and '.join(names)} of llama4-train follow this law")


@check(
    why="decayed norms scale the network down, and embeddings of rare tokens fade away",
    cases=lambda subject: CASES,
)
def published_decay(subject: Subject, case: Case) -> None:
    """``adamw`` of llama4-train: ``w (1 - 0.1 lr)``, but vectors and embeddings stay."""
    _published(subject, "adamw")
    parameters = case.parameters(subject.device)
    before = values_of(parameters)
    optimizer = subject.build(parameters, LR)
    take_steps(optimizer, parameters, [[torch.zeros_like(one.value) for one in parameters]])
    for one in parameters:
        kept = 1.0 if one.role in ("vector", "embedding") else 1 - 0.1 * LR
        close(one.value.detach(), before[one.name] * kept, _ROUNDING, f"{one.name} decayed")


@check(
    why="an expert whose step depends on how it is stored trains another model after conversion",
    cases=lambda subject: CASES,
    examples=10,
)
def published_stack(subject: Subject, case: Case) -> None:
    """``adamw`` and ``muon`` of llama4-train: a stack of experts steps as E matrices do."""
    _published(subject, "adamw", "muon")
    (stack,) = replace(case, roles=("experts",)).parameters(subject.device)
    gradients = [step[0] for step in case.gradients([stack], 2)]
    matrices = [
        Parameter(f"{index}.weight", nn.Parameter(value.detach().clone()), "matrix")
        for index, value in enumerate(stack.value)
    ]
    take_steps(subject.build([stack], LR), [stack], [[gradient] for gradient in gradients])
    take_steps(subject.build(matrices, LR), matrices, [list(gradient) for gradient in gradients])
    expected = torch.stack([one.value.detach() for one in matrices])
    close(stack.value.detach(), expected, _ROUNDING, "the stack against its matrices")


@check(
    why="Muon without orthogonality is momentum with an odd rate",
    cases=lambda subject: CASES,
)
def published_orthogonality(subject: Subject, case: Case) -> None:
    """``muon`` of llama4-train: singular values of a matrix's step are about equal, and scaled."""
    _published(subject, "muon")
    (one,) = replace(case, roles=("matrix",)).parameters(subject.device)
    before = one.value.detach().clone()
    generator = torch.Generator().manual_seed(case.seed)
    gradient = torch.randn(before.shape, generator=generator, dtype=before.dtype)
    left, values, right = torch.linalg.svd(gradient.to(before), full_matrices=False)
    # Spread a little: values under a hundredth of the norm need more than five rounds.
    spread = left @ torch.diag(values.clamp(min=0.2 * float(values.max()))) @ right
    optimizer = subject.build([one], LR)
    take_steps(optimizer, [one], [[spread]])
    scale = LR * max(1.0, case.rows / case.columns) ** 0.5
    singular = torch.linalg.svdvals((before - one.value.detach()) / scale)
    # Jordan et al.: five rounds of their quintic end between 0.68 and 1.14.
    holds(bool((singular > 0.67).all()), f"singular values of the step are {singular.tolist()}")
    holds(bool((singular < 1.15).all()), f"singular values of the step are {singular.tolist()}")


CHECKS: tuple[Check, ...] = (
    groups_of_the_contract,
    descends,
    the_rate_is_obeyed,
    only_what_has_a_gradient_moves,
    roles_are_enough_alone,
    experts_are_for_themselves,
    small_updates_are_kept,
    resumes_bit_equal,
    deterministic,
    published_decay,
    published_stack,
    published_orthogonality,
)
