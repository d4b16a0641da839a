"""Checks of the socket routers, for ``llama4 check router:NAME``."""

from __future__ import annotations

import copy
import dataclasses

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from llama4_core.errors import Llama4Error
from llama4_core.protocols.routing import Routing, RoutingInfo
from llama4_core.testing.check import Check, Refused, Subject, check
from llama4_core.testing.compare import close, holds, same
from llama4_moe.testing import router_balancing
from llama4_moe.testing.router_cases import HIDDEN, RouterCase, build, cases, decided, visits


def _equal(got: Routing, expected: Routing, rows: Tensor, what: str) -> None:
    same(got.experts[rows], expected.experts[rows], f"experts {what}")
    # One float32 product of a few terms, summed in another order.
    close(got.weights[rows], expected.weights[rows], 1e-6, f"weights {what}")


# --- a routing ----------------------------------------------------------------------------------


@check(
    properties=(19,),
    why="expert kernels index by these ids without asking; a wrong one reads foreign memory",
    cases=cases(),
)
def valid_routing(subject: Subject, case: RouterCase) -> None:
    """Ids are in range or -1 with weight 0, distinct per token; weights are finite; float32."""
    x, info = case.inputs()
    routing = build(subject, case)(x, info)
    ids, weights = routing.experts, routing.weights
    shape = (case.tokens, case.top_k)
    holds(tuple(ids.shape) == shape, f"experts have shape {tuple(ids.shape)}, expected {shape}")
    holds(tuple(weights.shape) == shape, f"weights have shape {tuple(weights.shape)}")
    holds(ids.dtype == torch.int64, f"experts are {ids.dtype}, expected int64")
    holds(weights.dtype == torch.float32, f"weights are {weights.dtype}, expected float32")
    holds(bool(((ids >= -1) & (ids < case.experts)).all()), "an expert id is out of range")
    holds(bool(weights.isfinite().all()), "a weight is not finite")
    holds(bool((weights[ids < 0] == 0).all()), "an id of -1 has a weight that is not 0")
    for row in ids.tolist():
        chosen = [expert for expert in row if expert >= 0]
        holds(len(chosen) == len(set(chosen)), f"a token visits an expert twice: {row}")
    if routing.logits is not None:
        shape = (case.tokens, case.experts)
        holds(tuple(routing.logits.shape) == shape, "logits are not [N, E]")
        holds(routing.logits.dtype == torch.float32, f"logits are {routing.logits.dtype}")


@check(
    properties=(20, 21),
    why="tokens that vanish without being counted are the hardest of losses to find",
    cases=cases(),
)
def conservation(subject: Subject, case: RouterCase) -> None:
    """Each token visits K experts, or says in ``drops`` how many are missing."""
    x, info = case.inputs()
    routing = build(subject, case)(x, info)
    assigned = (routing.experts >= 0).sum(1)
    counts = visits(routing, case.experts)
    holds(int(counts.sum()) == int(assigned.sum()), "counts are not the assigned slots")
    dropped = torch.zeros_like(assigned) if routing.drops is None else routing.drops
    missing = (assigned + dropped != case.top_k).nonzero().flatten().tolist()
    holds(not missing, f"assigned and dropped slots of token(s) {missing[:5]} are not top_k")


@check(
    properties=(18,),
    why="a token's expert must depend on the token, not on its place in the batch",
    cases=cases("plain", "outliers", least=1),
)
def token_permutation(subject: Subject, case: RouterCase) -> None:
    """Permuting the tokens permutes the routing."""
    x, info = case.inputs()
    router = build(subject, case)
    order = case.numbers.source().permutation(case.tokens)
    moved = _reordered(info, order)
    before = router(x, dataclasses.replace(info, generator=None))
    after = router(x[order], dataclasses.replace(moved, generator=None))
    permuted = Routing(before.experts[order], before.weights[order])
    _equal(after, permuted, decided(before)[order], "after a permutation of the tokens")


def _reordered(info: RoutingInfo, order: Tensor) -> RoutingInfo:
    fields = {
        name: getattr(info, name)[order]
        for name in ("positions", "documents", "tokens")
        if getattr(info, name) is not None
    }
    return dataclasses.replace(info, **fields)


@check(
    properties=(5, 18),
    why="what a user gets must not depend on who else is being served",
    cases=cases("plain", "outliers", least=1),
)
def token_alone(subject: Subject, case: RouterCase) -> None:
    """A token alone is routed as among others."""
    x, info = case.inputs()
    info = dataclasses.replace(info, generator=None)
    router = build(subject, case)
    whole = router(x, info)
    clear = decided(whole)
    for row in {0, case.tokens - 1}:
        at = torch.tensor([row])
        alone = router(x[at], _reordered(info, at))
        expected = Routing(whole.experts[at], whole.weights[at])
        _equal(alone, expected, clear[at], "of a token alone")


def _per_expert(router: nn.Module, experts: int) -> list[Tensor]:
    state = [*router.parameters(), *router.buffers()]
    return [x for x in state if x.dim() and x.shape[0] == experts and experts != HIDDEN]


@check(
    properties=(17,),
    why="sharding and merging renumber experts; a router that prefers a number breaks there",
    cases=cases("plain", least=1),
)
def expert_permutation(subject: Subject, case: RouterCase) -> None:
    """Renumbering the experts renumbers the choice and nothing else."""
    x, info = case.inputs()
    info = dataclasses.replace(info, generator=None)
    router = build(subject, case)
    before = router(x, info)
    order = case.numbers.source().permutation(case.experts)
    stacked = _per_expert(router, case.experts)
    if not stacked and case.experts > 1:
        raise Refused("this router has no parameters per expert to renumber")
    with torch.no_grad():
        for tensor in stacked:
            tensor.copy_(tensor[order].clone())
    after = router(x, info)
    ids = torch.where(after.experts < 0, after.experts, order[after.experts.clamp(min=0)])
    _equal(Routing(ids, after.weights), before, decided(before), "after renumbering")


@check(
    properties=(22,),
    why="a tie that falls differently each time makes runs impossible to repeat",
    cases=cases("zeros", "ties"),
)
def ties_are_deterministic(subject: Subject, case: RouterCase) -> None:
    """Equal tokens are routed equally, at any place of the batch, each time."""
    x, info = case.inputs()
    router = build(subject, case)
    x = torch.zeros_like(x)
    info = dataclasses.replace(
        info,
        generator=None,
        tokens=torch.zeros(case.tokens, dtype=torch.int64),
        positions=torch.zeros(case.tokens, dtype=torch.int64),
        documents=torch.zeros(case.tokens, dtype=torch.int64),
    )
    first, second = router(x, info), router(x, info)
    same(second.experts, first.experts, "experts the second time")
    same(first.experts, first.experts[:1].expand_as(first.experts), "experts of equal tokens")


@check(
    properties=(19,),
    why="in bfloat16 two logits often tie; a router that computes in it flips experts at random",
    cases=cases("plain", least=1),
)
def computes_in_float32(subject: Subject, case: RouterCase) -> None:
    """A bfloat16 router gives what a float32 router with the same numbers gives."""
    x, info = case.inputs()
    info = dataclasses.replace(info, generator=None)
    narrow = build(subject, case).to(torch.bfloat16)
    wide = copy.deepcopy(narrow).float()
    x = x.to(torch.bfloat16)
    got, expected = narrow(x, info), wide(x.float(), info)
    holds(got.weights.dtype == torch.float32, f"weights are {got.weights.dtype}, not float32")
    _equal(got, expected, decided(expected), "in bfloat16")


# --- state and gradients ------------------------------------------------------------------------


@check(
    why="activation checkpointing runs forward twice: what it counts, it counts double",
    cases=cases(),
)
def forward_is_pure(subject: Subject, case: RouterCase) -> None:
    """A forward changes no state and gives the same bits for the same generator."""
    router = build(subject, case)
    before = copy.deepcopy(router.state_dict())
    x, info = case.inputs()
    first = router(x, info)
    second = router(*case.inputs())
    same(second.experts, first.experts, "experts the second time")
    same(second.weights, first.weights, "weights the second time")
    for name, value in router.state_dict().items():
        same(value, before[name], f"state {name} after a forward")


@check(
    properties=(27,),
    why="one gradient that is not a number ends a training run",
    cases=cases(),
)
def finite_gradients(subject: Subject, case: RouterCase) -> None:
    """Weights and losses have finite gradients, and every parameter gets one."""
    router = build(subject, case)
    x, info = case.inputs()
    x.requires_grad_()
    routing = router(x, info)
    holds(not routing.experts.requires_grad, "expert ids carry a gradient")
    total = routing.weights.sum()
    for name, loss in routing.losses.items():
        holds(loss.dim() == 0 and bool(loss.isfinite()), f"loss {name} is no finite number")
        total = total + loss
    if not total.requires_grad:
        trained = [name for name, p in router.named_parameters() if p.requires_grad]
        holds(not trained, f"{trained} can be trained but get no gradient")
        return
    total.backward()
    for name, parameter in [*router.named_parameters(), ("x", x)]:
        if parameter.grad is not None:
            holds(bool(parameter.grad.isfinite().all()), f"the gradient of {name} is not finite")
    missing = [name for name, p in router.named_parameters() if p.requires_grad and p.grad is None]
    holds(not missing, f"{missing} got no gradient: data-parallel training would wait for it")


# --- what it is asked beside --------------------------------------------------------------------


@check(
    why="a routing that is given from outside (distillation, replay) uses the router's own weights",
    cases=cases("plain"),
)
def gates_agree(subject: Subject, case: RouterCase) -> None:
    """``gates(logits, experts)``, where it exists, gives the weights of the router's own choice."""
    router = build(subject, case)
    x, info = case.inputs()
    routing = router(x, info)
    gates = getattr(router, "gates", None)
    if gates is None or routing.logits is None:
        raise Refused("this router cannot be forced: it has no gates(logits, experts)")
    close(gates(routing.logits, routing.experts), routing.weights, 1e-6, "gates")
    nobody = gates(routing.logits, torch.full_like(routing.experts, -1))
    holds(bool((nobody == 0).all()), "an id of -1 has a gate that is not 0")


@check(
    why="a configuration that cannot be must stop at assembly, with a sentence",
    cases=lambda subject: st.sampled_from(((2, 3), (1, 2), (4, 0))),
)
def impossible_top_k_is_an_error(subject: Subject, case: tuple[int, int]) -> None:
    """More experts per token than there are, or none, is an error of this toolkit."""
    try:
        subject.build(HIDDEN, *case)
    except Llama4Error:
        return
    raise AssertionError(f"{case[0]} experts with top_k {case[1]} were accepted")


@check(
    properties=(23,),
    why="published weights are trained with exactly this gate; a softmax in its place moves every "
    "logit",
    cases=cases("plain", "outliers", least=1),
)
def published_gate(subject: Subject, case: RouterCase) -> None:
    """Ours: the K largest ``x W^T``, weighted by their sigmoid (or by a softmax over all E)."""
    if subject.distribution != "llama4-moe":
        raise Refused("only routers of llama4-moe follow this law")
    x, info = case.inputs()
    router = build(subject, case)
    routing = router(x, info)
    logits = x.double() @ router.weight.detach().double().T
    ids = logits.topk(case.top_k).indices
    clear = decided(routing)
    same(routing.experts[clear], ids[clear], "experts")
    gates = logits.sigmoid() if subject.name.startswith("sigmoid") else logits.softmax(-1)
    expected = gates.gather(1, routing.experts)
    if "renormalised" in subject.name:
        expected = expected / expected.sum(-1, keepdim=True)
    close(routing.weights, expected, 1e-6, "weights")
    # Sigmoids of such logits are 0 or 1 in float32; the choice is still that of the logits.
    loud = router(64 * x, info)
    clear = decided(loud)
    same(loud.experts[clear], (64 * logits).topk(case.top_k).indices[clear], "experts of large x")


CHECKS: tuple[Check, ...] = (
    valid_routing,
    conservation,
    token_permutation,
    token_alone,
    expert_permutation,
    ties_are_deterministic,
    computes_in_float32,
    forward_is_pure,
    *router_balancing.CHECKS,
    finite_gradients,
    gates_agree,
    impossible_top_k_is_an_error,
    published_gate,
)
