"""Pairs of models, ours loaded from the checkpoint that transformers wrote; built once per case."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tests.parity.oracle import CASES, oracle, saved

import llama4_core as l4


class Pair(NamedTuple):
    """The oracle and our model of the same checkpoint."""

    theirs: Any
    ours: Any


@pytest.fixture(scope="session")
def pair_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``pair_of(name, **overrides)``: the models of a named case."""

    @cache
    def folder(name: str) -> tuple[Any, Path]:
        theirs = oracle(CASES[name])
        return theirs, saved(theirs, tmp_path_factory.mktemp("parity") / name)

    def build(name: str, **overrides: Any) -> Pair:
        theirs, path = folder(name)
        return Pair(theirs, l4.load(path, overrides=overrides.get("overrides", {})))

    return build


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.inference_mode():
        yield
