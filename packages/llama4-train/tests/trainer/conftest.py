"""A run small enough to be taken many times."""

from __future__ import annotations

import pytest

from llama4_core.specs.layers import every, llama4_layers
from llama4_core.specs.model import (
    DenseSpec,
    ModelSpec,
    MoESpec,
    RopeSpec,
    TemperatureSpec,
    TokenIds,
)
from llama4_core.specs.toml import write_toml
from llama4_train.recipe import Recipe
from llama4_train.tokenizer_training.train import train_tokenizer
from llama4_train.worlds import world

VOCABULARY = 320


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A recipe of a few steps on sums, with a model and a tokenizer in files."""
    place = tmp_path_factory.mktemp("run")
    sums = world("arithmetic")
    train_tokenizer(
        (piece.part.text for i in range(50) for piece in sums.sample(i).record.pieces),
        place / "tokenizer",
        vocabulary=VOCABULARY,
        specials="small",
    )
    spec = ModelSpec(
        name="tiny-for-tests",
        vocabulary=VOCABULARY,
        width=16,
        norm_eps=1e-5,
        max_positions=256,
        tied=False,
        layers=llama4_layers(
            4,
            heads=2,
            kv_heads=1,
            head_dim=8,
            rope=RopeSpec(10_000.0),
            chunk=8,
            qk_norm=True,
            temperature=TemperatureSpec(scale=0.1, floor=4),
            position_free=every(2, 4),
            moe_layers=every(2, 4),
            moe=MoESpec(4, top_k=1, width=12, shared_width=12, router="sigmoid-top-k-balanced"),
            dense=DenseSpec(24),
        ),
        tokens=TokenIds(bos=305),
        dtype="float32",
    )
    write_toml(spec, place / "spec.toml")
    return Recipe.of(
        {
            "name": "sums",
            "steps": 4,
            "model": {"start": str(place / "spec.toml"), "tokenizer": str(place / "tokenizer")},
            "data": {
                "length": 64,
                "tokens": 128,
                "sources": [{"name": "worlds", "settings": {"world": "arithmetic"}}],
            },
            "optimizer": {"name": "adamw", "settings": {"lr": 0.01}},
            "schedule": {"warmup": 1},
        }
    )
