"""The arithmetic of sizes equals what an assembly on the meta device holds."""

from dataclasses import replace

import pytest

from llama4_core.assembly.assemble import assemble
from llama4_core.specs.accounting import account
from llama4_core.specs.presets import PRESETS, preset

pytest.importorskip("llama4_moe")


def numbers(model, part=""):
    return sum(p.numel() for name, p in model.named_parameters() if part in name)


@pytest.mark.parametrize("name", PRESETS)
def test_totals_equal_a_meta_assembly(name):
    spec = preset(f"{name}-text")
    model, costs = assemble(spec), account(spec)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert numbers(model) == costs.total == costs.text
    assert numbers(model, "feed_forward.experts.") == costs.parts["routed_experts"]
    assert numbers(model, "shared_expert.") == costs.parts["shared_experts"]
    assert numbers(model, "router.") == costs.parts["router"]
    assert numbers(model, "norm.") == costs.parts["norms"]
    assert numbers(model, ".attention.") == costs.parts["attention"]
    idle = sum(
        layer.feed_forward.experts.gate_up_proj[0].numel() * (moe.experts - moe.top_k)
        + layer.feed_forward.experts.down_proj[0].numel() * (moe.experts - moe.top_k)
        for layer, described in zip(model.layers, spec.layers, strict=True)
        if (moe := described.feed_forward).kind == "moe"
    )
    assert numbers(model) - idle == costs.active


@pytest.mark.parametrize("name", ["scout", "maverick", "guard", "small"])
def test_caches_equal_the_state_of_assembled_layers(name):
    spec = preset(f"{name}-text")
    states = [layer.attention.state_spec for layer in assemble(spec).layers]
    for entry in account(spec).cache:
        assert 2 * sum(state.elements(entry.length) for state in states) == entry.bounded
        full = 2 * sum(state.elements(entry.length, bounded=False) for state in states)
        assert full == entry.full


@pytest.mark.parametrize(("name", "billions"), [("scout", 108.642), ("maverick", 401.584)])
def test_totals_with_eyes_equal_a_meta_assembly(name, billions):
    """The published totals, counted in what would run."""
    pytest.importorskip("llama4_vision")
    spec = preset(name)
    model, costs = assemble(spec), account(spec)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert numbers(model) == costs.total
    assert numbers(model, "vision.encoder.") == costs.parts["vision_encoder"]
    assert numbers(model, "vision.adapter.") == costs.parts["vision_adapter"]
    assert numbers(model, "vision.projector.") == costs.parts["vision_projector"]
    assert round(numbers(model) / 1e9, 3) == billions


@pytest.mark.parametrize("parts", [{"encoder": "siglip"}, {"adapter": "pooled-linear"}])
def test_what_is_not_counted_is_what_an_assembly_has_more(parts):
    """Of other eyes the component alone knows: the arithmetic says so, and is right beside them."""
    pytest.importorskip("llama4_vision")
    spec = preset("scout")
    spec = replace(spec, vision=replace(spec.vision, **parts))
    model, costs = assemble(spec), account(spec)
    left = {name.split()[0].replace("_", ".") for name in costs.unknown}
    assert left == (
        {"vision.encoder"} if "encoder" in parts else {"vision.adapter", "vision.projector"}
    )
    assert numbers(model) - sum(numbers(model, f"{name}.") for name in left) == costs.total
