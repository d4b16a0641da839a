"""A mixture of experts for anybody's model: plain tensors and a small config in, tensors out."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor, nn

from llama4_core.errors import ComponentError
from llama4_core.protocols.experts import ExpertBackend
from llama4_core.protocols.problems import ExpertProblem
from llama4_core.protocols.routing import Routing, RoutingInfo
from llama4_moe import support
from llama4_moe.config import MoEConfig
from llama4_moe.experts.bank import ExpertBank
from llama4_moe.forced import route
from llama4_moe.plugin import EXPERT_BACKENDS, ROUTERS
from llama4_moe.shared import SharedExpert

_NO_INFO = RoutingInfo()
_SUPPORTS = {component.name: component.supports for component in EXPERT_BACKENDS}


class MoE(nn.Module):
    """``y = shared(x) + sum_k E_k(s_k x)`` on tensors ``[..., D]``.

    ``E(x) = down(activation(gate x) * (up x))``. Parameters: ``router.weight [E, D]``,
    ``experts.gate_up_proj [E, 2F, D]``, ``experts.down_proj [E, D, F]``, and
    ``shared_expert.{gate,up,down}_proj.weight`` with a shared expert.

    Forward is pure: it counts nothing, so activation checkpointing may run it twice. Take
    ``return_routing=True`` and :mod:`llama4_moe.statistics` for loads and balancing losses.

    Runs under autocast, ``torch.compile(fullgraph=True)``, DDP (also where an expert gets no
    token), FSDP2 and activation checkpointing. The backend "auto" takes the fastest one for each
    call by host integers only; while torch.compile traces, it takes one that can be captured:
    "grouped" where that runs, else "padded-bmm".

    Args:
        config: what it is made of.
        backend: "auto", "loop", "grouped", "padded-bmm", "dense", or an object with the call of
            :class:`llama4_core.protocols.experts.ExpertBackend` (which then brings its own
            activation).
        router: a module in place of the one that ``config.router`` names.

    Raises:
        ComponentError: there is no such router or backend.
    """

    def __init__(
        self,
        config: MoEConfig,
        backend: str | ExpertBackend = "auto",
        router: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.router = _build_router(config) if router is None else router
        self.experts = ExpertBank(config.experts, config.hidden, config.width)
        self.shared_expert = (
            SharedExpert(config.hidden, config.shared_width, config.activation)
            if config.shared_width
            else None
        )
        self._backends: dict[str, ExpertBackend] = {
            component.name: component.build(activation=config.activation)
            for component in EXPERT_BACKENDS
        }
        if isinstance(backend, str) and backend != "auto" and backend not in self._backends:
            raise ComponentError(
                f"expert backend {backend!r} does not exist; expected 'auto', "
                f"{', '.join(map(repr, self._backends))}, or an object"
            )
        self.backend = backend

    @overload
    def forward(
        self, x: Tensor, *, info: RoutingInfo = ..., return_routing: Literal[False] = ...
    ) -> Tensor: ...

    @overload
    def forward(
        self, x: Tensor, *, info: RoutingInfo = ..., return_routing: Literal[True]
    ) -> tuple[Tensor, Routing]: ...

    def forward(
        self, x: Tensor, *, info: RoutingInfo = _NO_INFO, return_routing: bool = False
    ) -> Tensor | tuple[Tensor, Routing]:
        """Maps ``x [..., D]`` to the same shape.

        Args:
            x: tokens; every axis but the last is flattened to N for the routing.
            info: what the router may know besides; ``info.forced [N, K]`` replaces its choice.
            return_routing: also return the :class:`Routing` of the N tokens.

        Raises:
            ComponentError: the last axis is not D, or the named backend cannot run these tokens.
        """
        if x.dim() == 0 or x.shape[-1] != self.config.hidden:
            raise ComponentError(
                f"MoE got tokens of shape {list(x.shape)}; expected a last axis of hidden "
                f"{self.config.hidden}"
            )
        flat = x.reshape(-1, x.shape[-1])
        routing = route(self.router, flat, info)
        y = self.experts(flat, routing, self._pick(flat), self.config.weight_on)
        if x.dim() != 2:
            y = y.reshape(x.shape)
        if self.shared_expert is not None:
            y = y + self.shared_expert(flat).reshape(x.shape)
        return (y, routing) if return_routing else y

    def _pick(self, x: Tensor) -> ExpertBackend:
        """The backend of this call, from host integers and the kind of the tensors alone."""
        if not isinstance(self.backend, str):
            return self.backend
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        problem = ExpertProblem(
            experts=self.config.experts,
            top_k=self.config.top_k,
            hidden=self.config.hidden,
            width=self.config.width,
            dtype=str(dtype).removeprefix("torch."),
            device=kind,
            grad=torch.is_grad_enabled(),
            # Who names the loop may want its break of the graph; everything else is captured.
            compiled=self.backend != "loop" and torch.compiler.is_compiling(),
            tokens=x.shape[0],
        )
        if self.backend == "auto":
            return self._backends[support.preferred(problem)]
        supports = _SUPPORTS[self.backend]
        reason = None if supports is None else supports(problem)
        if reason is not None:
            raise ComponentError(
                f"expert backend {self.backend!r} cannot run here: {reason}; choose another, or "
                "'auto'"
            )
        return self._backends[self.backend]

    def extra_repr(self) -> str:
        """Sizes and the backend."""
        name = self.backend if isinstance(self.backend, str) else type(self.backend).__name__
        return f"top_k={self.config.top_k}, weight_on={self.config.weight_on!r}, backend={name!r}"


def _build_router(config: MoEConfig) -> nn.Module:
    for component in ROUTERS:
        if component.name == config.router:
            settings = {"renormalise": True} if config.renormalise else {}
            return component.build(config.hidden, config.experts, config.top_k, **settings)
    raise ComponentError(
        f"router {config.router!r} does not exist; expected one of "
        f"{', '.join(component.name for component in ROUTERS)}, or pass router=your_module"
    )
