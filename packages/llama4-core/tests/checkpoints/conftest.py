"""A small dense model of our own, with weights: what core can hold without its siblings."""

import pytest

from llama4_core.assembly.assemble import assemble
from llama4_core.model.initialise import initialise
from llama4_core.specs import (
    AttentionSpec,
    DenseSpec,
    LayerSpec,
    ModelSpec,
    RopeSpec,
    TemperatureSpec,
    TokenIds,
)


def dense_spec(**changes):
    rope = RopeSpec(1e4)
    local = AttentionSpec("irope-chunked", 4, 2, 8, rope=rope, chunk=8, qk_norm=True)
    wide = AttentionSpec("nope-global", 4, 2, 8, temperature=TemperatureSpec(0.1, 4.0))
    values = {
        "name": "small",
        "vocabulary": 40,
        "width": 32,
        "norm_eps": 1e-5,
        "max_positions": 64,
        "tied": False,
        "layers": tuple(LayerSpec(a, DenseSpec(48)) for a in (local, local, local, wide)),
        "tokens": TokenIds(bos=1, eos=(2,)),
        "dtype": "float32",
    }
    return ModelSpec(**{**values, **changes})


def with_weights(spec, seed=0):
    model = assemble(spec, device="cpu")
    initialise(model, seed)
    return model


@pytest.fixture(scope="session")
def model():
    return with_weights(dense_spec())


@pytest.fixture(scope="session")
def build():
    """``build(**changes of the spec)``: another model of the same make."""
    return lambda **changes: with_weights(dense_spec(**changes))
