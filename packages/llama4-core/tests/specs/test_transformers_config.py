"""transformers' own configuration class understands what we write, and we what it writes."""

import json
from dataclasses import replace

import pytest

from llama4_core.specs.huggingface import huggingface_from_spec, spec_from_huggingface
from llama4_core.specs.presets import PRESETS, preset

transformers = pytest.importorskip("transformers")

SMALL = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 48, "intermediate_size_mlp": 96,
    "num_hidden_layers": 8, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "num_local_experts": 4, "attention_chunk_size": 8, "floor_scale": 4, "pad_token_id": 0,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128,
    "image_size": 28, "projector_input_dim": 24, "projector_output_dim": 24,
    "vision_output_dim": 24,
}  # fmt: skip
SCALING = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip

#: The kinds of models that the parity tests run, as transformers' keyword arguments.
VARIATIONS = {
    "base": {},
    "step 2": {"interleave_moe_layer_step": 2},
    "step 4": {"interleave_moe_layer_step": 4},
    "listed experts": {"moe_layers": [0, 5]},
    "no QK norm": {"use_qk_norm": False},
    "top 2": {"num_experts_per_tok": 2},
    "one kv head": {"num_key_value_heads": 1},
    "chunk 5": {"attention_chunk_size": 5},
    "no temperature": {"attn_temperature_tuning": False},
    "dense with positions everywhere": {"moe_layers": [], "no_rope_layers": [1] * 8},
    "positions nowhere": {"no_rope_layers": [0] * 8},
    "listed positions": {"no_rope_layers": [0, 1, 1, 0, 1, 1, 1, 0]},
    "scaled": {"rope_parameters": SCALING},
    "equal factors": {"rope_parameters": {**SCALING, "high_freq_factor": 1.0}},
    "tied": {"tie_word_embeddings": True},
    "several ends": {"eos_token_id": [3, 4, 5]},
    "router settings": {"router_aux_loss_coef": 0.5, "router_jitter_noise": 0.1,
                        "output_router_logits": True},
}  # fmt: skip


def written_by_transformers(config):
    """What ``save_pretrained`` puts into config.json."""
    return json.loads(config.to_json_string(use_diff=True))


def through_us(values):
    """``values`` read and written again."""
    return json.loads(json.dumps(huggingface_from_spec(spec_from_huggingface(values))))


@pytest.mark.parametrize("change", VARIATIONS.values(), ids=VARIATIONS)
def test_text_configs_survive(change):
    config = transformers.Llama4TextConfig(**{**SMALL, **change})
    values = written_by_transformers(config)
    again = transformers.Llama4TextConfig(**through_us(values))
    expected, found = config.to_dict(), again.to_dict()
    # We add what the file is for, and the dtype that its absence means.
    for key in ("architectures", "dtype", "_name_or_path"):
        expected.pop(key, None)
        found.pop(key, None)
    assert found == expected
    assert {key: value for key, value in through_us(values).items() if key in values} == values


@pytest.mark.parametrize("change", VARIATIONS.values(), ids=VARIATIONS)
def test_whole_configs_survive(change):
    tied = change.get("tie_word_embeddings", False)
    config = transformers.Llama4Config(
        text_config={**SMALL, **change, "dtype": "bfloat16"},
        vision_config=VISION,
        image_token_index=9,
        tie_word_embeddings=tied,
        dtype="bfloat16",
    )
    values = written_by_transformers(config)
    again = transformers.Llama4Config(**through_us(values))
    expected, found = config.to_dict(), again.to_dict()
    for key in ("architectures", "_name_or_path"):
        expected.pop(key, None)
        found.pop(key, None)
    assert found == expected


@pytest.mark.parametrize("name", [*PRESETS, "scout-text"])
def test_presets_load_there_with_our_numbers(name):
    spec = preset(name)
    config = transformers.AutoConfig.for_model(**huggingface_from_spec(spec))
    text = config.get_text_config()
    assert text.num_hidden_layers == len(spec.layers)
    for index, layer in enumerate(spec.layers):
        assert bool(text.no_rope_layers[index]) == (layer.attention.rope is not None)
        assert (index in text.moe_layers) == (layer.feed_forward.kind == "moe")
        chunked = text.layer_types[index] == "chunked_attention"
        assert chunked == (layer.attention.chunk is not None)
    assert spec_from_huggingface(written_by_transformers(config), name=name) == replace(
        spec, illustrative=False
    )
