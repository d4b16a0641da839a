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


class Rotated(nn.Module):
    """Attention over rotated queries and keys; the functions below say with which mask.

    Args:
        spec: of the layer.
        norm_eps: of the QK norm: a weightless RMS norm of q and k per head, after the rotation.
        mask: which keys are seen.
        modulo: of the positions, or None.
        score_terms: changes of the scores.
    """

    def __init__(
        self,
        spec: AttentionSpec,
        norm_eps: float,
        mask: Mask,
        *,
        modulo: int | None = None,
        score_terms: tuple[ScoreTerm, ...] = (),
    ) -> None:
        super().__init__()
        self.mask = mask
        self.score_terms = score_terms
        self.qk_norm = spec.qk_norm
        self.norm_eps = norm_eps
        self.rotary = Rotary(_needed(spec, "rope", spec.rope), spec.head_dim, modulo)
        self.rotation = self.rotary.name
        self.sink = nn.Parameter(torch.zeros(spec.heads)) if Sink() in score_terms else None

    def forward(self, q: Tensor, k: Tensor, view: LayerView) -> tuple[Tensor, Tensor]:
        """Encodes q ``[N, H, K]`` and k ``[N, G, K]``."""
        rotations = view.shared[self.rotation]
        q, k = rotate(q, rotations), rotate(k, rotations)
        if self.qk_norm:
            q, k = rms_normalise(q, self.norm_eps), rms_normalise(k, self.norm_eps)
        return q, k

    def score_tensors(self) -> Mapping[str, Tensor]:
        """``{"sink": [H]}`` where there is one."""
        return {} if self.sink is None else {"sink": self.sink}


def irope_chunked(spec: AttentionSpec, norm_eps: float) -> Rotated:
    """Llama 4's local layers: blocks of ``chunk`` positions, counted from the block's start."""
    chunk = _needed(spec, "chunk", spec.chunk)
    _unused(spec, "window", "temperature", "soft_cap", "sink")
    return Rotated(spec, norm_eps, Causal() & Chunked(chunk), modulo=chunk)


def full_rope(spec: AttentionSpec, norm_eps: float) -> Rotated:
    """Everything before (Llama Guard 4)."""
    _unused(spec, "chunk", "window", "temperature", "soft_cap", "sink")
    return Rotated(spec, norm_eps, Causal())


def sliding_window(spec: AttentionSpec, norm_eps: float) -> Rotated:
    """The last ``window`` positions."""
    window = _needed(spec, "window", spec.window)
    _unused(spec, "chunk", "temperature", "soft_cap", "sink")
    return Rotated(spec, norm_eps, Causal() & SlidingWindow(window))


def capped_sink(spec: AttentionSpec, norm_eps: float) -> Rotated:
    """Everything before, with soft-capped scores and, if asked for, a learned sink per head."""
    cap = _needed(spec, "soft_cap", spec.soft_cap)
    _unused(spec, "chunk", "window", "temperature")
    terms: tuple[ScoreTerm, ...] = (SoftCap(cap), Sink()) if spec.sink else (SoftCap(cap),)
    return Rotated(spec, norm_eps, Causal(), score_terms=terms)


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
