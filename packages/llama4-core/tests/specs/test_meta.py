"""Meta's params.json: the width rule, the meaning of absence, and refusals."""

import pytest

from llama4_core.errors import SpecError
from llama4_core.specs.meta import Widths, meta_from_spec, spec_from_meta
from llama4_core.specs.model import DenseSpec, MoESpec, RopeScaling
from llama4_core.specs.presets import preset

#: Maverick's numbers under the keys of the reference code.
PARAMS = {
    "dim": 5120,
    "n_layers": 48,
    "n_heads": 40,
    "n_kv_heads": 8,
    "vocab_size": 202048,
    "multiple_of": 2048,
    "ffn_dim_multiplier": 1.2,
    "ffn_exp": 4.0,
    "norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "use_scaled_rope": False,
    "attention_chunk_size": 8192,
    "nope_layer_interval": 4,
    "use_qk_norm": False,
    "attn_temperature_tuning": True,
    "floor_scale": 8192.0,
    "attn_scale": 0.1,
    "max_seq_len": 1048576,
    "max_batch_size": 32,
    "moe_args": {
        "num_experts": 128,
        "capacity_factor": 1.0,
        "auto_scale_F": True,
        "top_k": 1,
        "interleave_moe_layer_step": 2,
    },
    "vision_args": {
        "image_size": {"height": 336, "width": 336},
        "patch_size": {"height": 14, "width": 14},
        "dim": 1408,
        "n_layers": 34,
        "n_heads": 16,
        "mlp_ratio": 4.0,
        "output_dim": 4096,
        "pixel_shuffle_ratio": 0.5,
    },
}


def read(**changes):
    params = {key: value for key, value in {**PARAMS, **changes}.items() if value is not ...}
    return spec_from_meta(params, "params.json", tokens=preset("maverick").tokens, name="maverick")


def test_gives_maverick():
    assert read() == preset("maverick")


def test_gives_back_every_key():
    # The reference derives the head dim where it is absent; written out it says the same.
    assert meta_from_spec(read()) == {**PARAMS, "head_dim": 128}


def test_width_rule():
    rule = Widths(4.0, 1.2, 2048, 1.0, auto_scale=True)
    assert rule.of(5120) == (16384, 8192)
    assert Widths(4.0, 1.2, 1, 1.0, auto_scale=True).of(5120) == (16383, 8191)
    assert Widths(4.0, None, 1, 1.0, auto_scale=False).of(5120) == (13653, 13653)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"use_scaled_rope": True}, RopeScaling(16.0, 1.0, 1.0, 8192)),
        (
            {"use_scaled_rope": True, "rope_scaling_factor": 8.0, "rope_high_freq_factor": 4.0},
            RopeScaling(8.0, 1.0, 4.0, 8192),
        ),
        ({"rope_scaling_factor": 8.0}, None),
    ],
)
def test_rotary_scaling(changes, expected):
    assert read(**changes).layers[0].attention.rope.scaling == expected


def test_absence():
    spec = read(moe_args=..., nope_layer_interval=..., attention_chunk_size=..., vision_args=...,
                use_qk_norm=..., attn_temperature_tuning=...)  # fmt: skip
    assert {layer.attention.variant for layer in spec.layers} == {"full-rope"}
    assert {layer.feed_forward for layer in spec.layers} == {DenseSpec(16384)}
    assert spec.vision is None
    assert not spec.layers[0].attention.qk_norm
    assert read(moe_args={"num_experts": 2, "top_k": 1}).layers[0].feed_forward == MoESpec(
        2, 1, 8192, 8192, "sigmoid-top-k"
    )


def test_longest_context_is_said_by_somebody():
    with pytest.raises(SpecError, match="max_seq_len is missing and no max_positions"):
        read(max_seq_len=...)
    assert spec_from_meta(PARAMS, max_positions=262144).max_positions == 262144


@pytest.mark.parametrize(
    "key", ["dim", "n_layers", "n_heads", "vocab_size", "norm_eps", "rope_theta", "multiple_of"]
)
def test_architectural_numbers_have_no_default(key):
    with pytest.raises(SpecError, match=f"{key} is missing"):
        read(**{key: ...})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantization_args": {"scheme": "int4"}}, "quantization_args cannot"),
        ({"lora_args": {"rank": 16}}, "lora_args cannot be honoured"),
        ({"nope_layer_intervall": 4}, "unknown key 'nope_layer_intervall' .did you mean"),
        ({"vocab_size": -1}, "vocab_size is -1"),
        ({"ffn_exp": float("inf")}, "ffn_exp is inf; expected a number above 0"),
        ({"ffn_dim_multiplier": float("nan")}, "ffn_dim_multiplier is nan"),
        ({"dim": 5121}, "dim is 5121; expected a multiple of n_heads, 40"),
        ({"moe_args": {"num_experts": 4}}, "moe_args: top_k is missing"),
        ({"moe_args": {"num_experts": 4, "top_k": 1, "topk": 1}}, "moe_args: unknown key 'topk'"),
        ({"moe_args": 4}, "moe_args is 4; expected a table"),
        ({"nope_layer_interval": 0}, "nope_layer_interval is 0"),
        (
            {"vision_args": {**PARAMS["vision_args"], "image_size": {"height": 336, "width": 42}}},
            "image_size is '336 x 42'; expected a square",
        ),
        (
            {"vision_args": {**PARAMS["vision_args"], "heads": 3}},
            "vision_args: unknown key 'heads' .did you mean 'n_heads'",
        ),
    ],
)  # fmt: skip
def test_bad_values_are_named(changes, message):
    with pytest.raises(SpecError, match=message):
        read(**changes)
