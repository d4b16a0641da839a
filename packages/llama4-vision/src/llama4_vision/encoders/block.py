"""The block of an image encoder, and the pass through a stack of them.

``x = x + attend(norm(x))``, ``x = x + fc2(gelu(fc1(norm(x))))``, with biases everywhere, over the
places of many tiles at once: ``x [P, B, W]``, places first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from llama4_core.model.projection import Projection
from llama4_core.protocols.parts import Parts
from llama4_vision.encoders.attention import EncoderAttention


class EncoderFeedForward(nn.Module):
    """``fc2(gelu(fc1(x)))``.

    Args:
        width: W.
        hidden: width between the layers.
        approximate: form of the GELU: "none" for the exact one, or "tanh".
    """

    def __init__(self, width: int, hidden: int, approximate: str) -> None:
        super().__init__()
        self.approximate = approximate
        self.fc1 = Projection(width, hidden, bias=True)
        self.fc2 = Projection(hidden, width, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., W] -> [..., W]``."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x), approximate=self.approximate))
        return out


class EncoderBlock(nn.Module):
    """A pre-norm block with layer norms.

    Args:
        width: W.
        heads: H, which divides W.
        hidden: width of the feed-forward.
        places: P, class tokens included.
        eps: of both norms.
        approximate: form of the GELU: "none" or "tanh".
        parts: the assembler at this block's path.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        places: int,
        eps: float,
        approximate: str,
        parts: Parts,
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps)
        self.attention = EncoderAttention(width, heads, places, parts.child("attention"))
        self.feed_forward_norm = nn.LayerNorm(width, eps)
        self.feed_forward = EncoderFeedForward(width, hidden, approximate)

    def forward(self, x: Tensor, turns: Tensor | None = None) -> Tensor:
        """``[P, B, W] -> [P, B, W]``; ``turns [P, K / 2]`` rotate queries and keys."""
        x = x + self.attention(self.attention_norm(x), turns)
        out: Tensor = x + self.feed_forward(self.feed_forward_norm(x))
        return out


def through(
    blocks: Iterable[nn.Module], x: Tensor, turns: Tensor | None, out_layers: Sequence[int]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Runs the blocks one after the other.

    Args:
        blocks: first to last.
        x: ``[P, B, W]``.
        turns: as the blocks take them.
        out_layers: indices of blocks, in any order.

    Returns:
        The output of the last block, and those of ``out_layers``, in their order.
    """
    kept: dict[int, Tensor] = {}
    for index, block in enumerate(blocks):
        x = block(x, turns)
        if index in out_layers:
            kept[index] = x
    return x, tuple(kept[index] for index in out_layers)
