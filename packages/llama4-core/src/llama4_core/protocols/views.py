"""What a block sees of the context, and what a context needs to know of a block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from llama4_core.protocols.masks import Mask
from llama4_core.protocols.routing import RoutingInfo
from llama4_core.protocols.scores import ScoreTerm
from llama4_core.protocols.states import StateSpec

if TYPE_CHECKING:
    from torch import Tensor

    from llama4_core.plugins.regimes import RegimeTable

Scan = Callable[["Tensor | None", "Mapping[str, Tensor]"], "tuple[Tensor, Tensor]"]
"""``scan(state [B, ...] or None, inputs {name: [B, T, ...]}) -> (outputs [B, T, ...], state)``."""


@dataclass(frozen=True)
class AttentionKind:
    """How one softmax layer attends; layers with equal kinds share plans and bookkeeping.

    Attributes:
        mask: the variant's mask, without ``SameDocument()``, which the context adds.
        score_terms: the variant's score terms.
        backends: table of backends by regime.
        kv_heads, head_dim: G and K of this shard, for the cache.
    """

    mask: Mask
    score_terms: tuple[ScoreTerm, ...]
    backends: RegimeTable
    kv_heads: int
    head_dim: int


class LayerView(Protocol):
    """The context, seen from one layer.

    Attributes:
        positions: ``[N]`` int64, position of each token in its document.
        shared: tensors computed once per forward, such as rotations by name.
        info: what routers may know.
    """

    positions: Tensor
    shared: Mapping[str, Tensor]
    info: RoutingInfo

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        scale: float,
        score_tensors: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Lets the tokens meet: q ``[N, H, K]``, k and v ``[N, G, K]`` -> ``[N, H, K]``.

        Keys and values of earlier forwards, batching and masks are the context's business.
        """

    def recur(self, inputs: Mapping[str, Tensor], scan: Scan) -> Tensor:
        """Runs a recurrence over each document: inputs ``[N, ...]`` -> outputs ``[N, ...]``.

        ``scan`` is pure; the context keeps its state between forwards and can replay it exactly
        when only a part of the provisional tokens is committed.
        """


class Mixer(Protocol):
    """Lets tokens meet in a block. An ``nn.Module``.

    Attributes:
        kind: of a softmax layer; None for a recurrent one.
        state_spec: what is kept per sequence.
    """

    kind: AttentionKind | None
    state_spec: StateSpec

    def __call__(self, x: Tensor, view: LayerView) -> Any:
        """Maps ``x [N, D]`` to ``[N, D]``."""
