"""The mixture as the feed-forward of a block of llama4-core's model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from llama4_core.protocols.parts import Parts
from llama4_core.protocols.problems import ExpertProblem
from llama4_core.protocols.routing import Routing, RoutingInfo
from llama4_core.specs.model import MoESpec
from llama4_moe.experts.bank import ExpertBank
from llama4_moe.forced import route
from llama4_moe.shared import SharedExpert


class MoEFeedForward(nn.Module):
    """``shared(x) + sum_k E_k(s_k x)``: the component ``moe`` of the socket feed_forwards.

    Parameters: ``router.*``, ``experts.gate_up_proj [E, 2F, D]``, ``experts.down_proj [E, D, F]``,
    ``shared_expert.{gate,up,down}_proj.weight``.

    Args:
        spec: of this layer.
        width: D.
        parts: the assembler at this layer's path; slots ``router`` and ``backend``.
    """

    def __init__(self, spec: MoESpec, width: int, parts: Parts) -> None:
        super().__init__()
        self.weight_on = spec.weight_on
        self.router = parts.build("routers", "router", spec.router, width, spec.experts, spec.top_k)
        self.experts = ExpertBank(spec.experts, width, spec.width)
        self.shared_expert = SharedExpert(width, spec.shared_width) if spec.shared_width else None
        self.backends = parts.regimes(
            "expert_backends",
            "backend",
            "auto",
            ExpertProblem(
                experts=spec.experts,
                top_k=spec.top_k,
                hidden=width,
                width=spec.width,
                dtype=parts.dtype,
                device=parts.device,
            ),
        )

    def forward(self, x: Tensor, info: RoutingInfo) -> tuple[Tensor, Routing]:
        """Maps ``x [N, D]`` to ``[N, D]`` and says where the tokens went."""
        routing = route(self.router, x, info)
        backend = self.backends.pick(x.shape[0], torch.is_grad_enabled())
        y = self.experts(x, routing, backend, self.weight_on)
        if self.shared_expert is not None:
            y = y + self.shared_expert(x)
        return y, routing
