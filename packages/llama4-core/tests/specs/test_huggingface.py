"""Hugging Face configurations: every key is honoured, kept or refused by name."""

import copy

import pytest

from llama4_core.errors import SpecError
from llama4_core.specs import huggingface_keys
from llama4_core.specs.huggingface import huggingface_from_spec, spec_from_huggingface
from llama4_core.specs.model import DenseSpec, MoESpec, RopeScaling

TEXT = {
    "model_type": "llama4_text",
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 48,
    "intermediate_size_mlp": 96,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "num_experts_per_tok": 1,
    "num_local_experts": 4,
    "interleave_moe_layer_step": 2,
    "use_qk_norm": True,
    "rope_theta": 500000.0,
    "attention_chunk_size": 8,
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
    "pad_token_id": 4,
    "torch_dtype": "bfloat16",
}
VISION = {
    "model_type": "llama4_vision_model",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
    "image_size": 28,
    "patch_size": 14,
    "num_channels": 3,
    "pixel_shuffle_ratio": 0.5,
    "projector_input_dim": 24,
    "projector_output_dim": 24,
    "vision_output_dim": 24,
}
BOTH = {
    "model_type": "llama4",
    "architectures": ["Llama4ForConditionalGeneration"],
    "image_token_index": 9,
    "boi_token_index": 10,
    "eoi_token_index": 11,
    "text_config": TEXT,
    "vision_config": VISION,
}


def text(**changes):
    """TEXT with changed keys; ``...`` removes one."""
    return {key: value for key, value in {**TEXT, **changes}.items() if value is not ...}


def read(**changes):
    return spec_from_huggingface(text(**changes))


def position_free(spec):
    return [i for i, layer in enumerate(spec.layers) if layer.attention.rope is None]


def experts_in(spec):
    return [i for i, layer in enumerate(spec.layers) if isinstance(layer.feed_forward, MoESpec)]


def test_reads_the_pattern_of_llama_4():
    spec = read()
    assert position_free(spec) == [3, 7]
    assert experts_in(spec) == [1, 3, 5, 7]
    rotary, free = spec.layers[2].attention, spec.layers[3].attention
    assert (rotary.variant, rotary.chunk, rotary.qk_norm) == ("irope-chunked", 8, True)
    assert rotary.temperature is None
    assert (free.variant, free.chunk, free.qk_norm) == ("nope-global", None, False)
    assert (free.temperature.scale, free.temperature.floor) == (0.1, 8192)
    assert spec.layers[2].feed_forward == DenseSpec(96)
    assert spec.layers[3].feed_forward == MoESpec(4, 1, 48, 48, "sigmoid-top-k")
    assert (spec.tokens.bos, spec.tokens.eos, spec.tokens.pad) == (1, (2, 3), 4)
    assert spec.dtype == "bfloat16"
    assert not spec.tied


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"no_rope_layers": [1, 0, 1, 1, 1, 1, 0, 1]}, [1, 6]),  # 0 is position-free
        ({"no_rope_layers": []}, [3, 7]),
        ({"no_rope_layers": None, "no_rope_layer_interval": 2}, [1, 3, 5, 7]),
        ({"no_rope_layers": [], "no_rope_layer_interval": None}, []),
        ({"no_rope_layers": [1] * 8, "no_rope_layer_interval": 4}, []),
        ({"no_rope_layers": [0] * 8}, list(range(8))),
        ({"no_rope_layers": [1, 1, 1, 0] * 3}, [3, 7]),  # a longer list is allowed
        ({"no_rope_layer_interval": 9}, []),
    ],
)
def test_position_free_layers(changes, expected):
    assert position_free(read(**changes)) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"moe_layers": [0, 5]}, [0, 5]),
        ({"moe_layers": []}, []),
        ({"moe_layers": None}, [1, 3, 5, 7]),
        ({"moe_layers": [2], "interleave_moe_layer_step": ...}, [2]),
        ({"interleave_moe_layer_step": 1}, list(range(8))),
        ({"interleave_moe_layer_step": 4}, [3, 7]),
        ({"interleave_moe_layer_step": 9}, []),
    ],
)
def test_layers_with_experts(changes, expected):
    assert experts_in(read(**changes)) == expected


def test_no_chunk_is_full_attention_whatever_layer_types_says():
    spec = read(attention_chunk_size=None, layer_types=["chunked_attention"] * 8, moe_layers=[],
                no_rope_layers=[1] * 8)  # fmt: skip
    assert {layer.attention.variant for layer in spec.layers} == {"full-rope"}
    assert huggingface_from_spec(spec)["attention_chunk_size"] is None


def test_layer_types_can_make_a_rotary_layer_global():
    types = ["full_attention"] + ["chunked_attention"] * 2 + ["full_attention"]
    spec = read(layer_types=types * 2)
    assert [layer.attention.variant for layer in spec.layers[:4]] == [
        "full-rope", "irope-chunked", "irope-chunked", "nope-global",
    ]  # fmt: skip
    assert huggingface_from_spec(spec)["layer_types"] == types * 2


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"attn_temperature_tuning": 4, "floor_scale": 16, "attn_scale": 0.2}, (0.2, 16)),
        ({"attn_temperature_tuning": True}, (0.1, 8192)),
        ({"attn_temperature_tuning": False}, None),
        ({"attn_temperature_tuning": 0}, None),
    ],
)
def test_temperature(changes, expected):
    found = read(**changes).layers[3].attention.temperature
    assert (found and (found.scale, found.floor)) == expected


SCALED = {
    "rope_type": "llama3",
    "factor": 16.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_scaling": SCALED},
        {"rope_theta": ..., "rope_parameters": {**SCALED, "rope_theta": 500000.0}},
        {"rope_parameters": {**SCALED, "rope_theta": 500000.0}},
        {"rope_parameters": SCALED},
        {
            "rope_scaling": {
                **{k: v for k, v in SCALED.items() if k != "rope_type"},
                "type": "llama3",
            }
        },
    ],
)
def test_every_form_of_the_rotary_scaling(changes):
    rope = read(**changes).layers[0].attention.rope
    assert rope.theta == 500000.0
    assert rope.scaling == RopeScaling(16.0, 1.0, 1.0, 8192)


def test_head_dim_follows_the_widths_only_where_all_versions_agree():
    assert read(head_dim=None).layers[0].attention.head_dim == 16
    assert read(head_dim=..., hidden_size=512).layers[0].attention.head_dim == 128
    with pytest.raises(SpecError, match=r"head_dim is missing; .* = 16 and since 5 takes 128"):
        read(head_dim=...)


@pytest.mark.parametrize(
    ("changes", "bos", "eos", "pad", "dtype"),
    [
        ({"eos_token_id": 2}, 1, (2,), 4, "bfloat16"),
        ({"eos_token_id": None}, 1, (), 4, "bfloat16"),
        ({"bos_token_id": None, "pad_token_id": -1}, None, (2, 3), None, "bfloat16"),
        ({"torch_dtype": ..., "dtype": "float16"}, 1, (2, 3), 4, "float16"),
        ({"torch_dtype": "torch.float16"}, 1, (2, 3), 4, "float16"),
        ({"torch_dtype": ...}, 1, (2, 3), 4, "float32"),
    ],
)
def test_tokens_and_dtype(changes, bos, eos, pad, dtype):
    spec = read(**changes)
    found = (spec.tokens.bos, spec.tokens.eos, spec.tokens.pad, spec.dtype)
    assert found == (bos, eos, pad, dtype)


def test_reads_text_and_vision():
    spec = spec_from_huggingface(BOTH, "config.json")
    assert (spec.tokens.image, spec.tokens.image_start, spec.tokens.image_end) == (9, 10, 11)
    assert (spec.vision.width, spec.vision.mlp_width, spec.vision.adapter_output) == (32, 128, 24)
    assert spec.vision.theta == 10_000.0
    assert spec.layers == read().layers
    assert spec.tokens.bos == 1


def test_outer_level_fills_in_and_its_dtype_wins():
    inner = text(pad_token_id=..., tie_word_embeddings=...)
    outer = {**BOTH, "text_config": inner, "dtype": "float32", "pad_token_id": 7}
    spec = spec_from_huggingface({**outer, "tie_word_embeddings": True})
    assert (spec.tokens.pad, spec.dtype, spec.tied) == (7, "float32", True)


def test_image_token_has_two_names():
    renamed = {k: v for k, v in BOTH.items() if k != "image_token_index"} | {"image_token_id": 9}
    assert spec_from_huggingface(renamed).tokens.image == 9
    with pytest.raises(SpecError, match="image_token_index is 9; expected the same as image_token"):
        spec_from_huggingface({**BOTH, "image_token_id": 8})


# --- kept ----------------------------------------------------------------------------------

KEPT = {
    "transformers_version": "4.51.0.dev0",
    "use_cache": True,
    "cache_implementation": "hybrid",
    "initializer_range": 0.02,
    "output_router_logits": True,
    "router_aux_loss_coef": 0.001,
    "router_jitter_noise": 0.0,
    "for_llm_compressor": False,
    "_attn_implementation_autoset": True,
    "temperature": 1.0,
    "hidden_act": "silu",
    "is_encoder_decoder": False,
}


@pytest.mark.parametrize("key", KEPT)
def test_keys_without_effect_are_written_back(key):
    assert huggingface_from_spec(read(**{key: KEPT[key]}))[key] == KEPT[key]


def test_numbers_that_no_layer_uses_are_written_back():
    everywhere = read(interleave_moe_layer_step=1)
    assert huggingface_from_spec(everywhere)["intermediate_size_mlp"] == 96
    nowhere = huggingface_from_spec(read(moe_layers=[]))
    assert (nowhere["num_local_experts"], nowhere["intermediate_size"]) == (4, 48)
    free = huggingface_from_spec(read(no_rope_layers=[0] * 8, rope_theta=77.0))
    assert free["rope_parameters"]["rope_theta"] == 77.0
    assert (free["attention_chunk_size"], free["use_qk_norm"]) == (8, True)
    rotary = huggingface_from_spec(read(no_rope_layers=[1] * 8, floor_scale=5, attn_scale=0.3))
    assert (rotary["floor_scale"], rotary["attn_scale"]) == (5, 0.3)


# --- refused -------------------------------------------------------------------------------

NEUTRAL = {
    **huggingface_keys.NEUTRAL_TEXT,
    **huggingface_keys.NEUTRAL_ANY,
    **huggingface_keys.NEUTRAL_GENERATION,
}


@pytest.mark.parametrize("key", NEUTRAL)
def test_keys_with_one_known_value(key):
    read(**{key: NEUTRAL[key]})
    read(**{key: None})
    with pytest.raises(SpecError, match=f"{key} is 'other'; expected"):
        read(**{key: "other"})


@pytest.mark.parametrize("key", huggingface_keys.NEUTRAL_VISION)
def test_vision_keys_with_one_known_value(key):
    changed = copy.deepcopy(BOTH)
    changed["vision_config"][key] = huggingface_keys.NEUTRAL_VISION[key]
    assert spec_from_huggingface(changed).vision.extra[key] == changed["vision_config"][key]
    changed["vision_config"][key] = "other"
    with pytest.raises(SpecError, match=f"vision_config: {key} is 'other'; expected"):
        spec_from_huggingface(changed)


@pytest.mark.parametrize("key", huggingface_keys.REFUSED)
def test_refused_keys(key):
    read(**{key: None})
    for changed in (
        text(**{key: {"some": "value"}}),
        {**BOTH, key: 1},
        {**BOTH, "text_config": text(**{key: 1})},
        {**BOTH, "vision_config": {**VISION, key: 1}},
    ):
        with pytest.raises(SpecError, match=f"{key} cannot be honoured: "):
            spec_from_huggingface(changed)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("quantization_config", {"quant_method": "fbgemm_fp8"}, "stored quantised; convert"),
        ("auto_map", {"AutoModel": "code.Model"}, "never run"),
        ("sliding_window", 4096, "chunked attention"),
        ("per_layer_config", {"0": {"head_dim": 8}}, "spec.toml"),
        ("attention_bias", True, "expected False"),
        ("hidden_act", "gelu", "expected 'silu'"),
        ("attention_dropout", 0.1, r"expected 0\.0"),
        ("partial_rotary_factor", 0.5, r"expected 1\.0"),
    ],
)
def test_the_usual_traps_are_refused_by_name(key, value, message):
    with pytest.raises(SpecError, match=f"config.json: {key} .*{message}"):
        read(**{key: value})


REQUIRED = [
    "vocab_size", "hidden_size", "intermediate_size", "intermediate_size_mlp", "num_hidden_layers",
    "num_attention_heads", "max_position_embeddings", "rms_norm_eps", "num_experts_per_tok",
    "num_local_experts", "use_qk_norm", "rope_theta", "attention_chunk_size",
]  # fmt: skip


@pytest.mark.parametrize("key", REQUIRED)
def test_architectural_numbers_have_no_default(key):
    with pytest.raises(SpecError, match=f"{key} is missing"):
        read(**{key: ...})


@pytest.mark.parametrize("key", [key for key in VISION if key != "model_type"])
def test_vision_numbers_have_no_default(key):
    vision = {name: value for name, value in VISION.items() if name != key}
    with pytest.raises(SpecError, match=f"vision_config: {key} is missing"):
        spec_from_huggingface({**BOTH, "vision_config": vision})


@pytest.mark.parametrize("key", ["text_config", "vision_config"])
def test_both_parts_are_needed(key):
    with pytest.raises(SpecError, match=f"{key} is missing"):
        spec_from_huggingface({name: value for name, value in BOTH.items() if name != key})
    with pytest.raises(SpecError, match=f"{key} is None; expected a table"):
        spec_from_huggingface({**BOTH, key: None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'; expected 'llama4'"),
        ({"model_type": ...}, "model_type is None"),
        ({"model_type": ["llama4"]}, r"model_type is \['llama4'\]; expected 'llama4'"),
        ({"rms_norm_eps": 10**400}, "rms_norm_eps is 1000"),
        ({"rope_theta": float("inf")}, "rope_theta is inf; expected a number above 0"),
        ({"architectures": ["Llama4TextModel"]}, "architectures is .*'Llama4ForCausalLM'"),
        ({"vocab_siez": 3}, "unknown key 'vocab_siez' .did you mean 'vocab_size'"),
        ({"zzz": 1}, "unknown key 'zzz'; every key must be understood"),
        ({"vocab_size": 12.5}, "vocab_size is 12.5; expected a whole number"),
        ({"vocab_size": True}, "vocab_size is True; expected a whole number"),
        ({"rms_norm_eps": 0}, "rms_norm_eps is 0; expected a number above 0"),
        ({"use_qk_norm": 1}, "use_qk_norm is 1; expected true or false"),
        ({"num_key_value_heads": 3}, "not a multiple of kv_heads 3"),
        ({"num_hidden_layers": 10**12}, "has 1000000000000 layers; expected at most 10000"),
        (
            {"num_hidden_layers": 10**12, "no_rope_layer_interval": None},
            "has 1000000000000 layers; expected at most 10000",
        ),
        ({"attn_scale": float("nan")}, "attn_scale is nan; expected a number of at least 0"),
        ({"attention_chunk_size": 0}, "attention_chunk_size is 0"),
        ({"no_rope_layers": [1, 0]}, "no_rope_layers is .* for each of 8 layers"),
        ({"no_rope_layers": [2] * 8}, "no_rope_layers is"),
        ({"no_rope_layer_interval": 0}, "no_rope_layer_interval is 0"),
        ({"moe_layers": [8]}, r"moe_layers is \[8\]; expected indices from 0 to 7"),
        ({"moe_layers": "all"}, "moe_layers is 'all'; expected a list"),
        ({"interleave_moe_layer_step": ...}, "neither moe_layers nor interleave"),
        ({"layer_types": ["full_attention"]}, "layer_types is"),
        ({"layer_types": ["sliding_attention"] * 8}, "layer_types is"),
        ({"layer_types": ["chunked_attention"] * 8}, "layer_types makes layer 3 chunked"),
        ({"attn_temperature_tuning": "yes"}, "attn_temperature_tuning is 'yes'"),
        ({"floor_scale": -1}, "floor_scale is -1"),
        ({"rope_scaling": {**SCALED, "rope_type": "yarn"}}, "rope_type is 'yarn'"),
        ({"rope_scaling": {**SCALED, "beta": 1}}, "rope_scaling: unknown key 'beta'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor is missing"),
        ({"rope_scaling": SCALED, "rope_parameters": {}}, "to be absent beside rope_parameters"),
        ({"rope_parameters": {"rope_theta": 1.0}}, "rope_theta is 500000.0; expected 1.0"),
        ({"rope_parameters": {"chunked_attention": {}}}, "unknown key 'chunked_attention'"),
        ({"eos_token_id": "two"}, "eos_token_id is 'two'"),
        ({"eos_token_id": [-1]}, "eos_token_id is -1"),
        ({"bos_token_id": -1}, "bos_token_id is -1"),
        ({"dtype": "int8"}, "dtype is 'int8'; expected one of float32"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'"),
        ({"num_experts_per_tok": 5}, "top_k is 5; expected at most"),
        ({"image_token_index": 3}, "unknown key 'image_token_index'"),
    ],
)
def test_bad_text_values_are_named(changes, message):
    with pytest.raises(SpecError, match=message):
        spec_from_huggingface(text(**changes), "here/config.json")


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("text_config", {"bos_token_id": 5}, None),
        (None, {"bos_token_id": 5}, "text_config: bos_token_id is 1; expected 5 as on the outer"),
        (None, {"image_token_index": None}, "image_token_index is None; expected the id"),
        (None, {"vision_feature_layer": 1}, "unknown key 'vision_feature_layer'"),
        (None, {"architectures": ["Llama4ForCausalLM"]}, "architectures is"),
        ("text_config", {"vision_x": 1}, "config.json, text_config: unknown key 'vision_x'"),
        ("text_config", {"model_type": "llama"}, "model_type is 'llama'; expected 'llama4_text'"),
        ("vision_config", {"intermediate_size": 64}, r"pixel_shuffle_ratio\^2 = 128"),
        ("vision_config", {"projector_output_dim": 25}, "expected projector_input_dim, 24"),
        ("vision_config", {"vision_output_dim": 25}, "expected projector_output_dim, 24"),
        ("vision_config", {"norm_eps": 1e-6}, "norm_eps is 1e-06"),
        ("vision_config", {"image_size": [28, 42]}, "tiles are square"),
        ("vision_config", {"image_size": [28, 28]}, None),
        ("vision_config", {"rope_parameters": {"rope_type": "llama3"}}, "rope_type is 'llama3'"),
        ("vision_config", {"rope_theta": 10000.0}, None),
    ],
)
def test_bad_values_of_the_whole_model_are_named(section, changes, message):
    config = copy.deepcopy(BOTH)
    (config if section is None else config[section]).update(changes)
    if message is None:
        spec_from_huggingface(config)
        return
    with pytest.raises(SpecError, match=message):
        spec_from_huggingface(config)


@pytest.mark.parametrize("value", [None, [], "text"])
def test_a_config_is_a_table(value):
    with pytest.raises(SpecError, match="expected a table"):
        spec_from_huggingface(value)
