"""Checks of how routers are balanced and let go of it: ``after_step`` and ``release``."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch

from llama4_core.testing.check import Check, Refused, Subject, check
from llama4_core.testing.compare import close, holds, same
from llama4_moe.testing.router_cases import RouterCase, build, cases, visits


def _steps(router: Any, case: RouterCase, count: int) -> None:
    source = case.numbers.source()
    for _ in range(count):
        router.after_step(source.integers(0, 50, case.experts))


@check(
    why="weights belong to the optimizer; state outside of buffers is lost at the next restart",
    cases=cases("plain"),
)
def steps_change_buffers_only(subject: Subject, case: RouterCase) -> None:
    """``after_step`` changes no parameter, and its state resumes exactly from ``state_dict``."""
    router = build(subject, case)
    weights = [parameter.detach().clone() for parameter in router.parameters()]
    _steps(router, case, 3)
    for parameter, before in zip(router.parameters(), weights, strict=True):
        same(parameter.detach(), before, "a parameter after a step")
    resumed = build(subject, case)
    resumed.load_state_dict(copy.deepcopy(router.state_dict()), strict=True)
    for each in (router, resumed):
        _steps(each, case, 2)
    got, expected = (each(*case.inputs()) for each in (resumed, router))
    same(got.experts, expected.experts, "experts after resuming")
    same(got.weights, expected.weights, "weights after resuming")


@check(
    why="a balancing bias is there to move tokens; in the weights it would bend the output",
    cases=cases("plain", least=1),
)
def steps_leave_weights(subject: Subject, case: RouterCase) -> None:
    """Balancing steps change who is visited, never the weight of whom a token still visits."""
    router = build(subject, case)
    x, info = case.inputs()
    info = dataclasses.replace(info, generator=None)
    before = router(x, info)
    _steps(router, case, 25)
    after = router(x, info)
    kept = (after.experts.sort(-1).values == before.experts.sort(-1).values).all(-1)
    was, now = (r.weights.gather(1, r.experts.argsort(-1))[kept] for r in (before, after))
    close(now, was, 1e-6, "weights of the same experts after balancing")


@check(
    why="a balancing rule with the wrong sign runs, and sends every token to one expert",
    cases=cases("plain", least=7),
    examples=6,
)
def steps_relieve_the_loaded(subject: Subject, case: RouterCase) -> None:
    """An expert that is told to be overloaded, 2,000 times, gets fewer tokens (if steps count)."""
    router = build(subject, case)
    x, info = case.inputs()
    info = dataclasses.replace(info, generator=None)
    before = visits(router(x, info), case.experts)
    for expert in {int(before.argmax()), int(before.argmin())}:
        fresh = copy.deepcopy(router)
        counts = torch.zeros(case.experts, dtype=torch.int64)
        counts[expert] = case.tokens * case.top_k
        for _ in range(2000):
            fresh.after_step(counts)
        now = int((fresh(x, info).experts == expert).sum())
        was = int(before[expert])
        state = zip(fresh.buffers(), router.buffers(), strict=True)
        moved = any(not torch.equal(new, old) for new, old in state)
        most = was - 1 if moved and was and case.top_k < case.experts else was
        holds(now <= most, f"expert {expert} was overloaded; it got {was} tokens, then {now}")


@check(
    why="published formats have no place for a balancing bias: what is left of it is lost there, "
    "and tokens go elsewhere",
    cases=cases("plain", "outliers", least=1),
)
def release_ends_balancing(subject: Subject, case: RouterCase) -> None:
    """``release``, where it exists, resumes exactly; at 0 the choice is that before any step."""
    router = build(subject, case)
    if not hasattr(router, "release"):
        raise Refused("this router is balanced to the last step: it has no release(factor)")
    x, info = case.inputs()
    info = dataclasses.replace(info, generator=None)
    before, state = router(x, info), copy.deepcopy(router.state_dict())
    weights = [parameter.detach().clone() for parameter in router.parameters()]
    _steps(router, case, 25)
    stepped = copy.deepcopy(router.state_dict())
    router.release(1.0)
    for name, value in router.state_dict().items():
        same(value, stepped[name], f"state {name} after release(1)")
    router.release(0.5)
    # Of what steps have moved some may only be watched; what sways the choice shrinks.
    moved = [name for name in state if not torch.equal(stepped[name], state[name])]
    shrunk = [name for name in moved if not torch.equal(router.state_dict()[name], stepped[name])]
    holds(bool(shrunk) or not moved, f"release(0.5) leaves {', '.join(moved)} as it was")
    resumed = build(subject, case)
    resumed.load_state_dict(copy.deepcopy(router.state_dict()), strict=True)
    for factor in (0.25, 0.0):
        for each in (router, resumed):
            each.release(factor)
        for name, value in router.state_dict().items():
            same(resumed.state_dict()[name], value, f"state {name} after resuming")
        got, expected = resumed(x, info), router(x, info)
        same(got.experts, expected.experts, "experts after resuming")
    same(expected.experts, before.experts, "experts after release(0)")
    same(expected.weights, before.weights, "weights after release(0)")
    for parameter, was in zip(router.parameters(), weights, strict=True):
        same(parameter.detach(), was, "a parameter after a release")


CHECKS: tuple[Check, ...] = (
    steps_change_buffers_only,
    steps_leave_weights,
    steps_relieve_the_loaded,
    release_ends_balancing,
)
