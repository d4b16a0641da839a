"""One block: ``h = x + mix(norm(x))``, ``out = h + feed_forward(norm(h))``."""

from __future__ import annotations

from torch import Tensor, nn

from llama4_core.model.norm import RMSNorm
from llama4_core.protocols.parts import Parts
from llama4_core.protocols.routing import Routing
from llama4_core.protocols.views import LayerView
from llama4_core.specs.model import LayerSpec


class Block(nn.Module):
    """A pre-norm block; it does not know its own index.

    Args:
        spec: the layer.
        width: D.
        norm_eps: of both norms.
        parts: gives the mixer and the feed-forward.
    """

    def __init__(self, spec: LayerSpec, width: int, norm_eps: float, parts: Parts) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(width, norm_eps)
        self.attention = parts.build(
            "mixers",
            "attention",
            spec.attention.mixer,
            spec.attention,
            width,
            norm_eps,
            parts.child("attention"),
        )
        self.feed_forward_norm = RMSNorm(width, norm_eps)
        self.feed_forward = parts.build(
            "feed_forwards",
            "feed_forward",
            spec.feed_forward.kind,
            spec.feed_forward,
            width,
            parts.child("feed_forward"),
        )

    def forward(self, x: Tensor, view: LayerView) -> tuple[Tensor, Routing | None]:
        """Maps ``x [N, D]`` to ``[N, D]`` and returns the routing of a mixture."""
        x = x + self.attention(self.attention_norm(x), view)
        change, routing = self.feed_forward(self.feed_forward_norm(x), view.info)
        return x + change, routing
