"""Checks of the socket feed_forwards: the second half of a block, dense or a mixture."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from llama4_core.errors import Llama4Error
from llama4_core.plugins.catalogue import catalogue
from llama4_core.plugins.choose import Assembler
from llama4_core.plugins.overrides import Overrides
from llama4_core.protocols.routing import Routing, RoutingInfo
from llama4_core.specs.model import DenseSpec, MoESpec
from llama4_core.testing.check import Check, Refused, Subject, check
from llama4_core.testing.compare import close, holds, same
from llama4_core.testing.strategies import DTYPES, Numbers, numbers, strided, walled

WIDTH = 16
SPECS: tuple[DenseSpec | MoESpec, ...] = (
    DenseSpec(24),
    MoESpec(5, 1, 16, 16, "sigmoid-top-k"),
    MoESpec(4, 2, 8, 0, "softmax-top-k", "output"),
)
NOTHING = RoutingInfo()


def build(subject: Subject, spec: DenseSpec | MoESpec, dtype: str = "float32") -> Any:
    """The feed-forward with random weights, assembled from the installed components."""
    parts = Assembler(catalogue(), Overrides({}), dtype=dtype, device=subject.device)
    module = subject.build(spec, WIDTH, parts.child("layers.0.feed_forward"))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(drawn * parameter.shape[-1] ** -0.5)
    return module.to(subject.device, DTYPES[dtype])


@functools.lru_cache(maxsize=64)
def _accepted(call: Callable[..., Any], name: str) -> tuple[tuple[DenseSpec | MoESpec, ...], str]:
    """The descriptions that it can be built from: those of its own kind, if there are any."""
    found, first = [], ""
    for spec in [spec for spec in SPECS if spec.kind == name] or SPECS:
        try:
            build(Subject("feed_forwards", name, call), spec)
        except (Llama4Error, AttributeError) as error:  # made for another kind of description
            first = first or str(error)
        else:
            found.append(spec)
    return tuple(found), first


@dataclass(frozen=True)
class Case:
    """Tokens for one layer.

    Attributes:
        spec: of the layer.
        tokens: N.
        numbers: source of the hidden states.
    """

    spec: DenseSpec | MoESpec
    tokens: int
    numbers: Numbers

    def hidden(self, device: str, dtype: str = "float32") -> Tensor:
        """``[N, D]``: the same numbers each time."""
        return self.numbers.source()(self.tokens, WIDTH, dtype=DTYPES[dtype]).to(device)


def cases(*tokens: int) -> Callable[[Subject], st.SearchStrategy[Case]]:
    """Layers that the subject can be, with one of these numbers of tokens."""

    def strategy(subject: Subject) -> st.SearchStrategy[Case]:
        specs, reason = _accepted(subject.build, subject.name)
        if not specs:
            raise AssertionError(f"every description is refused, the first because: {reason}")
        drawn = numbers("plain", "zeros", "outliers")
        return st.builds(Case, st.sampled_from(specs), st.sampled_from(tokens), drawn)

    return strategy


def _same_routing(got: Routing | None, expected: Routing | None, rows: Any, what: str) -> None:
    holds((got is None) == (expected is None), f"{what}: a routing now and then")
    if got is not None and expected is not None:
        same(got.experts, expected.experts[rows], f"{what}: experts")


def _kept(routing: Routing | None) -> RoutingInfo:
    """The same experts again, so that rounding cannot flip a near tie."""
    return NOTHING if routing is None else RoutingInfo(forced=routing.experts)


# --- the contract -------------------------------------------------------------------------------


@check(
    properties=(19,),
    why="the model adds what comes out to the stream, and training balances by the routing",
    cases=cases(0, 1, 2, 7, 33),
)
def output_and_routing(subject: Subject, case: Case) -> None:
    """``[N, D]`` in x's dtype, and no routing or one of valid ids, weights and logits."""
    for dtype in ("float32", "bfloat16"):
        x = case.hidden(subject.device, dtype)
        result = build(subject, case.spec, dtype)(x, NOTHING)
        holds(isinstance(result, tuple) and len(result) == 2, "expected (output, routing or None)")
        y, routing = result
        holds(y.shape == x.shape, f"got {list(y.shape)}, expected {list(x.shape)}")
        holds(y.dtype == x.dtype, f"got {y.dtype}, expected x's {x.dtype}")
        holds(bool(y.isfinite().all()), "the output is not finite")
        if routing is None:
            continue
        ids, weights = routing.experts, routing.weights
        holds(ids.dtype == torch.int64, f"ids are {ids.dtype}, expected int64")
        holds(ids.dim() == 2 and len(ids) == len(x), f"ids {list(ids.shape)} for {len(x)} tokens")
        holds(weights.shape == ids.shape, f"weights {list(weights.shape)}, ids {list(ids.shape)}")
        holds(weights.dtype == torch.float32, f"weights are {weights.dtype}, expected float32")
        holds(bool(weights.isfinite().all()), "a weight is not finite")
        holds(bool((weights[ids < 0] == 0).all()), "no expert, but a weight")
        experts = case.spec.experts if isinstance(case.spec, MoESpec) else None
        if experts is not None:
            holds(
                bool(((ids >= -1) & (ids < experts)).all()), f"ids outside of -1 .. {experts - 1}"
            )
            if routing.logits is not None:
                shape = list(routing.logits.shape)
                holds(shape == [len(x), experts], f"logits {shape}, expected [N, E]")


@check(
    properties=(5, 18),
    why="what a user gets must not depend on who else is being served, or in which order",
    cases=cases(1, 2, 7, 33),
)
def tokens_are_independent(subject: Subject, case: Case) -> None:
    """Permuted tokens, a token alone and any part of a batch give what they give together."""
    module, x = build(subject, case.spec), case.hidden(subject.device)
    with torch.no_grad():
        together, routing = module(x, NOTHING)
        order = torch.randperm(case.tokens)
        half = torch.arange(case.tokens)[: case.tokens // 2]
        for rows, what in ((order, "permuted"), (order[:1], "a token alone"), (half, "a part")):
            y, chosen = module(x[rows], NOTHING)
            close(y, together[rows], subject.tolerance("float32"), what)
            _same_routing(chosen, routing, rows, what)


@check(
    why="reinforcement learning and distillation replay a routing; one that is ignored trains "
    "other experts than those that answered",
    cases=cases(1, 7, 33),
)
def forced_routing(subject: Subject, case: Case) -> None:
    """A mixture visits the experts it is told to; told its own choice, it gives the same output."""
    module, x = build(subject, case.spec), case.hidden(subject.device)
    y, routing = module(x, NOTHING)
    if routing is None:
        return
    again, kept = module(x, _kept(routing))
    close(again, y, subject.tolerance("float32"), "its own choice forced")
    close(kept.weights, routing.weights, subject.tolerance("float32"), "weights of that")
    if isinstance(case.spec, MoESpec) and case.spec.top_k < case.spec.experts:
        other = (routing.experts + 1) % case.spec.experts
        moved, chosen = module(x, RoutingInfo(forced=other))
        same(chosen.experts, other, "forced experts")
        # Rows of zeros give zeros whoever is asked.
        changed = ((moved - y).abs().amax(1) > 0) | (x == 0).all(1)
        holds(bool(changed.all()), "other experts were forced and the output stays")


# --- memory, dtypes, gradients ------------------------------------------------------------------


@check(
    properties=(14,),
    why="the stream is used again by the residual; views and slices reach every part",
    cases=cases(1, 7, 33),
)
def strides(subject: Subject, case: Case) -> None:
    """Strided tokens, or tokens between walls of NaN, give the same; x and the module stay."""
    module, x = build(subject, case.spec), case.hidden(subject.device)
    before, state = x.clone(), copy.deepcopy(module.state_dict())
    with torch.no_grad():
        y, routing = module(x, NOTHING)
        for change, what in (
            (strided, "strided"),
            (walled, "between walls"),
            (torch.clone, "again"),
        ):
            got, chosen = module(change(x), NOTHING)
            close(got, y, subject.tolerance("float32"), what)
            _same_routing(chosen, routing, slice(None), what)
    same(x, before, "x after the call")
    for name, value in module.state_dict().items():
        same(value, state[name], name)


@check(
    why="checkpoints are bfloat16; a sum that is kept in it over many terms is off by percents",
    cases=cases(1, 7, 33),
)
def bfloat16(subject: Subject, case: Case) -> None:
    """With bfloat16 weights and tokens: the float32 result of the same numbers, rounded."""
    short = build(subject, case.spec, "bfloat16")
    wide = build(subject, case.spec)
    wide.load_state_dict(short.state_dict())
    x = case.hidden(subject.device, "bfloat16")
    with torch.no_grad():
        expected, routing = wide(x.float(), NOTHING)
        got, _ = short(x, _kept(routing))
    close(got, expected, subject.tolerance("bfloat16"), "output")


@check(
    properties=(15,),
    why="a wrong gradient trains a worse model without any error; a missing one stops training "
    "on several devices",
    cases=cases(0, 1, 7),
)
def gradients(subject: Subject, case: Case) -> None:
    """Every weight has a gradient, also with no token; it is the slope along random directions."""
    module, x = build(subject, case.spec), case.hidden(subject.device)
    leaves = [x.requires_grad_(), *(p for p in module.parameters() if p.requires_grad)]
    with torch.no_grad():
        kept = _kept(module(x, NOTHING)[1])
    out = module(x, kept)[0]
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out)
    (out * weights).sum().backward()
    names = ["x", *(name for name, p in module.named_parameters() if p.requires_grad)]
    for name, leaf in zip(names, leaves, strict=True):
        if leaf.grad is None:
            raise AssertionError(f"{name} has no gradient with {case.tokens} token(s)")
        holds(bool(leaf.grad.isfinite().all()), f"the gradient of {name} is not finite")
        direction = torch.randn(leaf.shape, generator=torch.Generator().manual_seed(3)).to(leaf)
        values = []
        # Wide enough that float32 still resolves the difference, small against weights of 1/4.
        step = 3e-3
        with torch.no_grad():
            for sign in (1, -1):
                leaf.add_(direction, alpha=sign * step)
                values.append((module(x, kept)[0].double() * weights).sum())
                leaf.sub_(direction, alpha=sign * step)
        slope = (values[0] - values[1]) / (2 * step)
        claimed = (leaf.grad.double() * direction).sum()
        # Rounding of sums of N D terms over the step, and its square times the third derivative.
        scale = float(leaf.grad.norm()) * max(1, leaf.shape[-1]) ** 0.5
        holds(
            abs(float(slope - claimed)) <= 1e-2 * scale + 1e-3,
            f"the slope along a direction of {name} is {float(slope):.5g}, its gradient says "
            f"{float(claimed):.5g}",
        )


# --- other people's training code -----------------------------------------------------------------


@check(
    why="mixed precision is how most people train",
    cases=cases(7, 33),
)
def autocast(subject: Subject, case: Case) -> None:
    """Under bfloat16 autocast: near the float32 result, gradients in the weights' own dtype."""
    module, x = build(subject, case.spec), case.hidden(subject.device)
    with torch.no_grad():
        expected, routing = module(x, NOTHING)
    with torch.autocast(subject.device, dtype=torch.bfloat16):
        got, _ = module(x, _kept(routing))
    close(got.float(), expected, subject.tolerance("bfloat16"), "output under autocast")
    got.float().square().sum().backward()
    for name, parameter in module.named_parameters():
        if parameter.grad is None:
            raise AssertionError(f"{name} has no gradient under autocast")
        holds(parameter.grad.dtype == parameter.dtype, f"{name}: gradient {parameter.grad.dtype}")
        holds(bool(parameter.grad.isfinite().all()), f"the gradient of {name} is not finite")


@check(
    properties=(16,),
    why="a part that breaks the graph makes a compiled model slower than an eager one",
    cases=cases(12),
    examples=2,
)
def compiles(subject: Subject, case: Case) -> None:
    """torch.compile(fullgraph=True) gives the eager output, unless ``graph_safe`` is False."""
    module, x = build(subject, case.spec), case.hidden(subject.device)
    if not getattr(module, "graph_safe", True):
        raise Refused("the feed-forward says graph_safe = False")
    torch.compiler.reset()
    compiled = torch.compile(copy.deepcopy(module), backend="aot_eager", fullgraph=True)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            expected, routing = module(x, NOTHING)
            got, chosen = compiled(x, NOTHING)
        close(got, expected, subject.tolerance("float32"), f"compiled, gradients {grad}")
        _same_routing(chosen, routing, slice(None), "compiled")


@check(
    why="activation checkpointing runs the forward twice: a second routing that differs gives "
    "gradients of another function",
    cases=cases(7, 33),
)
def activation_checkpointing(subject: Subject, case: Case) -> None:
    """Recomputing the forward gives the same gradients, bit for bit, and changes no state."""
    found = []
    for recompute in (False, True):
        module = build(subject, case.spec).train()
        state = {name: value.clone() for name, value in module.state_dict().items()}
        x = case.hidden(subject.device).requires_grad_()
        info = RoutingInfo(training=True)
        if recompute:
            y, _ = checkpoint(module, x, info, use_reentrant=False)
        else:
            y, _ = module(x, info)
        y.square().sum().backward()
        for name, value in module.state_dict().items():
            same(value, state[name], f"{name} after a step without an optimizer")
        found.append({"x": x.grad, **{name: p.grad for name, p in module.named_parameters()}})
    plain, again = found
    for name, gradient in plain.items():
        same(again[name], gradient, f"gradient of {name} when recomputed")


CHECKS: tuple[Check, ...] = (
    output_and_routing,
    tokens_are_independent,
    forced_routing,
    strides,
    bfloat16,
    gradients,
    autocast,
    compiles,
    activation_checkpointing,
)
