"""Softmax attention as a mixer: projections around a variant and a backend."""

from __future__ import annotations

from torch import Tensor, nn

from llama4_core.model.projection import Projection
from llama4_core.protocols.masks import SameDocument, kinds_of
from llama4_core.protocols.parts import Parts
from llama4_core.protocols.problems import AttentionProblem
from llama4_core.protocols.states import StateSpec
from llama4_core.protocols.views import AttentionKind, LayerView
from llama4_core.specs.model import AttentionSpec


class SoftmaxMixer(nn.Module):
    """``o(attend(variant(q(x), k(x)), v(x)))`` without biases, scores scaled by ``K ** -0.5``.

    Head counts are read off the weights, so that a tensor-parallel shard is just a smaller mixer.

    Args:
        spec: the layer's attention.
        width: D.
        norm_eps: for the QK norm.
        parts: gives the variant and the backend.
    """

    def __init__(self, spec: AttentionSpec, width: int, norm_eps: float, parts: Parts) -> None:
        super().__init__()
        self.head_dim = spec.head_dim
        self.q_proj = Projection(width, spec.heads * spec.head_dim)
        self.k_proj = Projection(width, spec.kv_heads * spec.head_dim)
        self.v_proj = Projection(width, spec.kv_heads * spec.head_dim)
        self.o_proj = Projection(spec.heads * spec.head_dim, width)
        self.variant = parts.build("attention_variants", "variant", spec.variant, spec, norm_eps)
        self.backends = parts.regimes(
            "attention_backends",
            "backend",
            "auto",
            AttentionProblem(
                heads=spec.heads,
                kv_heads=spec.kv_heads,
                head_dim=spec.head_dim,
                dtype=parts.dtype,
                device=parts.device,
                mask_kinds=kinds_of(self.variant.mask & SameDocument()),
                score_terms=frozenset(type(term).__name__ for term in self.variant.score_terms),
            ),
        )

    @property
    def kind(self) -> AttentionKind:
        """Mask, score terms, backends and cache shape of this layer."""
        return AttentionKind(
            mask=self.variant.mask,
            score_terms=self.variant.score_terms,
            backends=self.backends,
            kv_heads=self.k_proj.weight.shape[0] // self.head_dim,
            head_dim=self.head_dim,
        )

    @property
    def state_spec(self) -> StateSpec:
        """Keys and values of every token that may still be seen."""
        kind = self.kind
        return StateSpec(
            elements_per_token=2 * kind.kv_heads * kind.head_dim, mask=kind.mask, split="kv_heads"
        )

    def forward(self, x: Tensor, view: LayerView) -> Tensor:
        """Mixes ``x [N, D]``."""
        q = self.q_proj(x).unflatten(-1, (-1, self.head_dim))
        k = self.k_proj(x).unflatten(-1, (-1, self.head_dim))
        v = self.v_proj(x).unflatten(-1, (-1, self.head_dim))
        q, k = self.variant(q, k, view)
        mixed = view.attend(
            q, k, v, scale=self.head_dim**-0.5, score_tensors=self.variant.score_tensors()
        )
        out: Tensor = self.o_proj(mixed.flatten(-2))
        return out
