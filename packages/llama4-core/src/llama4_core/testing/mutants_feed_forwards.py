"""Bugs of feed-forwards, dense and of a small mixture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llama4_core.errors import SpecError
from llama4_core.model.dense import DenseFeedForward
from llama4_core.protocols.routing import Routing, RoutingInfo
from llama4_core.specs.model import DenseSpec, MoESpec
from llama4_core.testing.check import Subject
from llama4_core.testing.mutants import Mutant


class Dense(DenseFeedForward):
    """A dense feed-forward to break."""

    def __init__(self, spec: DenseSpec, width: int, parts: Any) -> None:
        if not isinstance(spec, DenseSpec):
            raise SpecError("dense only")
        super().__init__(spec, width, parts)


class Mixture(nn.Module):
    """All experts on all tokens, weighted by what the router gives: slow and right."""

    def __init__(self, spec: MoESpec, width: int, parts: Any) -> None:
        super().__init__()
        if not isinstance(spec, MoESpec):
            raise SpecError("mixtures only")
        self.top_k = spec.top_k
        self.router = nn.Linear(width, spec.experts, bias=False)
        self.up = nn.Parameter(torch.empty(spec.experts, spec.width, width))
        self.down = nn.Parameter(torch.empty(spec.experts, width, spec.width))

    def choose(self, logits: Tensor, info: RoutingInfo) -> Tensor:
        """Expert ids ``[N, K]``."""
        if info.forced is not None:
            return info.forced
        return logits.sort(dim=-1, descending=True, stable=True).indices[:, : self.top_k]

    def forward(self, x: Tensor, info: RoutingInfo) -> tuple[Tensor, Routing]:
        """Maps ``[N, D]`` to ``[N, D]``."""
        logits = F.linear(x.float(), self.router.weight.float())
        ids = self.choose(logits, info)
        weights = logits.gather(-1, ids).sigmoid()
        dense = torch.zeros_like(logits).scatter(-1, ids, weights).to(x.dtype)
        hidden = F.silu(torch.einsum("nd,efd->nef", x, self.up))
        y = torch.einsum("nef,edf,ne->nd", hidden, self.down, dense)
        return y, Routing(ids, weights, logits)


class WideOutput(Dense):
    """Answers in float32 whatever came in."""

    def forward(self, x: Tensor, info: RoutingInfo) -> tuple[Tensor, None]:
        """Widens."""
        return super().forward(x, info)[0].float(), None


class ShortIds(Mixture):
    """Ids as int32."""

    def forward(self, x: Tensor, info: RoutingInfo) -> tuple[Tensor, Routing]:
        """Shortens the ids."""
        y, routing = super().forward(x, info)
        return y, Routing(routing.experts.int(), routing.weights, routing.logits)


class Centred(Dense):
    """Subtracts the mean over the tokens of the batch."""

    def forward(self, x: Tensor, info: RoutingInfo) -> tuple[Tensor, None]:
        """Mixes tokens."""
        y = super().forward(x, info)[0]
        return y - 0.01 * y.mean(0, keepdim=True).nan_to_num(), None


class Crowded(Mixture):
    """Every expert takes at most half of the batch, first come, first served."""

    def choose(self, logits: Tensor, info: RoutingInfo) -> Tensor:
        """Sends late tokens to the next expert."""
        ids = super().choose(logits, info)
        if info.forced is not None or len(ids) < 2:
            return ids
        late = torch.arange(len(ids)) >= len(ids) // 2
        return torch.where(late[:, None], (ids + 1) % logits.shape[1], ids)


class Deaf(Mixture):
    """Does not hear which experts are forced."""

    def choose(self, logits: Tensor, info: RoutingInfo) -> Tensor:
        """Chooses by itself."""
        return super().choose(logits, RoutingInfo())


class Contiguous(Dense):
    """Takes it for granted that rows lie side by side."""

    def forward(self, x: Tensor, info: RoutingInfo) -> tuple[Tensor, None]:
        """Reads with the strides of a fresh tensor."""
        flat = torch.as_strided(x, x.shape, (x.shape[1], 1), x.storage_offset())
        return super().forward(flat.nan_to_num(), info)[0], None


class InPlace(Dense):
    """Scales the stream that the residual still needs."""

    def forward(self, x: Tensor, info: RoutingInfo) -> tuple[Tensor, None]:
        """Scales in place."""
        if not torch.is_grad_enabled():
            x.mul_(1.01)
        return super().forward(x, info)[0], None


class RoundedSum(Dense):
    """Adds the hidden units one by one in the model's dtype."""

    def forward(self, x: Tensor, info: RoutingInfo) -> tuple[Tensor, None]:
        """Adds with a rounding each."""
        hidden = F.silu(self.gate_proj(x)) * self.up_proj(x)
        y = torch.zeros_like(x)
        for unit in range(hidden.shape[1]):
            part = hidden[:, unit, None] * self.down_proj.weight[:, unit]
            # As often as a layer of real width would.
            for _ in range(16):
                y = y + part / 16
        return y, None


class Detached(Dense):
    """The gate gets no gradient with respect to the tokens."""

    def forward(self, x: Tensor, info: RoutingInfo) -> tuple[Tensor, None]:
        """Detaches."""
        gate = F.silu(self.gate_proj(x.detach()))
        return self.down_proj(gate * self.up_proj(x)), None


class Skipping(Dense):
    """Uses no weight when there is no token."""

    def forward(self, x: Tensor, info: RoutingInfo) -> tuple[Tensor, None]:
        """Returns early."""
        return (x * 1, None) if not len(x) else (super().forward(x, info)[0], None)


class Scattered(Dense):
    """Collects results in a buffer of x's dtype, which is not autocast's."""

    def forward(self, x: Tensor, info: RoutingInfo) -> tuple[Tensor, None]:
        """Adds by index."""
        y = super().forward(x, info)[0]
        return torch.zeros_like(x).index_add(0, torch.arange(len(x)), y), None


class Peeking(Dense):
    """Looks at a number while the graph is captured."""

    def forward(self, x: Tensor, info: RoutingInfo) -> tuple[Tensor, None]:
        """Branches on data."""
        y = super().forward(x, info)[0]
        return (y if y.abs().sum().item() > 0 else torch.zeros_like(y)), None


class Counting(Dense):
    """Remembers in a buffer how often it ran, and answers differently by it."""

    def __init__(self, spec: DenseSpec, width: int, parts: Any) -> None:
        super().__init__(spec, width, parts)
        self.calls = 0

    def forward(self, x: Tensor, info: RoutingInfo) -> tuple[Tensor, None]:
        """Counts."""
        self.calls += info.training
        return super().forward(x * (1 + 0.01 * self.calls), info)[0], None


def _mutant(bug: str, check: str, target: type[nn.Module]) -> Mutant:
    return Mutant(bug, check, Subject("feed_forwards", target.__name__, target))


MUTANTS: tuple[Mutant, ...] = (
    _mutant("float32 for bfloat16", "output-and-routing", WideOutput),
    _mutant("ids of int32", "output-and-routing", ShortIds),
    _mutant("mean over the batch", "tokens-are-independent", Centred),
    _mutant("capacity by order of arrival", "tokens-are-independent", Crowded),
    _mutant("forced experts ignored", "forced-routing", Deaf),
    _mutant("strides ignored", "strides", Contiguous),
    _mutant("stream changed in place", "strides", InPlace),
    _mutant("sum rounded at every term", "bfloat16", RoundedSum),
    _mutant("gate detached", "gradients", Detached),
    _mutant("no gradient without tokens", "gradients", Skipping),
    _mutant("buffer of another dtype", "autocast", Scattered),
    _mutant("branch on data", "compiles", Peeking),
    _mutant("state per call", "activation-checkpointing", Counting),
)
SOUND: tuple[type[nn.Module], ...] = (Dense, Mixture)
"""What the bugs are planted in; these pass every check."""
