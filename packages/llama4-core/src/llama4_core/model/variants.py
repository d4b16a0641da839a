"""Attention variants: what is done to q and k, which keys are seen, how scores are changed.

A variant is an ``nn.Module`` built as ``target(spec, norm_eps)`` with

* ``mask``: a mask value, without ``SameDocument()``;
* ``score_terms``: a tuple of score terms, and ``score_tensors()``: the tensors that they name;
* ``rotary``: name of the rotation that it needs from the view, or None;
* ``forward(q [N, H, K], k [N, G, K], view) -> (q, k)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from llama4_core.errors import SpecError
from llama4_core.model.norm import rms_normalise
from llama4_core.model.rotary import rotate, rotation
from llama4_core.protocols.masks import Causal, Chunked, Mask, SlidingWindow
from llama4_core.protocols.scores import ScoreTerm, Sink, SoftCap
from llama4_core.protocols.views import LayerView
from llama4_core.specs.model import AttentionSpec, RopeSpec, TemperatureSpec

_T = TypeVar("_T")


@dataclass(frozen=True)
class Rotary:
    """Which rotation a variant needs; equal values are computed once per forward."""

    spec: RopeSpec
    head_dim: int
    modulo: int | None

    @property
    def name(self) -> str:
        """Key of the rotation in ``view.shared``."""
        return repr(self)

    def __call__(self, positions: Tensor) -> Tensor:
        """Rotations ``[N, K / 2]`` of ``positions [N]``."""
        return rotation(positions, self.spec, self.head_dim, self.modulo)


def temperature(positions: Tensor, spec: TemperatureSpec) -> Tensor:
    """``1 + scale * ln(floor((position + 1) / floor) + 1)``, ``[N]`` float32."""
    steps = torch.floor((positions + 1).double() / spec.floor)
    return (1 + spec.scale * torch.log1p(steps)).float()


class _Encoded(nn.Module):
    """Rotation, then a weightless norm of q and k per head: shared by the rotary variants."""

    def __init__(self, rotary: Rotary, qk_norm: bool, norm_eps: float) -> None:
        super().__init__()
        self.rotary = rotary
        self.name = rotary.name
        self.qk_norm = qk_norm
        self.norm_eps = norm_eps

    def forward(self, q: Tensor, k: Tensor, view: LayerView) -> tuple[Tensor, Tensor]:
        rotations = view.shared[self.name]
        q, k = rotate(q, rotations), rotate(k, rotations)
        if self.qk_norm:
            q, k = rms_normalise(q, self.norm_eps), rms_normalise(k, self.norm_eps)
        return q, k


class IRopeChunked(nn.Module):
    """Llama 4's local layers: rotary within blocks of ``chunk`` positions, optional QK norm."""

    def __init__(self, spec: AttentionSpec, norm_eps: float) -> None:
        super().__init__()
        chunk = _needed(spec, "chunk", spec.chunk)
        rope = _needed(spec, "rope", spec.rope)
        _unused(spec, "window", "temperature", "soft_cap", "sink")
        self.mask: Mask = Causal() & Chunked(chunk)
        self.score_terms: tuple[ScoreTerm, ...] = ()
        self.rotary = Rotary(rope, spec.head_dim, chunk)
        self.encode = _Encoded(self.rotary, spec.qk_norm, norm_eps)

    def forward(self, q: Tensor, k: Tensor, view: LayerView) -> tuple[Tensor, Tensor]:
        """Encodes q ``[N, H, K]`` and k ``[N, G, K]``."""
        encoded: tuple[Tensor, Tensor] = self.encode(q, k, view)
        return encoded

    def score_tensors(self) -> Mapping[str, Tensor]:
        """No score term names a tensor."""
        return {}


class NopeGlobal(nn.Module):
    """Llama 4's global layers: no positions, all that came before, optional temperature on q."""

    def __init__(self, spec: AttentionSpec, norm_eps: float) -> None:
        super().__init__()
        _unused(spec, "rope", "chunk", "window", "qk_norm", "soft_cap", "sink")
        self.mask: Mask = Causal()
        self.score_terms: tuple[ScoreTerm, ...] = ()
        self.rotary = None
        self.temperature = spec.temperature

    def forward(self, q: Tensor, k: Tensor, view: LayerView) -> tuple[Tensor, Tensor]:
        """Scales q ``[N, H, K]``; k passes."""
        if self.temperature is not None:
            factor = temperature(view.positions, self.temperature)[:, None, None]
            q = (q * factor).to(q.dtype)
        return q, k

    def score_tensors(self) -> Mapping[str, Tensor]:
        """No score term names a tensor."""
        return {}


class FullRope(nn.Module):
    """Rotary attention over everything before (Llama Guard 4), optional QK norm."""

    def __init__(self, spec: AttentionSpec, norm_eps: float) -> None:
        super().__init__()
        rope = _needed(spec, "rope", spec.rope)
        _unused(spec, "chunk", "window", "temperature", "soft_cap", "sink")
        self.mask: Mask = Causal()
        self.score_terms: tuple[ScoreTerm, ...] = ()
        self.rotary = Rotary(rope, spec.head_dim, None)
        self.encode = _Encoded(self.rotary, spec.qk_norm, norm_eps)

    def forward(self, q: Tensor, k: Tensor, view: LayerView) -> tuple[Tensor, Tensor]:
        """Encodes q ``[N, H, K]`` and k ``[N, G, K]``."""
        encoded: tuple[Tensor, Tensor] = self.encode(q, k, view)
        return encoded

    def score_tensors(self) -> Mapping[str, Tensor]:
        """No score term names a tensor."""
        return {}


class SlidingWindowRope(nn.Module):
    """Rotary attention over the last ``window`` positions, optional QK norm."""

    def __init__(self, spec: AttentionSpec, norm_eps: float) -> None:
        super().__init__()
        window = _needed(spec, "window", spec.window)
        rope = _needed(spec, "rope", spec.rope)
        _unused(spec, "chunk", "temperature", "soft_cap", "sink")
        self.mask: Mask = Causal() & SlidingWindow(window)
        self.score_terms: tuple[ScoreTerm, ...] = ()
        self.rotary = Rotary(rope, spec.head_dim, None)
        self.encode = _Encoded(self.rotary, spec.qk_norm, norm_eps)

    def forward(self, q: Tensor, k: Tensor, view: LayerView) -> tuple[Tensor, Tensor]:
        """Encodes q ``[N, H, K]`` and k ``[N, G, K]``."""
        encoded: tuple[Tensor, Tensor] = self.encode(q, k, view)
        return encoded

    def score_tensors(self) -> Mapping[str, Tensor]:
        """No score term names a tensor."""
        return {}


class CappedSink(nn.Module):
    """Rotary attention whose scores are soft-capped, with a learned sink per head."""

    def __init__(self, spec: AttentionSpec, norm_eps: float) -> None:
        super().__init__()
        rope = _needed(spec, "rope", spec.rope)
        cap = _needed(spec, "soft_cap", spec.soft_cap)
        _unused(spec, "chunk", "window", "temperature")
        self.mask: Mask = Causal()
        self.score_terms: tuple[ScoreTerm, ...] = (SoftCap(cap),)
        self.sink: nn.Parameter | None = None
        if spec.sink:
            self.score_terms += (Sink(),)
            self.sink = nn.Parameter(torch.zeros(spec.heads))
        self.rotary = Rotary(rope, spec.head_dim, None)
        self.encode = _Encoded(self.rotary, spec.qk_norm, norm_eps)

    def forward(self, q: Tensor, k: Tensor, view: LayerView) -> tuple[Tensor, Tensor]:
        """Encodes q ``[N, H, K]`` and k ``[N, G, K]``."""
        encoded: tuple[Tensor, Tensor] = self.encode(q, k, view)
        return encoded

    def score_tensors(self) -> Mapping[str, Tensor]:
        """``{"sink": [H]}`` where there is one."""
        return {} if self.sink is None else {"sink": self.sink}


def _needed(spec: AttentionSpec, field: str, value: _T | None) -> _T:
    if value is None:
        raise SpecError(
            f"attention variant {spec.variant!r} needs {field}, which is not set; set "
            f"AttentionSpec.{field} or choose another variant"
        )
    return value


def _unused(spec: AttentionSpec, *fields: str) -> None:
    for field in fields:
        if getattr(spec, field):
            raise SpecError(
                f"attention variant {spec.variant!r} has no use for {field}="
                f"{getattr(spec, field)!r}; remove it or choose another variant"
            )
