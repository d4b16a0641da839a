"""Other numbers for the same weights."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import llama4_core as l4
from llama4_core.specs.model import TemperatureSpec
from llama4_train.errors import RecipeError
from llama4_train.respec import as_spec, respec

_SPEC = importlib.util.spec_from_file_location(
    "evaluation_models", Path(__file__).parent / "evaluation" / "conftest.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
models: Any = importlib.util.module_from_spec(_SPEC)
sys.modules["evaluation_models"] = models
_SPEC.loader.exec_module(models)


def fresh(model: Any, spec: Any) -> Any:
    """The same weights, assembled from the beginning."""
    other = l4.assemble(spec, device="cpu")
    other.load_state_dict(model.state_dict())
    return other


@given(
    st.none() | st.integers(1, 20),
    st.none() | st.sampled_from([0.0, 0.1, 2.0]),
    st.none() | st.integers(1, 9),
    st.none() | st.integers(1, 500),
)
def test_only_what_is_asked_changes_and_only_where_it_is(
    chunk: int | None, temperature: float | None, floor: int | None, longest: int | None
) -> None:
    spec = models.spec_of()
    found = respec(spec, chunk=chunk, temperature=temperature, floor=floor, max_positions=longest)
    assert found.max_positions == (longest or 96)
    for old, new in zip(spec.layers, found.layers, strict=True):
        before, after = old.attention, new.attention
        assert after.chunk == (None if before.chunk is None else chunk or 8)
        expected = None
        if before.temperature is not None:
            expected = TemperatureSpec(
                before.temperature.scale if temperature is None else temperature, floor or 4
            )
        assert after.temperature == expected
        assert replace(after, chunk=before.chunk, temperature=before.temperature) == before
        assert new.feed_forward == old.feed_forward
    assert replace(found, layers=spec.layers, max_positions=96) == spec


def test_a_model_without_temperature_gets_one_from_both_numbers() -> None:
    spec = models.spec_of(temperature=None)
    found = respec(spec, temperature=0.1, floor=16)
    positions = [layer.attention.temperature for layer in found.layers]
    assert positions == [None, TemperatureSpec(0.1, 16), None]
    assert respec(spec, temperature=0.0) == spec
    with pytest.raises(RecipeError, match="expected both"):
        respec(spec, floor=16)


def test_nonsense_is_refused() -> None:
    spec = models.spec_of()
    for changes in ({"chunk": 0}, {"chunk": True}, {"floor": -1.0}, {"max_positions": 0}):
        with pytest.raises(RecipeError, match="cannot be changed"):
            respec(spec, **changes)
    full = replace(
        spec, layers=tuple(one for one in spec.layers if one.attention.chunk is not None)
    )
    with pytest.raises(RecipeError, match="no position-free layer"):
        respec(full, temperature=0.1)
    free = replace(spec, layers=(spec.layers[1],))
    with pytest.raises(RecipeError, match="no chunked layer"):
        respec(free, chunk=4)


@given(st.integers(2, 20), st.sampled_from([0.0, 0.7]), st.integers(1, 6), st.integers(0, 99))
def test_a_model_by_another_description_is_that_model(
    chunk: int, scale: float, floor: int, seed: int
) -> None:
    model = models.model_of(seed=1)
    tokens = torch.randint(0, 250, (30,), generator=torch.Generator().manual_seed(seed))
    before = model.logits(tokens)
    spec = respec(model.spec, chunk=chunk, temperature=scale, floor=floor, max_positions=200)
    expected = fresh(model, spec)
    with as_spec(model, spec):
        # The same kernels on the same numbers: bit for bit.
        assert torch.equal(model.logits(tokens), expected.logits(tokens))
        ours = model.generate(tokens[:20].tolist(), max_tokens=6)
        assert ours.tokens == expected.generate(tokens[:20].tolist(), max_tokens=6).tokens
    assert torch.equal(model.logits(tokens), before)
    assert model.spec == models.spec_of()
    assert not torch.equal(expected.logits(tokens), before) or (chunk, scale, floor) == (8, 0.5, 4)


def test_weights_and_modes_stay_and_errors_restore() -> None:
    model = models.model_of()
    names = {name: id(one) for name, one in model.named_parameters()}
    with contextlib.suppress(ZeroDivisionError), as_spec(model, respec(model.spec, chunk=3)):
        assert {name: id(one) for name, one in model.named_parameters()} == names
        assert model.spec.layers[0].attention.chunk == 3
        raise ZeroDivisionError
    assert model.spec == models.spec_of()
    assert (
        model.layers[0].attention.variant.mask == models.model_of().layers[0].attention.variant.mask
    )


def test_other_models_and_variants_of_unknown_make_are_refused() -> None:
    from llama4_core.model.variants import irope_chunked

    model = models.model_of()
    other = replace(model.spec, norm_eps=1e-6)
    with pytest.raises(RecipeError, match="in more than chunk"), as_spec(model, other):
        pass
    strange = l4.assemble(
        models.spec_of(), {"layers.0.attention.variant": irope_chunked}, device="cpu"
    )
    with (
        pytest.raises(RecipeError, match=r"layers\.0\.attention\.variant"),
        as_spec(strange, respec(strange.spec, chunk=3)),
    ):
        pass
