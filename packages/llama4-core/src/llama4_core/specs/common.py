"""What all layers of a Llama 4 share, for formats that write it once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from llama4_core.errors import SpecError
from llama4_core.specs.model import (
    AttentionSpec,
    DenseSpec,
    LayerSpec,
    ModelSpec,
    MoESpec,
    RopeSpec,
    TemperatureSpec,
)


@dataclass(frozen=True)
class CommonLayers:
    """Numbers of the layers, None where no layer has such a part, and who has which part."""

    heads: int
    kv_heads: int
    head_dim: int
    rope: RopeSpec | None
    chunk: int | None
    qk_norm: bool | None
    temperature: TemperatureSpec | None
    moe: MoESpec | None
    dense: DenseSpec | None
    position_free: tuple[int, ...]
    unchunked: tuple[int, ...]
    moe_layers: tuple[int, ...]


def layers_in_common(spec: ModelSpec, file: str) -> CommonLayers:
    """The common numbers of a model that is a Llama 4 as transformers and Meta know it.

    Args:
        spec: the model.
        file: the foreign file that is to be written, for errors.

    Raises:
        SpecError: a layer has a part that those two lack, or layers differ.
    """
    for index, layer in enumerate(spec.layers):
        reason = _foreign_attention(layer.attention) or _foreign_feed_forward(layer)
        if reason:
            raise SpecError(
                f"layer {index} of {spec.name!r} has {reason}; {file} cannot say that: save in the "
                "native format"
            )

    def one(what: str, values: Iterable[Any]) -> Any:
        distinct = list(dict.fromkeys(values))
        if len(distinct) > 1:
            raise SpecError(
                f"the layers of {spec.name!r} differ in {what} ({distinct[0]} and {distinct[1]}); "
                f"{file} has one for all: save in the native format"
            )
        return distinct[0] if distinct else None

    attentions = [layer.attention for layer in spec.layers]
    forwards = [layer.feed_forward for layer in spec.layers]
    rotary = [a for a in attentions if a.rope is not None]
    return CommonLayers(
        heads=one("number of heads", (a.heads for a in attentions)),
        kv_heads=one("number of kv heads", (a.kv_heads for a in attentions)),
        head_dim=one("head dim", (a.head_dim for a in attentions)),
        rope=one("rotary encoding", (a.rope for a in rotary)),
        chunk=one("chunk", (a.chunk for a in rotary if a.chunk is not None)),
        qk_norm=one("QK norm", (a.qk_norm for a in rotary)),
        temperature=one("temperature", (a.temperature for a in attentions if a.rope is None)),
        moe=one("mixture of experts", (f for f in forwards if isinstance(f, MoESpec))),
        dense=one("dense width", (f for f in forwards if isinstance(f, DenseSpec))),
        position_free=_where(a.rope is None for a in attentions),
        unchunked=_where(a.rope is not None and a.chunk is None for a in attentions),
        moe_layers=_where(isinstance(f, MoESpec) for f in forwards),
    )


def _where(flags: Iterable[bool]) -> tuple[int, ...]:
    return tuple(index for index, flag in enumerate(flags) if flag)


def _foreign_feed_forward(layer: LayerSpec) -> str | None:
    moe = layer.feed_forward
    if not isinstance(moe, MoESpec):
        return None
    if moe.router != "sigmoid-top-k":
        return f"router {moe.router!r}"
    if moe.weight_on != "input":
        return f"a router weight on the {moe.weight_on}"
    if moe.shared_width != moe.width:
        return f"shared width {moe.shared_width} beside expert width {moe.width}"
    return None


def _foreign_attention(attention: AttentionSpec) -> str | None:
    rotary = attention.rope is not None
    if not rotary:
        expected = "nope-global"
    else:
        expected = "full-rope" if attention.chunk is None else "irope-chunked"
    if attention.mixer != "softmax":
        return f"mixer {attention.mixer!r}"
    if attention.variant != expected:
        return f"attention variant {attention.variant!r} where {expected!r} was expected"
    if attention.window is not None:
        return f"a window of {attention.window}"
    if attention.soft_cap is not None:
        return f"a soft cap of {attention.soft_cap}"
    if attention.sink:
        return "a learned sink"
    if not rotary and (attention.chunk is not None or attention.qk_norm):
        return "a chunk or QK norm without positions"
    if rotary and attention.temperature is not None:
        return "a temperature together with positions"
    return None
