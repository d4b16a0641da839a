"""Hugging Face ``config.json`` of ``llama4`` and ``llama4_text``: out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llama4_core.errors import SpecError
from llama4_core.specs.layers import every
from llama4_core.specs.model import (
    AttentionSpec,
    DenseSpec,
    ModelSpec,
    MoESpec,
    RopeSpec,
    VisionSpec,
)


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


_VARIANTS = ("irope-chunked", "nope-global", "full-rope")


def _text(spec: ModelSpec, carried: Mapping[str, Any]) -> dict[str, Any]:
    _check(spec)
    attentions = [layer.attention for layer in spec.layers]
    rotary = [a for a in attentions if a.rope is not None]
    free = [a for a in attentions if a.rope is None]
    moes = [x.feed_forward for x in spec.layers if isinstance(x.feed_forward, MoESpec)]
    dense = [x.feed_forward for x in spec.layers if isinstance(x.feed_forward, DenseSpec)]
    moe_layers = [i for i, x in enumerate(spec.layers) if isinstance(x.feed_forward, MoESpec)]
    free_layers = [i for i, a in enumerate(attentions) if a.rope is None]

    rope = _one(spec, "rotary encoding", (a.rope for a in rotary))
    chunk = _one(spec, "chunk", (a.chunk for a in rotary if a.chunk is not None))
    temperature = _one(spec, "temperature", (a.temperature for a in free))
    moe = _one(spec, "mixture of experts", moes)
    plain = _one(spec, "dense width", dense)
    first = attentions[0]

    def kept(key: str, fallback: Any) -> Any:
        return carried.get(key, fallback)

    config: dict[str, Any] = {
        **carried,
        "model_type": "llama4_text",
        "vocab_size": spec.vocabulary,
        "hidden_size": spec.width,
        "num_hidden_layers": len(spec.layers),
        "num_attention_heads": _one(spec, "number of heads", (a.heads for a in attentions)),
        "num_key_value_heads": _one(spec, "number of kv heads", (a.kv_heads for a in attentions)),
        "head_dim": _one(spec, "head dim", (a.head_dim for a in attentions)) or first.head_dim,
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
        "use_qk_norm": _one(spec, "QK norm", (a.qk_norm for a in rotary)) if rotary
        else kept("use_qk_norm", False),
        "rope_parameters": rope_parameters(rope) if rope is not None
        else kept("rope_parameters", {"rope_theta": 500_000.0, "rope_type": "default"}),
        "attention_chunk_size": chunk if chunk is not None
        else kept("attention_chunk_size", None),
        "no_rope_layers": [int(a.rope is not None) for a in attentions],
        "no_rope_layer_interval": kept(
            "no_rope_layer_interval", _interval(free_layers, len(attentions), 4)
        ),
        "layer_types": [
            "chunked_attention" if a.chunk is not None else "full_attention" for a in attentions
        ],
        "moe_layers": moe_layers,
        "interleave_moe_layer_step": kept(
            "interleave_moe_layer_step", _interval(moe_layers, len(attentions), 1)
        ),
    }  # fmt: skip
    if free:
        config["attn_temperature_tuning"] = temperature is not None
    if temperature is not None:
        floor = temperature.floor
        config["floor_scale"] = int(floor) if floor == int(floor) else floor
        config["attn_scale"] = temperature.scale
    # A width that no layer has still needs a number in this format; nothing reads it.
    width = moe.width if moe is not None else plain.width if plain is not None else 1
    if moe is not None:
        config |= {"num_local_experts": moe.experts, "num_experts_per_tok": moe.top_k}
        config["intermediate_size"] = moe.width
    else:
        config["num_local_experts"] = kept("num_local_experts", 1)
        config["num_experts_per_tok"] = kept("num_experts_per_tok", 1)
        config["intermediate_size"] = kept("intermediate_size", width)
    config["intermediate_size_mlp"] = (
        plain.width if plain is not None else kept("intermediate_size_mlp", width)
    )
    return config


def _check(spec: ModelSpec) -> None:
    """Refuse what transformers' Llama 4 does not have."""
    for index, layer in enumerate(spec.layers):
        attention, feed_forward = layer.attention, layer.feed_forward
        reason = _foreign_attention(attention)
        if isinstance(feed_forward, MoESpec):
            if feed_forward.router != "sigmoid-top-k":
                reason = f"router {feed_forward.router!r}"
            elif feed_forward.weight_on != "input":
                reason = f"a router weight on the {feed_forward.weight_on}"
            elif feed_forward.shared_width != feed_forward.width:
                reason = (
                    f"shared width {feed_forward.shared_width} beside expert width "
                    f"{feed_forward.width}"
                )
        if reason:
            raise SpecError(
                f"layer {index} of {spec.name!r} has {reason}; a Hugging Face config cannot say "
                "that: save in the native format"
            )


def _foreign_attention(attention: AttentionSpec) -> str | None:
    expected = (
        "nope-global" if attention.rope is None
        else "full-rope" if attention.chunk is None else "irope-chunked"
    )  # fmt: skip
    if attention.mixer != "softmax":
        return f"mixer {attention.mixer!r}"
    if attention.variant not in _VARIANTS or attention.variant != expected:
        return f"attention variant {attention.variant!r}"
    if attention.window is not None:
        return f"a window of {attention.window}"
    if attention.soft_cap is not None:
        return f"a soft cap of {attention.soft_cap}"
    if attention.sink:
        return "a learned sink"
    if attention.rope is None and (attention.chunk is not None or attention.qk_norm):
        return "a chunk or QK norm without positions"
    if attention.rope is not None and attention.temperature is not None:
        return "a temperature together with positions"
    return None


def _one(spec: ModelSpec, what: str, values: Iterable[Any]) -> Any:
    """The one value that all layers share, or None when there is no such layer."""
    distinct = list(dict.fromkeys(values))
    if len(distinct) > 1:
        raise SpecError(
            f"the layers of {spec.name!r} differ in {what} ({distinct[0]} and {distinct[1]}); a "
            "Hugging Face config has one for all: save in the native format"
        )
    return distinct[0] if distinct else None


def _interval(layers: list[int], count: int, otherwise: int) -> int:
    """The interval that yields ``layers``, or ``otherwise`` (the explicit list decides anyway)."""
    fitting: Callable[[int], bool] = lambda step: list(every(step, count)) == layers  # noqa: E731
    return next((step for step in range(1, count + 1) if fitting(step)), otherwise)


def _eos(tokens: tuple[int, ...]) -> int | list[int] | None:
    if len(tokens) > 1:
        return list(tokens)
    return tokens[0] if tokens else None


def _vision(spec: VisionSpec) -> dict[str, Any]:
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
