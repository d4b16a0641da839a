"""Hugging Face ``config.json`` of ``llama4`` and ``llama4_text``: out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama4_core.errors import SpecError
from llama4_core.specs.common import layers_in_common
from llama4_core.specs.layers import every
from llama4_core.specs.model import ModelSpec, RopeSpec, VisionSpec

DTYPES = ("float32", "bfloat16", "float16")
"""What a configuration may say the weights are in."""


def huggingface_from_spec(spec: ModelSpec) -> dict[str, Any]:
    """The ``config.json`` of a model: ``llama4`` with vision, else ``llama4_text``.

    What the format cannot say about a particular model (a width of dense layers where there are
    none) comes from where it was read, or is filled with a number that nothing reads. Whether a
    shape is illustrative is not written.

    Raises:
        SpecError: the format cannot express the model.
    """
    source = spec.source.get("huggingface", {})
    carried = source if isinstance(source, Mapping) else {}
    if spec.dtype not in DTYPES:
        raise SpecError(
            f"the spec {spec.name!r} is in {spec.dtype}; a config.json says one of "
            f"{', '.join(DTYPES)}: convert the weights, or save in the native format"
        )
    text = _text(spec, carried.get("text_config", {}))
    if spec.vision is None:
        return {
            **text,
            "_name_or_path": spec.name,
            "architectures": ["Llama4ForCausalLM"],
        }
    if spec.tokens.image is None:
        raise SpecError(
            f"the spec {spec.name!r} has vision and no tokens.image; expected the id of the token "
            "that image features replace"
        )
    config: dict[str, Any] = {
        **carried.get("config", {}),
        "_name_or_path": spec.name,
        "architectures": ["Llama4ForConditionalGeneration"],
        "model_type": "llama4",
        "dtype": spec.dtype,
        "tie_word_embeddings": spec.tied,
        "image_token_index": spec.tokens.image,
        "text_config": text,
        "vision_config": _vision(spec.vision),
    }
    if spec.tokens.image_start is not None:
        config["boi_token_index"] = spec.tokens.image_start
    if spec.tokens.image_end is not None:
        config["eoi_token_index"] = spec.tokens.image_end
    return config


def rope_parameters(rope: RopeSpec) -> dict[str, Any]:
    """Rotary encoding in the form of transformers 5."""
    if rope.scaling is None:
        return {"rope_theta": rope.theta, "rope_type": "default"}
    return {
        "rope_theta": rope.theta,
        "rope_type": "llama3",
        "factor": rope.scaling.factor,
        "low_freq_factor": rope.scaling.low_frequency_factor,
        "high_freq_factor": rope.scaling.high_frequency_factor,
        "original_max_position_embeddings": rope.scaling.original_length,
    }


def _text(spec: ModelSpec, carried: Mapping[str, Any]) -> dict[str, Any]:
    common = layers_in_common(spec, "a Hugging Face config")
    count = len(spec.layers)

    def kept(key: str, fallback: Any) -> Any:
        """Numbers that no layer has still need a value in this format; nothing reads them."""
        return carried.get(key, fallback)

    moe, dense = common.moe, common.dense
    unused = moe.width if moe is not None else dense.width if dense is not None else 1
    config: dict[str, Any] = {
        **carried,
        "model_type": "llama4_text",
        "vocab_size": spec.vocabulary,
        "hidden_size": spec.width,
        "num_hidden_layers": count,
        "num_attention_heads": common.heads,
        "num_key_value_heads": common.kv_heads,
        "head_dim": common.head_dim,
        "max_position_embeddings": spec.max_positions,
        "rms_norm_eps": spec.norm_eps,
        "tie_word_embeddings": spec.tied,
        "dtype": spec.dtype,
        "bos_token_id": spec.tokens.bos,
        "eos_token_id": _eos(spec.tokens.eos),
        "pad_token_id": spec.tokens.pad,
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_qk_norm": kept("use_qk_norm", False) if common.qk_norm is None else common.qk_norm,
        "rope_parameters": rope_parameters(common.rope)
        if common.rope is not None
        else kept("rope_parameters", rope_parameters(RopeSpec(500_000.0))),
        "attention_chunk_size": common.chunk or kept("attention_chunk_size", None),
        "no_rope_layers": [int(i not in common.position_free) for i in range(count)],
        "no_rope_layer_interval": kept(
            "no_rope_layer_interval", _interval(common.position_free, count, 4)
        ),
        "layer_types": [
            "full_attention" if layer.attention.chunk is None else "chunked_attention"
            for layer in spec.layers
        ],
        "moe_layers": list(common.moe_layers),
        "interleave_moe_layer_step": kept(
            "interleave_moe_layer_step", _interval(common.moe_layers, count, 1)
        ),
        "num_local_experts": kept("num_local_experts", 1) if moe is None else moe.experts,
        "num_experts_per_tok": kept("num_experts_per_tok", 1) if moe is None else moe.top_k,
        "intermediate_size": kept("intermediate_size", unused) if moe is None else moe.width,
        "intermediate_size_mlp": kept("intermediate_size_mlp", unused)
        if dense is None
        else dense.width,
    }
    if common.position_free:
        config["attn_temperature_tuning"] = common.temperature is not None
    if common.temperature is not None:
        floor = common.temperature.floor
        config["floor_scale"] = int(floor) if floor == int(floor) else floor
        config["attn_scale"] = common.temperature.scale
    return config


def _interval(layers: tuple[int, ...], count: int, otherwise: int) -> int:
    """The interval that yields ``layers``, or ``otherwise`` (the explicit list decides anyway)."""
    if layers and every(layers[0] + 1, count) == layers:
        return layers[0] + 1
    return otherwise


def _eos(tokens: tuple[int, ...]) -> int | list[int] | None:
    if len(tokens) > 1:
        return list(tokens)
    return tokens[0] if tokens else None


def _vision(spec: VisionSpec) -> dict[str, Any]:
    for slot, name in spec.foreign_parts:
        raise SpecError(
            f"vision.{slot} is {name!r}, which a Hugging Face config has no word for; save in the "
            "native format instead"
        )
    return {
        **spec.extra,
        "model_type": "llama4_vision_model",
        "hidden_act": "gelu",
        "hidden_size": spec.width,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_channels": spec.channels,
        "intermediate_size": spec.mlp_width,
        "image_size": spec.image_size,
        "patch_size": spec.patch_size,
        "pixel_shuffle_ratio": spec.shuffle_ratio,
        "projector_input_dim": spec.adapter_width,
        "projector_output_dim": spec.adapter_output,
        "vision_output_dim": spec.adapter_output,
        "norm_eps": spec.norm_eps,
        "rope_parameters": {"rope_theta": spec.theta, "rope_type": "default"},
    }
