"""A small model with a tokenizer, written once into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import llama4_core as l4
from llama4_core.model.initialise import initialise
from llama4_core.specs.layers import every, llama4_layers
from llama4_core.specs.model import (
    DenseSpec,
    ModelSpec,
    MoESpec,
    RopeSpec,
    TemperatureSpec,
    TokenIds,
)
from llama4_core.testing.modality_cases import tokenizer
from llama4_core.tokenizers.sample import sample_ranks


def spec_of(**changes: Any) -> ModelSpec:
    """Three layers: chunked and position-free, with experts and without."""
    layers = llama4_layers(
        3,
        heads=2,
        kv_heads=1,
        head_dim=8,
        rope=RopeSpec(10_000.0),
        chunk=8,
        qk_norm=True,
        temperature=changes.pop("temperature", TemperatureSpec(scale=0.5, floor=4)),
        position_free=every(2, 3),
        moe_layers=(0, 2),
        moe=MoESpec(4, top_k=1, width=12, shared_width=12, router="sigmoid-top-k"),
        dense=DenseSpec(24),
    )
    values: dict[str, Any] = {
        "name": "tiny-for-tests",
        "vocabulary": tokenizer().vocabulary,
        "width": 16,
        "norm_eps": 1e-5,
        "max_positions": 96,
        "tied": False,
        "layers": layers,
        "tokens": TokenIds(bos=tokenizer().bos),
        "dtype": "float32",
    }
    return ModelSpec(**{**values, **changes})


def model_of(seed: int = 0, **changes: Any) -> Any:
    model = l4.assemble(spec_of(**changes), device="cpu")
    initialise(model, seed)
    with torch.no_grad():
        # Special tokens have no text: without this hardly a reply would have any.
        model.head.weight[len(sample_ranks()) :] = 0
    model.tokenizer = tokenizer()
    return model


@pytest.fixture(scope="session")
def model() -> Any:
    return model_of()


@pytest.fixture(scope="session")
def make() -> Any:
    return model_of


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as a checkpoint with its tokenizer."""
    from llama4_core.tokenizers.ranks import write_ranks

    place = tmp_path_factory.mktemp("models") / "tiny"
    l4.save(model_of(), place)
    write_ranks(sample_ranks(), place / "tokenizer.model")
    return place
