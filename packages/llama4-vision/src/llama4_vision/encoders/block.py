"""The block of an image encoder, and the attention in it.

``x = x + attend(norm(x))``, ``x = x + fc2(gelu(fc1(norm(x))))``, with biases everywhere, over one flat
stream of the places of many tiles: ``x [N, W]``.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from llama4_core.contexts.packed import PackedView
from llama4_core.model.projection import project
from llama4_core.model.rotary import rotate
from llama4_core.protocols.masks import Everything, SameDocument, kinds_of
from llama4_core.protocols.parts import Parts
from llama4_core.protocols.problems import AttentionProblem
from llama4_core.protocols.views import AttentionKind


class BiasedProjection(nn.Linear):
    """``nn.Linear`` that multiplies by :func:`llama4_core.model.projection.project`."""

    def forward(self, x: Tensor) -> Tensor:
        """``[N, inputs] -> [N, outputs]``."""
        return project(x, self.weight) + self.bias


class EncoderAttention(nn.Module):
    """Every place of a tile sees every other; tiles do not see each other.

    Args:
        width: W.
        heads: H, each ``W / H`` wide.
        parts: gives the backend.
    """

    def __init__(self, width: int, heads: int, parts: Parts) -> None:
        super().__init__()
        self.head_dim = width // heads
        self.q_proj = BiasedProjection(width, width)
        self.k_proj = BiasedProjection(width, width)
        self.v_proj = BiasedProjection(width, width)
        self.o_proj = BiasedProjection(width, width)
        self.backends = parts.regimes(
            "attention_backends",
            "backend",
            "auto",
            AttentionProblem(
                heads=heads,
                kv_heads=heads,
                head_dim=self.head_dim,
                dtype=parts.dtype,
                device=parts.device,
                mask_kinds=kinds_of(Everything() & SameDocument()),
            ),
        )

    @property
    def kind(self) -> AttentionKind:
        """Everything sees everything, within a tile."""
        heads = self.k_proj.weight.shape[0] // self.head_dim
        return AttentionKind(Everything(), (), self.backends, heads, self.head_dim)

    def forward(self, x: Tensor, view: PackedView, rotations: Tensor | None) -> Tensor:
        """Mixes ``x [N, W]``; ``rotations [N, K / 2]`` turn queries and keys where there are any."""
        q = self.q_proj(x).unflatten(-1, (-1, self.head_dim))
        k = self.k_proj(x).unflatten(-1, (-1, self.head_dim))
        v = self.v_proj(x).unflatten(-1, (-1, self.head_dim))
        if rotations is not None:
            q, k = rotate(q, rotations), rotate(k, rotations)
        mixed: Tensor = self.o_proj(view.attend(q, k, v, scale=self.head_dim**-0.5).flatten(-2))
        return mixed


class EncoderFeedForward(nn.Module):
    """``fc2(gelu(fc1(x)))``, with the exact GELU or its tanh form."""

    def __init__(self, width: int, hidden: int, approximate: str) -> None:
        super().__init__()
        self.approximate = approximate
        self.fc1 = BiasedProjection(width, hidden)
        self.fc2 = BiasedProjection(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, W] -> [N, W]``."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x), approximate=self.approximate))
        return out


class EncoderBlock(nn.Module):
    """A pre-norm block with layer norms.

    Args:
        width, heads, hidden: W, H and the width of the feed-forward.
        eps: of both norms.
        approximate: form of the GELU: "none" or "tanh".
        parts: the assembler at this block's path.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, eps: float, approximate: str, parts: Parts
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps)
        self.attention = EncoderAttention(width, heads, parts.child("attention"))
        self.feed_forward_norm = nn.LayerNorm(width, eps)
        self.feed_forward = EncoderFeedForward(width, hidden, approximate)

    def forward(self, x: Tensor, view: PackedView, rotations: Tensor | None) -> Tensor:
        """``[N, W] -> [N, W]``."""
        x = x + self.attention(self.attention_norm(x), view, rotations)
        out: Tensor = x + self.feed_forward(self.feed_forward_norm(x))
        return out
