"""The shapes by name are Llama 4s."""

from dataclasses import replace

import pytest

from llama4_core.errors import SpecError
from llama4_core.specs.layers import every, llama4_layers
from llama4_core.specs.model import DenseSpec, MoESpec, RopeScaling, RopeSpec
from llama4_core.specs.presets import PRESETS, preset

LLAMA_4 = [name for name in PRESETS if name != "guard"]


@pytest.mark.parametrize("name", LLAMA_4)
def test_every_fourth_layer_has_no_positions(name):
    for index, layer in enumerate(preset(name).layers):
        attention = layer.attention
        if (index + 1) % 4 == 0:
            assert attention.variant == "nope-global"
            assert attention.rope is None
            assert attention.chunk is None
            assert not attention.qk_norm
            assert attention.temperature is not None
        else:
            assert attention.variant == "irope-chunked"
            assert attention.temperature is None
            assert attention.qk_norm == (name != "maverick")
            assert attention.temperature is None


def test_scout_and_maverick():
    scout, maverick = preset("scout"), preset("maverick")
    assert [len(scout.layers), len(maverick.layers)] == [48, 48]
    assert all(isinstance(layer.feed_forward, MoESpec) for layer in scout.layers)
    moe = [i for i, x in enumerate(maverick.layers) if isinstance(x.feed_forward, MoESpec)]
    assert moe == list(range(1, 48, 2))
    assert maverick.layers[0].feed_forward == DenseSpec(16384)
    assert scout.layers[0].attention.rope.scaling == RopeScaling(16.0, 1.0, 1.0, 8192)
    assert maverick.layers[0].attention.rope.scaling is None
    assert (scout.max_positions, maverick.max_positions) == (10_485_760, 1_048_576)


def test_guard_is_dense_with_positions_everywhere():
    spec = preset("guard")
    assert spec.illustrative
    assert {layer.attention.variant for layer in spec.layers} == {"full-rope"}
    assert {layer.feed_forward for layer in spec.layers} == {DenseSpec(8192)}


@pytest.mark.parametrize("name", PRESETS)
def test_text_only(name):
    spec = preset(f"{name}-text")
    assert spec.name == f"{name}-text"
    assert spec.vision is None
    assert spec.tokens.image is None
    assert spec.layers == preset(name).layers


def test_an_unknown_name_is_corrected():
    with pytest.raises(SpecError, match=r"'maverik' \(did you mean 'maverick'\?\)"):
        preset("maverik")


def test_every():
    assert every(4, 9) == (3, 7)
    assert every(1, 3) == (0, 1, 2)
    assert every(None, 5) == every(6, 5) == ()
    with pytest.raises(SpecError, match="interval between special layers is 0"):
        every(0, 5)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("channels", 0), ("adapter_width", -1), ("adapter_output", 1.5), ("shuffle_ratio", 0.0),
        ("theta", float("inf")), ("norm_eps", 0),
    ],
)  # fmt: skip
def test_numbers_of_the_encoder_are_checked(field, value):
    with pytest.raises(SpecError, match=f"VisionSpec.{field} is .*; expected a"):
        replace(preset("scout").vision, **{field: value})


def test_no_factor_of_the_scaling_is_nan():
    with pytest.raises(SpecError, match="high_frequency_factor is nan; expected a number above 0"):
        RopeScaling(16.0, 1.0, float("nan"), 8192)


def test_layers_need_what_they_name():
    common = {
        "heads": 2, "kv_heads": 1, "head_dim": 8, "rope": RopeSpec(1e4), "chunk": 4,
        "qk_norm": True, "temperature": None, "dense": None, "moe": None,
    }  # fmt: skip
    with pytest.raises(SpecError, match=r"position-free layers name layer 2; .* from 0 to 1"):
        llama4_layers(2, position_free=[2], moe_layers=[], **common)
    with pytest.raises(SpecError, match="layer 0 needs the numbers of a dense feed-forward"):
        llama4_layers(2, position_free=[], moe_layers=[], **common)
    with pytest.raises(SpecError, match="layer 1 needs the numbers of a mixture of experts"):
        llama4_layers(2, position_free=[], moe_layers=[1], **{**common, "dense": DenseSpec(3)})
