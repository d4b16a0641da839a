"""A small dense model with both kinds of attention layers."""

from collections.abc import Callable
from typing import Any

import pytest

import llama4_core as l4
from llama4_core.model.initialise import initialise
from llama4_core.specs import AttentionSpec, DenseSpec, LayerSpec, ModelSpec
from llama4_core.specs.model import RopeSpec, TemperatureSpec


def attention(local: bool) -> AttentionSpec:
    shape = {"heads": 4, "kv_heads": 2, "head_dim": 8}
    if local:
        rope = RopeSpec(theta=10000.0)
        return AttentionSpec("irope-chunked", **shape, rope=rope, chunk=4, qk_norm=True)
    return AttentionSpec("nope-global", **shape, temperature=TemperatureSpec(0.1, 4))


def small(tied: bool = False) -> ModelSpec:
    return ModelSpec(
        name="small",
        vocabulary=40,
        width=24,
        norm_eps=1e-5,
        max_positions=1000,
        tied=tied,
        layers=tuple(LayerSpec(attention(index != 2), DenseSpec(32)) for index in range(4)),
        dtype="float32",
    )


@pytest.fixture
def build() -> Callable[..., Any]:
    """``build(spec=small(), seed=0, **settings of assemble)``: a model with random weights."""

    def make(spec: ModelSpec | None = None, seed: int = 0, **settings: Any) -> Any:
        model = l4.assemble(spec or small(), device="cpu", **settings)
        initialise(model, seed)
        return model

    return make
