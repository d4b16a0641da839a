"""The description of a model: a tree of small frozen dataclasses, layers written out one by one.

No architectural number has a hidden default. Every class validates itself; errors say what was got,
what was expected and what to do.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeGuard

from llama4_core.errors import SpecError

LLAMA4_ENCODER = "llama4"
"""The component of the socket encoders that the published formats have names for."""

LLAMA4_ADAPTER = "pixel-shuffle-mlp"
"""And of the socket adapters."""


@dataclass(frozen=True)
class RopeScaling:
    """Llama-3-style scaling of rotary frequencies.

    With wavelength ``w = 2 pi / f``: below ``original_length / high_frequency_factor`` unchanged,
    above ``original_length / low_frequency_factor`` divided by ``factor``, interpolated between.
    With equal factors (Scout: both 1) this is a step.
    """

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_length: int

    def __post_init__(self) -> None:
        _above("RopeScaling.factor", self.factor, 0)
        _above("RopeScaling.low_frequency_factor", self.low_frequency_factor, 0)
        _above("RopeScaling.high_frequency_factor", self.high_frequency_factor, 0)
        _count("RopeScaling.original_length", self.original_length)
        if self.high_frequency_factor < self.low_frequency_factor:
            raise SpecError(
                f"RopeScaling.high_frequency_factor is {self.high_frequency_factor}; expected at "
                f"least low_frequency_factor, {self.low_frequency_factor}"
            )


@dataclass(frozen=True)
class RopeSpec:
    """Rotary position encoding, interleaved pairs: ``f_j = theta ** (-2 j / K)``."""

    theta: float
    scaling: RopeScaling | None = None

    def __post_init__(self) -> None:
        _above("RopeSpec.theta", self.theta, 0)


@dataclass(frozen=True)
class TemperatureSpec:
    """Attention temperature of position-free layers.

    ``q *= 1 + scale * ln(floor((position + 1) / floor) + 1)``, position counted from 0 within the
    document.
    """

    scale: float
    floor: float

    def __post_init__(self) -> None:
        _number("TemperatureSpec.scale", self.scale)
        _above("TemperatureSpec.floor", self.floor, 0)


@dataclass(frozen=True)
class AttentionSpec:
    """The token mixer of one layer.

    Attributes:
        variant: name in the socket attention_variants.
        heads, kv_heads, head_dim: H, G (divides H), K (even).
        rope: rotary encoding, or None.
        chunk: size of the blocks of a chunked variant, or None.
        window: size of a sliding window, or None.
        qk_norm: weightless RMS norm of q and k per head.
        temperature: or None.
        soft_cap: cap of the scores, or None.
        sink: a learned sink logit per head.
        mixer: name in the socket mixers; "softmax" is attention as above.
    """

    variant: str
    heads: int
    kv_heads: int
    head_dim: int
    rope: RopeSpec | None = None
    chunk: int | None = None
    window: int | None = None
    qk_norm: bool = False
    temperature: TemperatureSpec | None = None
    soft_cap: float | None = None
    sink: bool = False
    mixer: str = "softmax"

    def __post_init__(self) -> None:
        for name in ("heads", "kv_heads", "head_dim"):
            _count(f"AttentionSpec.{name}", getattr(self, name))
        if self.heads % self.kv_heads:
            raise SpecError(
                f"AttentionSpec.heads is {self.heads}, not a multiple of kv_heads {self.kv_heads}; "
                "choose kv_heads that divides heads"
            )
        if self.rope is not None and self.head_dim % 2:
            raise SpecError(
                f"AttentionSpec.head_dim is {self.head_dim}; rotary encoding needs an even number"
            )
        for name in ("chunk", "window"):
            if getattr(self, name) is not None:
                _count(f"AttentionSpec.{name}", getattr(self, name))
        if self.soft_cap is not None:
            _above("AttentionSpec.soft_cap", self.soft_cap, 0)


@dataclass(frozen=True)
class DenseSpec:
    """A dense SwiGLU feed-forward of width F."""

    width: int
    kind: str = "dense"

    def __post_init__(self) -> None:
        _count("DenseSpec.width", self.width)


@dataclass(frozen=True)
class MoESpec:
    """A mixture of SwiGLU experts with an always-used shared expert.

    Attributes:
        experts, top_k: E, and routed experts per token.
        width: of a routed expert, F.
        shared_width: of the shared expert; 0 for none.
        router: name in the socket routers.
        weight_on: "input" (Llama 4) or "output".
    """

    experts: int
    top_k: int
    width: int
    shared_width: int
    router: str
    weight_on: str = "input"
    kind: str = "moe"

    def __post_init__(self) -> None:
        for name in ("experts", "top_k", "width"):
            _count(f"MoESpec.{name}", getattr(self, name))
        if self.top_k > self.experts:
            raise SpecError(
                f"MoESpec.top_k is {self.top_k}; expected at most the number of experts, "
                f"{self.experts}"
            )
        if not isinstance(self.shared_width, int) or self.shared_width < 0:
            raise SpecError(
                f"MoESpec.shared_width is {self.shared_width!r}; expected 0 (none) or a width"
            )
        if self.weight_on not in ("input", "output"):
            raise SpecError(
                f"MoESpec.weight_on is {self.weight_on!r}; expected 'input' or 'output'"
            )


@dataclass(frozen=True)
class LayerSpec:
    """One block: how tokens meet, and what is done to each alone."""

    attention: AttentionSpec
    feed_forward: DenseSpec | MoESpec


@dataclass(frozen=True)
class VisionSpec:
    """The vision encoder, its adapter and its projection into the text model.

    Kept by core for configuration, accounting and key tables; the modules live in llama4-vision.

    Attributes:
        width, layers, heads, mlp_width: of the encoder.
        image_size, patch_size: in pixels; square.
        channels: of the image.
        shuffle_ratio: pixel shuffle, e.g. 0.5 (2 x 2 patches become one token).
        adapter_width, adapter_output: of the adapter's two linear layers.
        theta: base of the two-dimensional rotary encoding.
        norm_eps: of the encoder's layer norms.
        encoder: name in the socket encoders; the numbers above are those of "llama4", and another
            encoder takes those that it knows.
        adapter: name in the socket adapters.
        extra: configuration values without an architectural meaning here, kept for writing back.
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    image_size: int
    patch_size: int
    channels: int
    shuffle_ratio: float
    adapter_width: int
    adapter_output: int
    theta: float
    norm_eps: float
    encoder: str = LLAMA4_ENCODER
    adapter: str = LLAMA4_ADAPTER
    extra: Mapping[str, object] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for name in (
            "width", "layers", "heads", "mlp_width", "image_size", "patch_size", "channels",
            "adapter_width", "adapter_output",
        ):  # fmt: skip
            _count(f"VisionSpec.{name}", getattr(self, name))
        for name in ("shuffle_ratio", "theta", "norm_eps"):
            _above(f"VisionSpec.{name}", getattr(self, name), 0)
        for name in ("encoder", "adapter"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise SpecError(f"VisionSpec.{name} is {value!r}; expected the name of a component")
        if self.image_size % self.patch_size:
            raise SpecError(
                f"VisionSpec.image_size is {self.image_size}, not a multiple of patch_size "
                f"{self.patch_size}"
            )

    @property
    def encoder_parameters(self) -> int | None:
        """Of the encoder; None where only the component knows."""
        if self.encoder != LLAMA4_ENCODER:
            return None
        patches = (self.image_size // self.patch_size) ** 2
        d, f = self.width, self.mlp_width
        block = 4 * (d * d + d) + (d * f + f) + (f * d + d) + 4 * d
        stem = self.channels * self.patch_size**2 * d + d + (patches + 1) * d + 4 * d
        return stem + self.layers * block

    @property
    def adapter_parameters(self) -> int | None:
        """Of the adapter, without the projection behind it; None where only the component knows."""
        if self.adapter != LLAMA4_ADAPTER:
            return None
        shuffled = round(self.width / self.shuffle_ratio**2)
        return shuffled * self.adapter_width + self.adapter_width * self.adapter_output

    @property
    def foreign_parts(self) -> tuple[tuple[str, str], ...]:
        """The slots that hold another part than Llama 4's, with its name."""
        parts = (
            ("encoder", self.encoder, LLAMA4_ENCODER),
            ("adapter", self.adapter, LLAMA4_ADAPTER),
        )
        return tuple((slot, got) for slot, got, own in parts if got != own)


@dataclass(frozen=True)
class TokenIds:
    """Token ids with a meaning to the model, or None where the checkpoint names none."""

    bos: int | None = None
    eos: tuple[int, ...] = ()
    pad: int | None = None
    image: int | None = None
    image_start: int | None = None
    image_end: int | None = None


@dataclass(frozen=True)
class ModelSpec:
    """A whole model.

    Attributes:
        name: for people.
        vocabulary: V.
        width: D.
        norm_eps: of every RMS norm of the text model.
        max_positions: longest context that the checkpoint claims.
        tied: the output head shares the embedding.
        layers: first to last.
        vision: None for text-only models.
        tokens: ids with a meaning.
        dtype: what the checkpoint stores, e.g. "bfloat16".
        illustrative: the numbers are not published; a plausible shape.
        source: configuration keys without an architectural meaning here, kept for writing back.
    """

    name: str
    vocabulary: int
    width: int
    norm_eps: float
    max_positions: int
    tied: bool
    layers: tuple[LayerSpec, ...]
    vision: VisionSpec | None = None
    tokens: TokenIds = TokenIds()
    dtype: str = "bfloat16"
    illustrative: bool = False
    source: Mapping[str, object] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for name in ("vocabulary", "width", "max_positions"):
            _count(f"ModelSpec.{name}", getattr(self, name))
        _above("ModelSpec.norm_eps", self.norm_eps, 0)
        if not self.layers:
            raise SpecError("ModelSpec.layers is empty; expected at least one LayerSpec")

    def text_only(self) -> ModelSpec:
        """The same model without its eyes, and without the token ids that only they need."""
        tokens = replace(self.tokens, image=None, image_start=None, image_end=None)
        return replace(self, vision=None, tokens=tokens)


def _count(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SpecError(f"{name} is {value!r}; expected a whole number of at least 1")


def _above(name: str, value: object, bound: float) -> None:
    if not is_number(value) or not value > bound:
        raise SpecError(f"{name} is {value!r}; expected a number above {bound}")


def _number(name: str, value: object) -> None:
    if not is_number(value):
        raise SpecError(f"{name} is {value!r}; expected a finite number")


def is_number(value: object) -> TypeGuard[float]:
    """Whether ``value`` is a number that a float can hold: neither NaN, infinite nor a bool."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max  # also right for whole numbers of any length
