"""Hugging Face ``config.json`` of ``llama4`` and ``llama4_text``: in.

Every key is honoured, kept for writing back, or refused by name. Architectural numbers must be
there: the defaults of transformers' classes are no released model. Only where transformers' own
files leave a key out is its documented meaning of absence used (see the comments).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llama4_core.errors import SpecError
from llama4_core.specs import huggingface_keys as table
from llama4_core.specs.foreign import ForeignKeys
from llama4_core.specs.huggingface_common import CLASSES, Common, read_common
from llama4_core.specs.huggingface_vision import read_vision
from llama4_core.specs.huggingface_write import huggingface_from_spec, rope_parameters
from llama4_core.specs.layers import every, llama4_layers
from llama4_core.specs.model import (
    DenseSpec,
    ModelSpec,
    MoESpec,
    RopeScaling,
    RopeSpec,
    TemperatureSpec,
    TokenIds,
    VisionSpec,
    is_number,
)

__all__ = ["huggingface_from_spec", "spec_from_huggingface"]


def spec_from_huggingface(
    config: Mapping[str, Any], where: str = "config.json", name: str | None = None
) -> ModelSpec:
    """The model that a Hugging Face configuration describes.

    Args:
        config: the parsed ``config.json``.
        where: file name, the beginning of every error.
        name: of the spec; None takes ``_name_or_path``, or else the model type.

    Raises:
        SpecError: a key is unknown, refused, missing, or contradicts another.
    """
    if not isinstance(config, Mapping):
        raise SpecError(f"{where} is {config!r}; expected a table of keys and values")
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in CLASSES:
        raise SpecError(
            f"{where}: model_type is {kind!r}; expected 'llama4' (text and vision) or 'llama4_text'"
        )
    if kind == "llama4":
        return _with_vision(config, where, name)
    keys = ForeignKeys(config, where, table.TEXT_KEYS)
    outer = read_common(keys, kind)
    return _text(keys, outer, where).spec(name or outer.name or kind, None, TokenIds(), {})


def _with_vision(config: Mapping[str, Any], where: str, name: str | None) -> ModelSpec:
    top = ForeignKeys(config, where, table.MODEL_KEYS)
    outer = read_common(top, "llama4")
    image = _token(top, "image_token_index", "image_token_id")
    if image is None:
        top.fail("image_token_index", None, "the id of the token that image features replace")
    tokens = TokenIds(
        image=image,
        image_start=_token(top, "boi_token_index", "boi_token_id"),
        image_end=_token(top, "eoi_token_index", "eoi_token_id"),
    )
    text_values, vision_values = top.take("text_config"), top.take("vision_config")
    top.finish()

    text_where = f"{where}, text_config"
    text_keys = ForeignKeys(text_values, text_where, table.TEXT_KEYS)
    text = _text(text_keys, read_common(text_keys, "llama4_text"), text_where).inside(
        outer, text_where
    )
    vision = read_vision(vision_values, f"{where}, vision_config")
    return text.spec(name or outer.name or "llama4", vision, tokens, outer.carried)


def _token(keys: ForeignKeys, name: str, alias: str) -> int | None:
    first, second = keys.count(name, None, at_least=0), keys.count(alias, None, at_least=0)
    if first is not None and second is not None and first != second:
        keys.fail(name, first, f"the same as {alias}, which is {second}")
    return first if first is not None else second


@dataclass
class _Text:
    """A text model that was read, before its surroundings are known."""

    common: Common
    numbers: dict[str, Any]

    def inside(self, outer: Common, where: str) -> _Text:
        """Settle what the outer level says too.

        The outer dtype wins, since transformers writes it there when it saves weights.
        """
        own = self.common
        for key, mine, other in (
            ("tie_word_embeddings", own.tied, outer.tied),
            ("bos_token_id", own.bos, outer.bos),
            ("eos_token_id", own.eos or None, outer.eos or None),
            ("pad_token_id", own.pad, outer.pad),
        ):
            if mine is not None and other is not None and mine != other:
                raise SpecError(
                    f"{where}: {key} is {mine!r}; expected {other!r} as on the outer level: remove "
                    "one of the two"
                )
        own.tied = own.tied if own.tied is not None else outer.tied
        own.bos = own.bos if own.bos is not None else outer.bos
        own.eos = own.eos or outer.eos
        own.pad = own.pad if own.pad is not None else outer.pad
        own.dtype = outer.dtype or own.dtype
        return self

    def spec(
        self,
        name: str,
        vision: VisionSpec | None,
        image: TokenIds,
        outer: dict[str, Any],
    ) -> ModelSpec:
        """The whole model."""
        own = self.common
        source = {"text_config": own.carried, "config": outer}
        return ModelSpec(
            name=name,
            tied=bool(own.tied),  # absent means untied in every version of transformers
            vision=vision,
            tokens=TokenIds(
                own.bos, own.eos, own.pad, image.image, image.image_start, image.image_end
            ),
            dtype=own.dtype or "float32",  # transformers' meaning of a configuration without one
            source={"huggingface": {key: value for key, value in source.items() if value}},
            **self.numbers,
        )


def _text(keys: ForeignKeys, common: Common, where: str) -> _Text:
    kept = common.carried
    kept |= keys.neutral(table.NEUTRAL_TEXT, "nothing else exists in Llama 4")
    count = keys.count("num_hidden_layers")
    width = keys.count("hidden_size")
    heads = keys.count("num_attention_heads")
    rope = _rope(keys, kept)
    chunk = keys.take("attention_chunk_size")
    if chunk is not None and (not isinstance(chunk, int) or isinstance(chunk, bool) or chunk < 1):
        keys.fail("attention_chunk_size", chunk, "a whole number of at least 1, or null")
    position_free = _position_free(keys, count, kept)
    unchunked = _unchunked(keys, count, chunk, position_free)
    qk_norm = keys.flag("use_qk_norm")
    if len(position_free) == count:
        kept["use_qk_norm"] = qk_norm
        kept["attention_chunk_size"] = chunk
        kept["rope_parameters"] = rope_parameters(rope)
    elif chunk is not None and set(unchunked) | set(position_free) == set(range(count)):
        kept["attention_chunk_size"] = chunk
    moe_layers = _moe_layers(keys, count, kept)
    numbers = {
        "vocabulary": keys.count("vocab_size"),
        "width": width,
        "norm_eps": keys.number("rms_norm_eps"),
        "max_positions": keys.count("max_position_embeddings"),
        "layers": llama4_layers(
            count,
            heads=heads,
            kv_heads=keys.count("num_key_value_heads", heads),
            head_dim=_head_dim(keys, width, heads),
            rope=rope,
            chunk=chunk,
            qk_norm=qk_norm,
            temperature=_temperature(keys, bool(position_free), kept),
            position_free=position_free,
            moe_layers=moe_layers,
            moe=_moe(keys, bool(moe_layers), kept),
            dense=_dense(keys, len(moe_layers) < count, kept),
            unchunked=unchunked,
        ),
    }
    keys.finish()
    # Null means absent here, and not every format that a spec is written to has it.
    common.carried = {key: value for key, value in kept.items() if value is not None}
    return _Text(common, numbers)


def _head_dim(keys: ForeignKeys, width: int, heads: int) -> int:
    """Null means width / heads. Absent: that too in older versions, but 128 since version 5."""
    absent = "head_dim" not in keys
    value = keys.count("head_dim", None)
    if value is not None:
        return int(value)
    if width % heads:
        keys.fail("head_dim", None, f"a number, because {width} is not a multiple of {heads}")
    if absent and width // heads != 128:
        raise SpecError(
            f"{keys.where}: head_dim is missing; expected it, because transformers up to 4 takes "
            f"hidden_size / num_attention_heads = {width // heads} and since 5 takes 128: add the "
            "right one"
        )
    return width // heads


def _rope(keys: ForeignKeys, kept: dict[str, Any]) -> RopeSpec:
    """``rope_parameters`` (transformers 5), or ``rope_theta`` and ``rope_scaling`` (before)."""
    new, old = keys.take("rope_parameters", None), keys.take("rope_scaling", None)
    if new is not None and old is not None and new != old:
        keys.fail("rope_scaling", old, "to be absent beside rope_parameters, or equal to it")
    values = new if new is not None else old
    inner = ForeignKeys(
        values if values is not None else {},
        f"{keys.where}, {'rope_parameters' if new is not None else 'rope_scaling'}",
        _ROPE_KEYS,
    )
    outer_theta, inner_theta = keys.number("rope_theta", None), inner.number("rope_theta", None)
    if outer_theta is not None and inner_theta is not None and outer_theta != inner_theta:
        keys.fail("rope_theta", outer_theta, f"{inner_theta}, as in {inner.where}")
    theta = inner_theta if inner_theta is not None else outer_theta
    if theta is None:
        raise SpecError(f"{keys.where}: rope_theta is missing; add it (Llama 4: 500000.0)")
    new_kind, old_kind = inner.take("rope_type", None), inner.take("type", None)
    kind = new_kind or old_kind or "default"
    inner.neutral({"partial_rotary_factor": 1.0}, "every dimension of a head is rotated")
    scaling = None
    if kind == "llama3":
        scaling = RopeScaling(
            factor=inner.number("factor"),
            low_frequency_factor=inner.number("low_freq_factor"),
            high_frequency_factor=inner.number("high_freq_factor"),
            original_length=inner.count("original_max_position_embeddings"),
        )
    elif kind != "default":
        inner.fail("rope_type", kind, "'default' or 'llama3': no other scaling exists in Llama 4")
    inner.finish()
    return RopeSpec(theta, scaling)


_ROPE_KEYS = (
    "rope_theta", "rope_type", "type", "factor", "low_freq_factor", "high_freq_factor",
    "original_max_position_embeddings", "partial_rotary_factor",
)  # fmt: skip


def _position_free(keys: ForeignKeys, count: int, kept: dict[str, Any]) -> tuple[int, ...]:
    """Layers without rotary encoding.

    ``no_rope_layers`` holds 1 for rotary and **0 for position-free**. Empty, null or absent means:
    by ``no_rope_layer_interval``, whose absence means 4 in transformers (the published Scout and
    Maverick files leave it out). A null interval means none (Llama Guard 4).
    """
    flags = keys.indices("no_rope_layers")
    absent = "no_rope_layer_interval" not in keys
    interval = keys.count("no_rope_layer_interval", None)
    if interval is not None:
        kept["no_rope_layer_interval"] = interval
    if not flags:
        return every(4 if absent else interval, count)
    if len(flags) < count or any(flag not in (0, 1) for flag in flags):
        keys.fail("no_rope_layers", flags, f"a 1 (rotary) or 0 (none) for each of {count} layers")
    return tuple(i for i in range(count) if flags[i] == 0)


def _unchunked(
    keys: ForeignKeys, count: int, chunk: int | None, position_free: tuple[int, ...]
) -> tuple[int, ...]:
    """Rotary layers that ``layer_types`` makes global; without a chunk all are in any case."""
    types = keys.take("layer_types", None)
    if types is None:
        return ()
    known = ("chunked_attention", "full_attention")
    if (
        not isinstance(types, list | tuple)
        or len(types) != count
        or any(kind not in known for kind in types)
    ):
        keys.fail(
            "layer_types", types, f"{' or '.join(map(repr, known))} for each of {count} layers"
        )
    for layer in position_free:
        if types[layer] == "chunked_attention" and chunk is not None:
            raise SpecError(
                f"{keys.where}: layer_types makes layer {layer} chunked, and no_rope_layers takes "
                "its positions away; expected 'full_attention' for a layer without positions"
            )
    return tuple(
        i for i in range(count) if types[i] == "full_attention" and i not in set(position_free)
    )


def _moe_layers(keys: ForeignKeys, count: int, kept: dict[str, Any]) -> tuple[int, ...]:
    """``moe_layers`` ([] for none), or by ``interleave_moe_layer_step`` when null or absent."""
    layers = keys.indices("moe_layers")
    step = keys.count("interleave_moe_layer_step", None)
    if step is not None:
        kept["interleave_moe_layer_step"] = step
    if layers is None:
        if step is None:
            raise SpecError(
                f"{keys.where}: neither moe_layers nor interleave_moe_layer_step is there; "
                "expected one, because it decides which layers have experts"
            )
        return every(step, count)
    if any(not 0 <= layer < count for layer in layers):
        keys.fail("moe_layers", layers, f"indices from 0 to {count - 1}")
    return tuple(sorted(set(layers)))


def _temperature(keys: ForeignKeys, needed: bool, kept: dict[str, Any]) -> TemperatureSpec | None:
    """Absent keys mean on, 0.1 and 8192 in every version: published files leave them out.

    The first version stored the number 4 for on.
    """
    given = {
        key: keys.take(key)
        for key in ("attn_temperature_tuning", "floor_scale", "attn_scale")
        if key in keys
    }
    on = given.get("attn_temperature_tuning", True)
    scale, floor = given.get("attn_scale", 0.1), given.get("floor_scale", 8192)
    if not isinstance(on, bool) and not (isinstance(on, int) and on >= 0):
        keys.fail("attn_temperature_tuning", on, "true or false (or an older version's number)")
    for key, value in (("attn_scale", scale), ("floor_scale", floor)):
        if not is_number(value) or value < 0:
            keys.fail(key, value, "a number of at least 0")
    if not needed or not on:
        kept.update(given)
        if "attn_temperature_tuning" in given:
            kept["attn_temperature_tuning"] = bool(on)
        return None
    return TemperatureSpec(scale=float(scale), floor=floor)


def _moe(keys: ForeignKeys, needed: bool, kept: dict[str, Any]) -> MoESpec | None:
    names = ("num_local_experts", "num_experts_per_tok", "intermediate_size")
    if not needed:
        kept.update({key: keys.count(key, at_least=0) for key in names if key in keys})
        return None
    experts, top_k, width = (keys.count(key) for key in names)
    return MoESpec(
        experts=experts, top_k=top_k, width=width, shared_width=width, router="sigmoid-top-k"
    )


def _dense(keys: ForeignKeys, needed: bool, kept: dict[str, Any]) -> DenseSpec | None:
    if needed:
        return DenseSpec(keys.count("intermediate_size_mlp"))
    if "intermediate_size_mlp" in keys:
        kept["intermediate_size_mlp"] = keys.count("intermediate_size_mlp")
    return None
