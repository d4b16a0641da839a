"""Attention within each tile."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from llama4_core.errors import ComponentError
from llama4_core.model.projection import Projection
from llama4_core.protocols.attention import AttentionBatch, Segment
from llama4_core.protocols.masks import Everything, SameDocument, kinds_of
from llama4_core.protocols.parts import Parts
from llama4_core.protocols.problems import AttentionProblem
from llama4_vision.encoders.rotary import turned


class EncoderAttention(nn.Module):
    """Every place of a tile sees every other; tiles do not see each other.

    To the backend the tiles are heads: B tiles with H heads are one stream of P places with B H
    heads. One plan, of a single tile, therefore serves any number of tiles. It is made when the
    module is built, so that nothing is planned while a graph is captured, and the graph holds for
    any number of tiles.

    Args:
        width: W.
        heads: H, each ``W / H`` wide.
        places: P, class tokens included.
        parts: gives the backend.
    """

    def __init__(self, width: int, heads: int, places: int, parts: Parts) -> None:
        super().__init__()
        self.head_dim = width // heads
        self.places = places
        self.q_proj = Projection(width, width, bias=True)
        self.k_proj = Projection(width, width, bias=True)
        self.v_proj = Projection(width, width, bias=True)
        self.o_proj = Projection(width, width, bias=True)
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
        self._plans: dict[tuple[torch.device, bool], tuple[Any, Any]] = {}
        self._prepare(parts.device)

    def forward(self, x: Tensor, turns: Tensor | None = None) -> Tensor:
        """Mixes the places of each tile.

        Args:
            x: ``[P, B, W]``.
            turns: ``[P, K / 2]`` complex, applied to queries and keys; None for no rotation.

        Returns:
            ``[P, B, W]``.
        """
        q, k, v = (
            projection(x).unflatten(-1, (-1, self.head_dim)).permute(1, 2, 0, 3)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if turns is not None:
            q, k = turned(q, turns), turned(k, turns)
        backend, plan = self._planned(x.device, torch.is_grad_enabled())
        q, k, v = (heads.contiguous().flatten(0, 1).transpose(0, 1) for heads in (q, k, v))
        mixed = backend(q, k, v, plan, scale=self.head_dim**-0.5)
        out: Tensor = self.o_proj(mixed.reshape(x.shape[0], x.shape[1], -1))
        return out

    def _planned(self, device: torch.device, grad: bool) -> tuple[Any, Any]:
        """The backend of this forward and its plan."""
        key = (device, grad)
        if key not in self._plans:
            backend = self.backends.pick(self.places, grad)
            batch = AttentionBatch(
                segments=(Segment(0, self.places, 0, self.places),),
                mask=Everything() & SameDocument(),
                device=str(device),
                grad=grad,
            )
            self._plans[key] = backend, backend.plan(batch)
        return self._plans[key]

    def _prepare(self, name: str) -> None:
        """Plans for the device that the parts were chosen for, where torch can use it here."""
        if name != "cpu" and not torch.get_device_module(name).is_available():
            return
        with torch.device("cpu"):  # modules are built on the meta device, plans are not
            device = torch.empty(0, device=name).device
            for grad in (False, True):
                try:
                    self._planned(device, grad)
                except ComponentError:
                    # No backend for this regime: the error is for whoever asks for it.
                    continue
