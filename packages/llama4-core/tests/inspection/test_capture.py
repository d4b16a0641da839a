"""Activations are read and changed by path, and a model forgets that it was watched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import llama4_core as l4
from llama4_core.errors import ContextError, OverrideError
from llama4_core.inspection.capture import activations, capturing
from llama4_core.model.initialise import initialise

from .conftest import small

TOKENS = torch.arange(26).reshape(2, 13) % 40


def hooks(model: nn.Module) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    )


@pytest.mark.parametrize("tied", [False, True])
def test_every_listed_activation_is_captured(build, tied):
    model = build(small(tied))
    logits, values = model.logits(TOKENS, capture=["**"])
    assert set(values) == set(activations(model))
    assert torch.equal(logits, model.logits(TOKENS))
    assert torch.equal(values["logits"].reshape(logits.shape), logits)
    assert all(value.shape[0] == TOKENS.numel() for value in values.values())


def test_values_are_those_of_the_parts(build):
    model = build()
    view_q = "layers.0.attention.variant.q"
    paths = ["embedding", "layers.*", "layers.0.attention*", "layers.0.attention.*", view_q, "norm"]
    _, seen = model.logits(TOKENS[0], capture=paths)
    block = model.layers[0]
    normed = block.attention_norm(seen["embedding"])
    assert torch.equal(seen["layers.0.attention_norm"], normed)
    assert torch.equal(seen["layers.0.attention.q_proj"], block.attention.q_proj(normed))
    assert seen[view_q].shape == (13, 4, 8)
    # the QK norm is the last thing that happens to a local layer's q
    assert torch.allclose(seen[view_q].square().mean(-1), torch.ones(13, 4), atol=1e-3)
    mixed = seen["layers.0.attention.mixed"]
    assert torch.equal(seen["layers.0.attention"], block.attention.o_proj(mixed))
    middle = seen["embedding"] + seen["layers.0.attention"]
    change, _ = block.feed_forward(block.feed_forward_norm(middle), None)
    assert torch.equal(seen["layers.0"], middle + change)
    assert torch.equal(seen["norm"], model.norm(seen["layers.3"]))


def test_values_come_in_the_order_of_the_data(build):
    _, seen = build().logits(TOKENS, capture=["layers.*", "embedding", "norm", "logits"])
    assert list(seen) == ["embedding", *(f"layers.{i}" for i in range(4)), "norm", "logits"]


def test_a_function_replaces_an_activation(build):
    model = build()
    plain, seen = model.logits(TOKENS, capture=["layers.1", "layers.2"])

    def double(value: Any, path: str) -> Any:
        assert path == "layers.1"
        return 2 * value

    changed, after = model.logits(TOKENS, capture={"layers.1": double, "layers.2": None})
    assert torch.equal(after["layers.1"], 2 * seen["layers.1"])
    assert not torch.equal(after["layers.2"], seen["layers.2"])
    assert not torch.equal(changed, plain)
    assert torch.equal(model.logits(TOKENS), plain)


def test_a_function_may_only_look(build):
    model = build()
    sizes = {}

    def look(value: Any, path: str) -> None:
        sizes[path] = value.shape

    logits, _ = model.logits(TOKENS, capture={"layers.*.feed_forward": look})
    assert list(sizes) == [f"layers.{i}.feed_forward" for i in range(4)]
    assert torch.equal(logits, model.logits(TOKENS))


@given(layer=st.integers(0, 3), part=st.sampled_from(
    ["", ".attention", ".attention.mixed", ".attention.variant.q", ".attention.variant.k",
     ".attention.v_proj", ".feed_forward", ".attention_norm", ".feed_forward.up_proj"]
), seed=st.integers(0, 99))  # fmt: skip
def test_patching_is_transplanting(layer, part, seed):
    """What was captured, put back into the same place of the same model, changes nothing; put into
    a run on other tokens from layer 3's output on, it gives the logits of the first."""
    model = l4.assemble(small(), device="cpu")
    initialise(model, seed)
    tokens = torch.randint(0, 40, (9,), generator=torch.Generator().manual_seed(seed))
    path = f"layers.{layer}{part}"
    logits, seen = model.logits(tokens, capture=[path, "layers.3"])
    again, _ = model.logits(tokens, capture={path: lambda value, _: seen[path]})
    assert torch.equal(again, logits)
    moved, _ = model.logits(tokens.flip(0), capture={"layers.3": lambda value, _: seen["layers.3"]})
    assert torch.equal(moved, logits)


def test_gradients_pass_through(build):
    model = build()
    shift = torch.zeros(13, 24, requires_grad=True)
    logits, seen = model.logits(TOKENS[0], capture={"layers.1": lambda value, _: value + shift})
    logits.square().sum().backward()
    assert shift.grad.abs().sum() > 0
    assert seen["layers.1"].requires_grad


def test_a_context_of_ones_own(build):
    model = build()
    alone = [model.logits(row, capture=["layers.2.attention"]).values for row in TOKENS]
    with capturing(model, ["layers.2.attention"]) as record:
        model(TOKENS.reshape(-1), model.packed([13, 13]))
    parts = torch.cat([values["layers.2.attention"] for values in alone])
    # packing computes other shapes: a few units in the last place
    assert torch.allclose(record.values["layers.2.attention"], parts, atol=1e-5)


def test_no_hook_is_left(build):
    model = build()
    model.logits(TOKENS, capture=["**"])
    assert hooks(model) == 0

    def fail(value: Any, path: str) -> Any:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        model.logits(TOKENS, capture={"**": fail})
    assert hooks(model) == 0
    with pytest.raises(OverrideError):
        model.logits(TOKENS, capture=["layers.*", "nothing"])
    assert hooks(model) == 0


@pytest.mark.parametrize(
    ("capture", "error", "says"),
    [
        (["layers.*.atention"], OverrideError, r"'layers\.\*\.atention'.*layers\.\*\.attention"),
        (["layers.9"], OverrideError, "layers are 0 to 3"),
        ("layers.0", ContextError, r"\['layers.0'\]"),
        ({"layers.0": lambda v, p: v[1:]}, ContextError, r"expected \[26, 24\]"),
        ({"layers.0": lambda v, p: 0}, ContextError, "or None"),
        ({"layers.0": lambda v, p: v.double()}, ContextError, "expected .* torch.float32"),
        (
            {"layers.*": lambda v, p: None, "layers.0": lambda v, p: None},
            OverrideError,
            "both address layers.0",
        ),
    ],
)
def test_what_cannot_be_captured_is_said(build, capture, error, says):
    with pytest.raises(error, match=says):
        build().logits(TOKENS, capture=capture)


def test_a_module_that_serves_two_layers_is_refused(build):
    model = build()
    model.layers[1].feed_forward = model.layers[0].feed_forward
    with pytest.raises(ContextError, match="computed twice"):
        model.logits(TOKENS, capture=["layers.0.feed_forward"])


def test_a_function_that_never_runs_is_an_error(build):
    model = build()
    model.spare = nn.Linear(2, 2)
    with pytest.raises(ContextError, match="spare was not computed"):
        model.logits(TOKENS, capture={"spare": lambda value, path: value})
