"""A small gated linear attention: a mixer whose state does not grow with the context."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llama4_core.errors import SpecError
from llama4_core.model.norm import rms_normalise
from llama4_core.model.projection import Projection
from llama4_core.protocols.parts import Parts
from llama4_core.protocols.states import StateSpec
from llama4_core.protocols.views import LayerView
from llama4_core.specs.model import AttentionSpec

BLOCK = 64
"""Tokens computed at once: quadratic inside a block, recurrent from block to block."""


class GatedLinearMixer(nn.Module):
    """``S_t = a_t S_{t-1} + k_t v_t^T``, ``y_t = norm(q_t S_t)``, per head, with a learned decay.

    ``a_t = sigmoid(w_a x_t + 4)`` is one number per head and token (about 0.98 at the start). The
    order of tokens enters through the recurrence, so no position encoding is applied.

    Args:
        spec: heads and head_dim are used; settings of softmax attention are refused.
        width: D.
        norm_eps: of the norm of each head's output.
        parts: unused: this mixer has no parts of its own.
    """

    def __init__(self, spec: AttentionSpec, width: int, norm_eps: float, parts: Parts) -> None:
        super().__init__()
        for field in ("rope", "chunk", "window", "qk_norm", "temperature", "soft_cap", "sink"):
            if getattr(spec, field):
                raise SpecError(
                    f"{parts.path}: mixer 'gated-linear' has no use for {field}="
                    f"{getattr(spec, field)!r}; remove it or choose mixer 'softmax'"
                )
        if spec.kv_heads != spec.heads:
            raise SpecError(
                f"{parts.path}: mixer 'gated-linear' got kv_heads {spec.kv_heads}; expected as "
                f"many as heads, {spec.heads}"
            )
        inner = spec.heads * spec.head_dim
        self.head_dim = spec.head_dim
        self.norm_eps = norm_eps
        self.q_proj = Projection(width, inner)
        self.k_proj = Projection(width, inner)
        self.v_proj = Projection(width, inner)
        self.decay_proj = Projection(width, spec.heads)
        self.o_proj = Projection(inner, width)

    kind = None

    @property
    def state_spec(self) -> StateSpec:
        """One ``[K, K]`` matrix per head."""
        heads = self.decay_proj.weight.shape[0]
        return StateSpec(constant_elements=heads * self.head_dim**2, split="heads")

    def forward(self, x: Tensor, view: LayerView) -> Tensor:
        """Mixes ``x [N, D]``."""
        split = (-1, self.head_dim)
        inputs = {
            "q": self.q_proj(x).unflatten(-1, split).float() * self.head_dim**-0.5,
            "k": self.k_proj(x).unflatten(-1, split).float() * self.head_dim**-0.5,
            "v": self.v_proj(x).unflatten(-1, split).float(),
            "log_decay": F.logsigmoid(self.decay_proj(x).float() + 4.0),
        }
        mixed = view.recur(inputs, scan)
        mixed = rms_normalise(mixed, self.norm_eps).to(x.dtype)
        out: Tensor = self.o_proj(mixed.flatten(-2))
        return out


def scan(state: Tensor | None, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The recurrence over whole documents.

    Args:
        state: ``[B, H, K, K]``, or None for zeros.
        inputs: q, k, v ``[B, T, H, K]`` and log_decay ``[B, T, H]``, float32.

    Returns:
        Outputs ``[B, T, H, K]`` and the state after the last token.
    """
    q, k, v = inputs["q"], inputs["k"], inputs["v"]
    log_decay = inputs["log_decay"]
    batch, length, heads, head_dim = q.shape
    if state is None:
        state = q.new_zeros(batch, heads, head_dim, head_dim)
    outputs = []
    for first in range(0, length, BLOCK):
        piece = slice(first, min(first + BLOCK, length))
        elapsed = log_decay[:, piece].cumsum(1).transpose(1, 2)  # [B, H, T]
        size = elapsed.shape[-1]
        between = elapsed[..., :, None] - elapsed[..., None, :]
        causal = torch.ones(size, size, dtype=torch.bool, device=q.device).tril()
        decay = between.masked_fill(~causal, float("-inf")).exp()
        scores = torch.einsum("bthk,bshk->bhts", q[:, piece], k[:, piece]) * decay
        local = torch.einsum("bhts,bshk->bthk", scores, v[:, piece])
        carried = torch.einsum("bthk,bhkv->bthv", q[:, piece], state)
        outputs.append(local + carried * elapsed.exp().transpose(1, 2)[..., None])
        remaining = (elapsed[..., -1:] - elapsed).exp().transpose(1, 2)[..., None]
        gained = torch.einsum("bshk,bshv->bhkv", k[:, piece] * remaining, v[:, piece])
        state = state * elapsed[..., -1, None, None].exp() + gained
    return torch.cat(outputs, 1), state
