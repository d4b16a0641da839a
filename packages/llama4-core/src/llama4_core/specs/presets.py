"""Shapes by name: the published Llama 4 models, and small complete ones to train.

A preset is a shape, not weights. Numbers of Scout and Maverick are those of the public reference
code and configuration files. What is not published is inferred and marked ``illustrative``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from llama4_core.errors import SpecError
from llama4_core.specs.layers import every, llama4_layers
from llama4_core.specs.model import (
    DenseSpec,
    ModelSpec,
    MoESpec,
    RopeScaling,
    RopeSpec,
    TemperatureSpec,
    TokenIds,
    VisionSpec,
)
from llama4_core.specs.suggest import nearest

_TEXT = "-text"

_VOCABULARY = 202_048
_TEXT_TOKENS = TokenIds(bos=200_000, eos=(200_001, 200_007, 200_008), pad=200_018)
_TOKENS = replace(
    _TEXT_TOKENS,
    image=200_092,  # the patch token: where image features go
    image_start=200_080,
    image_end=200_081,
)
_TEMPERATURE = TemperatureSpec(scale=0.1, floor=8192)
_VISION = VisionSpec(
    width=1408,
    layers=34,
    heads=16,
    mlp_width=5632,
    image_size=336,
    patch_size=14,
    channels=3,
    shuffle_ratio=0.5,
    adapter_width=4096,
    adapter_output=4096,
    theta=10_000.0,
    norm_eps=1e-5,
)


def scout() -> ModelSpec:
    """Llama 4 Scout, 17B active of 109B: 16 experts in every layer, scaled rotary encoding."""
    scaling = RopeScaling(
        factor=16.0, low_frequency_factor=1.0, high_frequency_factor=1.0, original_length=8192
    )
    return _published(
        "scout",
        max_positions=10_485_760,
        rope=RopeSpec(500_000.0, scaling),
        qk_norm=True,
        experts=16,
        moe_step=1,
    )


def maverick() -> ModelSpec:
    """Llama 4 Maverick, 17B active of 402B: 128 experts in every second layer, no QK norm."""
    return _published(
        "maverick",
        max_positions=1_048_576,
        rope=RopeSpec(500_000.0),
        qk_norm=False,
        experts=128,
        moe_step=2,
    )


def guard() -> ModelSpec:
    """The shape of Llama Guard 4 (12B): dense, every layer rotary and unchunked.

    Its dimensions are not public; these are Scout's with the routed experts taken away, which gives
    the published 12B. Marked illustrative: read the real numbers from the checkpoint.
    """
    return ModelSpec(
        name="guard",
        vocabulary=_VOCABULARY,
        width=5120,
        norm_eps=1e-5,
        max_positions=8192,
        tied=False,
        layers=llama4_layers(
            48,
            heads=40,
            kv_heads=8,
            head_dim=128,
            rope=RopeSpec(500_000.0),
            chunk=None,
            qk_norm=False,
            temperature=None,
            position_free=(),
            moe_layers=(),
            moe=None,
            dense=DenseSpec(8192),
        ),
        vision=_VISION,
        tokens=_TOKENS,
        illustrative=True,
    )


def behemoth() -> ModelSpec:
    """A text model with the three public numbers of Llama 4 Behemoth.

    Public are 288B active, about 2T in total and 16 experts. The layout follows Scout's rule
    (experts in every layer, expert width about 1.6 D); others fit the three numbers as well, so it
    is marked illustrative. No encoder is assumed.
    """
    width, expert = 16_384, 26_624
    return ModelSpec(
        name="behemoth",
        vocabulary=_VOCABULARY,
        width=width,
        norm_eps=1e-5,
        max_positions=262_144,
        tied=False,
        layers=llama4_layers(
            88,
            heads=width // 128,
            kv_heads=8,
            head_dim=128,
            rope=RopeSpec(500_000.0),
            chunk=8192,
            qk_norm=True,
            temperature=_TEMPERATURE,
            position_free=every(4, 88),
            moe_layers=every(1, 88),
            moe=_moe(16, expert),
            dense=None,
        ),
        tokens=_TEXT_TOKENS,
        illustrative=True,
    )


def nano() -> ModelSpec:
    """A complete text-only Llama 4 of about 30M parameters: trains on a laptop CPU."""
    return _small(
        "nano", vocabulary=8192, width=384, layers=8, heads=6, kv_heads=2, experts=4, expert=512,
        chunk=256,
    )  # fmt: skip


def mini() -> ModelSpec:
    """A complete text-only Llama 4 of about 150M parameters: trains on one small GPU."""
    return _small(
        "mini", vocabulary=16_384, width=640, layers=12, heads=10, kv_heads=2, experts=4,
        expert=1024, chunk=512,
    )  # fmt: skip


def small() -> ModelSpec:
    """A complete text-only Llama 4 of about 500M parameters: trains on one GPU."""
    return _small(
        "small", vocabulary=32_768, width=1024, layers=16, heads=16, kv_heads=4, experts=8,
        expert=896, chunk=1024,
    )  # fmt: skip


PRESETS: dict[str, Callable[[], ModelSpec]] = {
    "scout": scout,
    "maverick": maverick,
    "guard": guard,
    "behemoth": behemoth,
    "nano": nano,
    "mini": mini,
    "small": small,
}


def preset(name: str) -> ModelSpec:
    """The shape called ``name``; ``<name>-text`` is the same without vision.

    Raises:
        SpecError: no preset has that name; the nearest is suggested.
    """
    build = PRESETS.get(name.removesuffix(_TEXT))
    if build is None:
        raise SpecError(
            f"no model shape is called {name!r}{nearest(name, PRESETS)}; known are "
            f"{', '.join(PRESETS)}, each also with {_TEXT!r} for its text model alone"
        )
    spec = build()
    return replace(spec.text_only(), name=name) if name.endswith(_TEXT) else spec


def _moe(experts: int, width: int) -> MoESpec:
    return MoESpec(experts, top_k=1, width=width, shared_width=width, router="sigmoid-top-k")


def _published(
    name: str, *, max_positions: int, rope: RopeSpec, qk_norm: bool, experts: int, moe_step: int
) -> ModelSpec:
    """What Scout and Maverick share, with the context lengths of the instruct models."""
    return ModelSpec(
        name=name,
        vocabulary=_VOCABULARY,
        width=5120,
        norm_eps=1e-5,
        max_positions=max_positions,
        tied=False,
        layers=llama4_layers(
            48,
            heads=40,
            kv_heads=8,
            head_dim=128,
            rope=rope,
            chunk=8192,
            qk_norm=qk_norm,
            temperature=_TEMPERATURE,
            position_free=every(4, 48),
            moe_layers=every(moe_step, 48),
            moe=_moe(experts, 8192),
            dense=DenseSpec(16_384),
        ),
        vision=_VISION,
        tokens=_TOKENS,
    )


def _small(
    name: str,
    *,
    vocabulary: int,
    width: int,
    layers: int,
    heads: int,
    kv_heads: int,
    experts: int,
    expert: int,
    chunk: int,
) -> ModelSpec:
    """Scout's pattern at a small size; the temperature starts after one chunk, as in Scout.

    The contexts claimed are 16 chunks, so that the position-free layers have something to do.
    """
    return ModelSpec(
        name=name,
        vocabulary=vocabulary,
        width=width,
        norm_eps=1e-5,
        max_positions=16 * chunk,
        tied=False,
        layers=llama4_layers(
            layers,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=64,
            rope=RopeSpec(500_000.0),
            chunk=chunk,
            qk_norm=True,
            temperature=TemperatureSpec(scale=0.1, floor=chunk),
            position_free=every(4, layers),
            moe_layers=every(1, layers),
            moe=_moe(experts, expert),
            dense=None,
        ),
        dtype="float32",
    )
