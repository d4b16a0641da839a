"""Bugs of attention variants: the list of what goes wrong in ports of Llama 4."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from llama4_core.model import variants
from llama4_core.model.norm import rms_normalise
from llama4_core.protocols.masks import Causal, Chunked, SlidingWindow
from llama4_core.specs.model import AttentionSpec
from llama4_core.testing.attention_variants import View
from llama4_core.testing.check import Subject
from llama4_core.testing.mutants import Mutant, patched
from llama4_core.testing.mutants_attention_backends import Shifted

NAMES: dict[Callable[..., Any], str] = {
    variants.irope_chunked: "irope-chunked",
    variants.NopeGlobal: "nope-global",
    variants.full_rope: "full-rope",
    variants.sliding_window: "sliding-window",
    variants.capped_sink: "capped-sink",
}


class Broken:
    """A variant, changed.

    Args:
        inner: the variant.
        call: ``call(inner, q, k, view)`` in place of its own.
        fields: attributes in place of its own.
    """

    def __init__(self, inner: Any, call: Callable[..., Any] | None = None, **fields: Any) -> None:
        self.inner, self.call, self.fields = inner, call, fields

    def __getattr__(self, name: str) -> Any:
        fields = self.__dict__["fields"]
        return fields[name] if name in fields else getattr(self.__dict__["inner"], name)

    def __call__(self, q: Tensor, k: Tensor, view: Any) -> Any:
        """Encodes."""
        return self.inner(q, k, view) if self.call is None else self.call(self.inner, q, k, view)


def _mutant(
    bug: str,
    check: str,
    kind: Callable[..., Any],
    *,
    spec: Callable[[AttentionSpec], AttentionSpec] = lambda spec: spec,
    call: Callable[..., Any] | None = None,
    fields: Callable[[AttentionSpec], dict[str, Any]] = lambda spec: {},
    eps: float | None = None,
    planted: Any = None,
) -> Mutant:
    def build(described: AttentionSpec, norm_eps: float) -> Any:
        kind(described, norm_eps)  # what it refuses it still refuses
        inner = kind(spec(described), eps or norm_eps)
        return Broken(inner, call, **fields(described))

    subject = Subject("attention_variants", NAMES[kind], build, distribution="planted")
    return Mutant(bug, check, subject, **({} if planted is None else {"planted": planted}))


def _unscaled(spec: AttentionSpec) -> AttentionSpec:
    rope = spec.rope
    return spec if rope is None else replace(spec, rope=replace(rope, scaling=None))


def _other_length(spec: AttentionSpec) -> AttentionSpec:
    rope = spec.rope
    if rope is None or rope.scaling is None:
        return spec
    scaling = replace(rope.scaling, original_length=2 * rope.scaling.original_length)
    return replace(spec, rope=replace(rope, scaling=scaling))


def _half_split(x: Tensor, rotations: Tensor) -> Tensor:
    first, second = x.double().chunk(2, dim=-1)
    turned = torch.complex(first, second) * rotations[:, None]
    return torch.cat([turned.real, turned.imag], dim=-1).to(x.dtype)


def _absolute(inner: Any, q: Tensor, k: Tensor, view: Any) -> Any:
    q, k = inner(q, k, view)
    return q * (1 + 0.01 * view.positions[:, None, None]), k


def _by_row(inner: Any, q: Tensor, k: Tensor, view: Any) -> Any:
    positions = torch.arange(len(view.positions))
    return inner(q, k, View(positions, {inner.rotary.name: inner.rotary(positions)}))


def _rotated_keys(inner: Any, q: Tensor, k: Tensor, view: Any) -> Any:
    q, k = inner(q, k, view)
    return q, k * (1 + 0.05 * view.positions[:, None, None]).to(k.dtype)


def _late(inner: Any, q: Tensor, k: Tensor, view: Any) -> Any:
    return inner(q, k, View(view.positions - 1, view.shared))


def _cold(inner: Any, q: Tensor, k: Tensor, view: Any) -> Any:
    return q, k


def _hot_keys(inner: Any, q: Tensor, k: Tensor, view: Any) -> Any:
    q, k = inner(q, k, view)
    return q, q[:, : k.shape[1]] * 0 + k * (1 + 0.1 * (view.positions[:, None, None] > 4))


def _wide(inner: Any, q: Tensor, k: Tensor, view: Any) -> Any:
    return tuple(x.float() for x in inner(q, k, view))


def _never_normed(x: Tensor, eps: float) -> Tensor:
    return x


def _no_variance_floor(x: Tensor, eps: float) -> Tensor:
    return rms_normalise(x, eps / 10)


MUTANTS: tuple[Mutant, ...] = (
    _mutant("absolute positions", "relative-position", variants.full_rope, call=_absolute),
    _mutant("eps 1e-6", "rotation-keeps-norm", variants.full_rope, eps=1e-6),
    _mutant(
        "no QK norm",
        "rotation-keeps-norm",
        variants.irope_chunked,
        planted=patched(variants, "rms_normalise", _never_normed),
    ),
    _mutant("RoPE unscaled", "rotation-law", variants.full_rope, spec=_unscaled),
    _mutant("another original length", "rotation-law", variants.full_rope, spec=_other_length),
    _mutant(
        "half-split RoPE",
        "rotation-law",
        variants.irope_chunked,
        planted=patched(variants, "rotate", _half_split),
    ),
    _mutant(
        "eps a tenth",
        "rotation-law",
        variants.sliding_window,
        planted=patched(variants, "rms_normalise", _no_variance_floor),
    ),
    _mutant("position in the keys", "position-free", variants.NopeGlobal, call=_rotated_keys),
    _mutant("temperature one late", "temperature-law", variants.NopeGlobal, call=_late),
    _mutant("temperature off", "temperature-law", variants.NopeGlobal, call=_cold),
    _mutant("temperature on the keys", "temperature-law", variants.NopeGlobal, call=_hot_keys),
    _mutant(
        "< for <= in the mask",
        "mask-law",
        variants.NopeGlobal,
        fields=lambda spec: {"mask": Shifted(-1)},
    ),
    _mutant(
        "chunk one too large",
        "mask-law",
        variants.irope_chunked,
        fields=lambda spec: {"mask": Causal() & Chunked((spec.chunk or 1) + 1)},
    ),
    _mutant(
        "window one too large",
        "mask-law",
        variants.sliding_window,
        fields=lambda spec: {"mask": Causal() & SlidingWindow((spec.window or 1) + 1)},
    ),
    _mutant(
        "horizon one too late",
        "mask-law",
        variants.sliding_window,
        planted=patched(
            SlidingWindow, "horizon", lambda self, position: max(0, position - self.size + 2)
        ),
    ),
    _mutant(
        "horizon of the next chunk",
        "mask-law",
        variants.irope_chunked,
        planted=patched(
            Chunked, "horizon", lambda self, position: (position + 1) // self.size * self.size
        ),
    ),
    _mutant(
        "sink not declared",
        "declares-score-terms",
        variants.capped_sink,
        fields=lambda spec: {"score_terms": ()},
    ),
    _mutant("gives float32", "dtype-and-strides", variants.full_rope, call=_wide),
    _mutant("position by row", "token-alone", variants.full_rope, call=_by_row),
)
