"""The key tables are total and one to one, whatever the model; disagreements are named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.checkpoints.keys import (
    CONDITIONAL,
    NAMINGS,
    check_keys,
    huggingface_rows,
    naming_of,
    native_shapes,
)
from llama4_core.errors import CheckpointError
from llama4_core.specs import (
    AttentionSpec,
    DenseSpec,
    LayerSpec,
    ModelSpec,
    MoESpec,
    RopeSpec,
    VisionSpec,
)

SMALL = st.integers(1, 4)


@st.composite
def layers(draw):
    kv_heads = draw(SMALL)
    attention = AttentionSpec(
        variant="full-rope",
        heads=kv_heads * draw(SMALL),
        kv_heads=kv_heads,
        head_dim=2 * draw(SMALL),
        rope=RopeSpec(1e4),
    )
    if draw(st.booleans()):
        return LayerSpec(attention, DenseSpec(draw(SMALL)))
    experts = draw(SMALL)
    top_k = draw(st.integers(1, experts))
    shared = draw(st.integers(0, 3))
    return LayerSpec(attention, MoESpec(experts, top_k, draw(SMALL), shared, "sigmoid-top-k"))


def vision_spec(layer_count, heads, adapter):
    return VisionSpec(
        width=8 * heads,
        layers=layer_count,
        heads=heads,
        mlp_width=12,
        image_size=28,
        patch_size=14,
        channels=3,
        shuffle_ratio=0.5,
        adapter_width=adapter,
        adapter_output=adapter,
        theta=1e4,
        norm_eps=1e-5,
    )


SPECS = st.builds(
    ModelSpec,
    name=st.just("drawn"),
    vocabulary=st.integers(1, 9),
    width=st.integers(1, 9),
    norm_eps=st.just(1e-5),
    max_positions=st.just(64),
    tied=st.booleans(),
    layers=st.lists(layers(), min_size=1, max_size=5).map(tuple),
    vision=st.none() | st.builds(vision_spec, SMALL, SMALL, SMALL),
)


def parameters(spec):
    """Counted from the description alone, part by part."""
    D = spec.width
    total = spec.vocabulary * D * (1 if spec.tied else 2) + D
    for layer in spec.layers:
        a, f = layer.attention, layer.feed_forward
        total += 2 * D * a.head_dim * (a.heads + a.kv_heads) + 2 * D
        if isinstance(f, MoESpec):
            total += f.experts * D + 3 * D * (f.experts * f.width + f.shared_width)
        else:
            total += 3 * D * f.width
    if spec.vision is not None:
        total += (
            spec.vision.encoder_parameters
            + spec.vision.adapter_parameters
            + D * spec.vision.adapter_output
        )
    return total


def product(shape):
    total = 1
    for size in shape:
        total *= size
    return total


@given(spec=SPECS, naming=st.sampled_from(NAMINGS))
def test_tables_are_total_and_one_to_one(spec, naming):
    rows = huggingface_rows(spec, naming)
    assert len({row.ours for row in rows}) == len(rows)
    assert len({row.theirs for row in rows}) == len(rows)
    assert sum(product(row.shape) for row in rows) == parameters(spec)
    assert {row.ours: row.shape for row in rows} == native_shapes(spec)
    assert all(product(row.shape) == product(row.their_shape) for row in rows)
    assert all(row.transposed == (".experts." in row.ours) for row in rows)


@given(spec=SPECS, naming=st.sampled_from(NAMINGS))
def test_the_naming_is_recognised_by_its_keys(spec, naming):
    assert naming_of([row.theirs for row in huggingface_rows(spec, naming)]) == naming


def spec_with(**attention):
    base = {"variant": "capped-sink", "heads": 2, "kv_heads": 1, "head_dim": 4}
    layer = LayerSpec(AttentionSpec(**{**base, **attention}), DenseSpec(3))
    return ModelSpec("drawn", 8, 4, 1e-5, 64, False, (layer,))


def test_a_sink_has_a_native_name_only():
    spec = spec_with(sink=True)
    assert native_shapes(spec)["layers.0.attention.variant.sink"] == (2,)
    with pytest.raises(CheckpointError, match=r"layers.0.attention has a learned sink.*native"):
        huggingface_rows(spec, CONDITIONAL)


def test_a_mixer_of_its_own_has_no_foreign_name():
    spec = spec_with(mixer="gated-linear")
    assert not any(name.startswith("layers.0.attention.") for name in native_shapes(spec))
    assert "layers.0.attention_norm.weight" in native_shapes(spec)
    with pytest.raises(CheckpointError, match=r"mixer 'gated-linear'"):
        huggingface_rows(spec, CONDITIONAL)


def test_disagreements_are_named_up_to_five_with_the_nearest():
    expected = {f"layers.{i}.norm.weight": (4,) for i in range(8)} | {"head.weight": (3, 4)}
    got = {"head.weight": (4, 3), "layers.0.norm.weigth": (4,)}
    with pytest.raises(CheckpointError) as caught:
        check_keys(got, expected, "folder")
    message = str(caught.value)
    assert message.startswith("folder: ")
    assert "8 missing: layers.0.norm.weight, layers.1.norm.weight" in message
    assert "layers.4.norm.weight and 3 more" in message
    assert "layers.5.norm.weight" not in message
    assert "layers.0.norm.weigth (did you mean layers.0.norm.weight?)" in message
    assert "head.weight has [4, 3], expected [3, 4]" in message
    assert "\n" not in message


def test_agreement_is_silent():
    check_keys({"a": (1, 2)}, {"a": (1, 2)}, "folder")


def test_expert_banks_are_out_by_in_for_us_and_in_by_out_for_them():
    attention = AttentionSpec("full-rope", 1, 1, 2, rope=RopeSpec(1e4))
    layer = LayerSpec(attention, MoESpec(3, 1, 5, 0, "sigmoid-top-k"))
    spec = ModelSpec("drawn", 8, 7, 1e-5, 64, False, (layer,))
    rows = {row.ours: row for row in huggingface_rows(spec, CONDITIONAL)}
    gate_up = rows["layers.0.feed_forward.experts.gate_up_proj"]
    down = rows["layers.0.feed_forward.experts.down_proj"]
    assert (gate_up.shape, gate_up.their_shape) == ((3, 10, 7), (3, 7, 10))
    assert (down.shape, down.their_shape) == ((3, 7, 5), (3, 5, 7))
