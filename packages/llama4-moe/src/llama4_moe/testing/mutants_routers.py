"""Bugs of routers, planted into Llama 4's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from llama4_core.protocols.routing import Routing, RoutingInfo
from llama4_core.testing.check import Subject
from llama4_core.testing.mutants import Mutant
from llama4_moe.routers.selection import largest
from llama4_moe.routers.sigmoid import BalancedSigmoidTopK, SigmoidTopK


def _routed(change: Callable[[Any, Routing, Tensor], Routing]) -> type:
    """A router whose routing is changed."""

    class Changed(SigmoidTopK):
        def forward(self, x: Tensor, info: RoutingInfo) -> Routing:
            return change(self, super().forward(x, info), x)

    return Changed


def _repeats(router: Any, routing: Routing, x: Tensor) -> Routing:
    return replace(routing, experts=routing.experts[:, :1].expand_as(routing.experts))


def _none_with_weight(router: Any, routing: Routing, x: Tensor) -> Routing:
    ids = routing.experts.clone()
    ids[::2] = -1
    return replace(routing, experts=ids, drops=(ids < 0).sum(1))


def _one_past_the_end(router: Any, routing: Routing, x: Tensor) -> Routing:
    return replace(routing, experts=routing.experts + 1)


def _drops_silently(router: Any, routing: Routing, x: Tensor) -> Routing:
    gone = torch.zeros_like(routing.experts, dtype=torch.bool)
    gone[4:] = True  # a capacity of four tokens
    return replace(
        routing,
        experts=routing.experts.masked_fill(gone, -1),
        weights=routing.weights.masked_fill(gone, 0.0),
    )


def _by_place(router: Any, routing: Routing, x: Tensor) -> Routing:
    places = torch.arange(len(x))[:, None]
    return replace(routing, experts=(routing.experts + places) % router.weight.shape[0])


def _by_company(router: Any, routing: Routing, x: Tensor) -> Routing:
    return replace(routing, weights=routing.weights / max(1, len(x)))


class PrefersTheFirst(SigmoidTopK):
    """Adds to the logit of expert 0."""

    def logits(self, x: Tensor) -> Tensor:
        """Logits, the first one raised."""
        raised = torch.zeros(self.weight.shape[0])
        raised[0] = 2.0
        return super().logits(x) + raised


class ThrowsDice(SigmoidTopK):
    """Breaks ties by chance."""

    def select(self, logits: Tensor) -> Tensor:
        """Ids after a little noise."""
        return largest(logits + 1e-6 * torch.rand_like(logits), self.top_k)


class InModelDtype(SigmoidTopK):
    """Computes its logits in the dtype of the tokens."""

    def logits(self, x: Tensor) -> Tensor:
        """Logits that were rounded to x's dtype."""
        return nn.functional.linear(x, self.weight).float()


class CountsInForward(BalancedSigmoidTopK):
    """Moves its bias in forward."""

    def forward(self, x: Tensor, info: RoutingInfo) -> Routing:
        """Routes and updates."""
        routing = super().forward(x, info)
        if len(x):
            ids = routing.experts.flatten()
            self.after_step(torch.bincount(ids, minlength=self.weight.shape[0]))
        return routing


class StepsOnWeights(SigmoidTopK):
    """Balances by moving its weight."""

    def after_step(self, counts: Tensor) -> None:
        """Moves the weight."""
        with torch.no_grad():
            self.weight.add_(0.01)


class ForgetsItsState(SigmoidTopK):
    """Keeps its bias outside of the buffers."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.offset = 0.0

    def after_step(self, counts: Tensor) -> None:
        """Moves a number that no state_dict holds."""
        self.offset += 0.5

    def scores(self, logits: Tensor, experts: Tensor) -> Tensor:
        """Weights with the offset."""
        return super().scores(logits + self.offset, experts)


class BiasInTheGate(BalancedSigmoidTopK):
    """The balancing bias enters the weights."""

    def scores(self, logits: Tensor, experts: Tensor) -> Tensor:
        """Weights of the biased scores."""
        return (logits.sigmoid() + self.bias).gather(-1, experts)


class BalancesBackwards(BalancedSigmoidTopK):
    """Sends more to whom has most."""

    def after_step(self, counts: Tensor) -> None:
        """Updates by the negative counts."""
        super().after_step(-counts)


class NeverLetsGo(BalancedSigmoidTopK):
    """Its bias stays."""

    def release(self, factor: float) -> None:
        """Keeps it."""


class LetsGoOfAllAtOnce(BalancedSigmoidTopK):
    """Its bias is gone with the first release, whatever the factor."""

    def release(self, factor: float) -> None:
        """Forgets it."""
        self.bias.zero_()


class LetsGoOfMost(BalancedSigmoidTopK):
    """A little of its bias is left."""

    def release(self, factor: float) -> None:
        """Shrinks to a tenth at least."""
        super().release(max(0.1, factor))


class LetsGoAtTheEnd(BalancedSigmoidTopK):
    """Its bias stays until the last release."""

    def release(self, factor: float) -> None:
        """Forgets it, or keeps it."""
        super().release(float(factor != 0))


class ReleasesItsWeight(BalancedSigmoidTopK):
    """Shrinks the weight too."""

    def release(self, factor: float) -> None:
        """Scales both."""
        super().release(factor)
        with torch.no_grad():
            self.weight.mul_(max(0.5, factor))


class CountsReleases(BalancedSigmoidTopK):
    """What is left follows from how often it was called, which no state_dict holds."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.released = 0

    def release(self, factor: float) -> None:
        """Shrinks more each time."""
        self.released += factor < 1
        super().release(factor ** max(1, self.released))


class SaturatedChoice(BalancedSigmoidTopK):
    """Chooses by sigmoids where there is no bias: large logits tie."""

    def select(self, logits: Tensor) -> Tensor:
        """Ids."""
        return largest(logits.sigmoid() + self.bias, self.top_k)


class Detached(SigmoidTopK):
    """Its weights carry no gradient."""

    def forward(self, x: Tensor, info: RoutingInfo) -> Routing:
        """Routes."""
        routing = super().forward(x, info)
        return replace(routing, weights=routing.weights.detach())


class OtherGates(SigmoidTopK):
    """Forced routings get a softmax."""

    def forward(self, x: Tensor, info: RoutingInfo) -> Routing:
        """Routes with the right gates."""
        logits = self.logits(x)
        ids = self.select(logits)
        return Routing(ids, logits.gather(-1, ids).sigmoid(), logits)

    def gates(self, logits: Tensor, experts: Tensor) -> Tensor:
        """The wrong ones."""
        gates = logits.softmax(-1).gather(-1, experts.clamp(min=0))
        return gates.masked_fill(experts < 0, 0.0)


def _clamps(hidden: int, experts: int, top_k: int) -> SigmoidTopK:
    return SigmoidTopK(hidden, experts, max(1, min(top_k, experts)))


class Softmax(SigmoidTopK):
    """A softmax over all experts in place of the sigmoid."""

    def scores(self, logits: Tensor, experts: Tensor) -> Tensor:
        """Weights."""
        return logits.softmax(-1).gather(-1, experts)


class Smallest(SigmoidTopK):
    """Takes the smallest logits."""

    def select(self, logits: Tensor) -> Tensor:
        """Ids."""
        return largest(-logits, self.top_k)


def _renormalised(hidden: int, experts: int, top_k: int) -> SigmoidTopK:
    return SigmoidTopK(hidden, experts, top_k, renormalise=True)


def _mutant(bug: str, check: str, build: Callable[..., Any]) -> Mutant:
    subject = Subject("routers", "sigmoid-top-k", build, distribution="llama4-moe")
    return Mutant(bug, check, subject)


MUTANTS: tuple[Mutant, ...] = (
    _mutant("visits an expert twice", "valid-routing", _routed(_repeats)),
    _mutant("nobody has a weight", "valid-routing", _routed(_none_with_weight)),
    _mutant("ids from 1", "valid-routing", _routed(_one_past_the_end)),
    _mutant("drops without saying so", "conservation", _routed(_drops_silently)),
    _mutant("expert by place", "token-permutation", _routed(_by_place)),
    _mutant("weights by batch size", "token-alone", _routed(_by_company)),
    _mutant("prefers expert 0", "expert-permutation", PrefersTheFirst),
    _mutant("ties by chance", "ties-are-deterministic", ThrowsDice),
    _mutant("logits in bfloat16", "computes-in-float32", InModelDtype),
    _mutant("bias moves in forward", "forward-is-pure", CountsInForward),
    _mutant("steps move the weight", "steps-change-buffers-only", StepsOnWeights),
    _mutant("state outside of buffers", "steps-change-buffers-only", ForgetsItsState),
    _mutant("bias in the gate", "steps-leave-weights", BiasInTheGate),
    _mutant("balances backwards", "steps-relieve-the-loaded", BalancesBackwards),
    _mutant("bias is never released", "release-ends-balancing", NeverLetsGo),
    _mutant("bias is gone at once", "release-ends-balancing", LetsGoOfAllAtOnce),
    _mutant("bias is kept to the last", "release-ends-balancing", LetsGoAtTheEnd),
    _mutant("a tenth of the bias is left", "release-ends-balancing", LetsGoOfMost),
    _mutant("release shrinks the weight", "release-ends-balancing", ReleasesItsWeight),
    _mutant("release counts its calls", "release-ends-balancing", CountsReleases),
    _mutant("weights detached", "finite-gradients", Detached),
    _mutant("forced gates by softmax", "gates-agree", OtherGates),
    _mutant("top_k clamped in silence", "impossible-top-k-is-an-error", _clamps),
    _mutant("softmax router", "published-gate", Softmax),
    _mutant("smallest logits", "published-gate", Smallest),
    _mutant("saturated sigmoids tie", "published-gate", SaturatedChoice),
    _mutant("weights renormalised", "published-gate", _renormalised),
)
