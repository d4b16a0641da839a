"""Meta's ``params.json``: in and out.

Absent switches mean what the reference code makes of their absence; architectural numbers must be
there. The format has neither token ids nor a stored dtype, and the longest context only as
``max_seq_len``: the caller says these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llama4_core.errors import SpecError
from llama4_core.specs.common import layers_in_common
from llama4_core.specs.foreign import ForeignKeys
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
)

# Constants of the reference code that params.json has no key for.
_LOW_FREQUENCY_FACTOR = 1.0
_ORIGINAL_LENGTH = 8192
_VISION_THETA = 10_000.0
_VISION_EPS = 1e-5
_CHANNELS = 3
# What the reference code puts in where a scaled model's file, Scout's, says nothing.
_SCALING_FACTOR = 16.0
_HIGH_FREQUENCY_FACTOR = 1.0

_KEYS = (
    "dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "vocab_size", "norm_eps", "rope_theta",
    "use_scaled_rope", "rope_scaling_factor", "rope_high_freq_factor", "ffn_dim_multiplier",
    "multiple_of", "ffn_exp", "moe_args", "attention_chunk_size", "nope_layer_interval",
    "use_qk_norm", "attn_temperature_tuning", "floor_scale", "attn_scale", "vision_args",
    "max_seq_len", "max_batch_size", "quantization_args", "lora_args",
)  # fmt: skip
_MOE_KEYS = ("num_experts", "capacity_factor", "auto_scale_F", "top_k", "interleave_moe_layer_step")
_VISION_KEYS = (
    "image_size", "patch_size", "dim", "n_layers", "n_heads", "mlp_ratio", "output_dim",
    "pixel_shuffle_ratio",
)  # fmt: skip
_REFUSED = {
    "quantization_args": "the weights are stored quantised; start from the bfloat16 checkpoint",
    "lora_args": "adapters are not part of the model; merge them, or load the plain checkpoint",
}


@dataclass(frozen=True)
class Widths:
    """The reference's rule for feed-forward widths.

    ``before = int(multiplier * int(2 * int(exponent * D) / 3))``; a dense width is ``before``
    rounded up to a multiple of ``multiple_of``; an expert's is ``int(before / (capacity + 1))``
    rounded up likewise, or the dense width without ``auto_scale``.
    """

    exponent: float
    multiplier: float | None
    multiple_of: int
    capacity: float
    auto_scale: bool

    def of(self, width: int) -> tuple[int, int]:
        """Dense and expert width at model width D."""
        before = int(2 * int(self.exponent * width) / 3)
        if self.multiplier is not None:
            before = int(self.multiplier * before)
        expert = int(before / (self.capacity + 1)) if self.auto_scale else before
        return self._up(before), self._up(expert)

    def _up(self, value: int) -> int:
        return -(-value // self.multiple_of) * self.multiple_of


def spec_from_meta(
    params: Mapping[str, Any],
    where: str = "params.json",
    *,
    max_positions: int | None = None,
    tokens: TokenIds | None = None,
    name: str = "llama4",
    dtype: str = "bfloat16",
) -> ModelSpec:
    """The model that a ``params.json`` describes.

    Args:
        params: the parsed file; everything may stand below one key ``model``, which transformers'
            converter reads too.
        where: file name, the beginning of every error.
        max_positions: longest context; None takes ``max_seq_len``.
        tokens: ids with a meaning, from the tokenizer.
        name: of the spec.
        dtype: of the stored weights.

    Raises:
        SpecError: a key is unknown, refused or missing, or the longest context is not given.
    """
    below = params.get("model")
    if isinstance(below, Mapping):
        beside = sorted(params.keys() - {"model"})
        if beside:
            raise SpecError(
                f"{where}: holds {beside[0]!r} beside 'model'; expected all numbers below 'model', "
                "or all without it"
            )
        params = below
    keys = ForeignKeys(params, where, _KEYS)
    keys.refuse(_REFUSED)
    kept = keys.carried(("max_batch_size",))
    longest = keys.count("max_seq_len", None)
    if longest is not None:
        kept["max_seq_len"] = longest
    positions = max_positions if max_positions is not None else longest
    if positions is None:
        raise SpecError(
            f"{where}: max_seq_len is missing and no max_positions was given; expected one of the "
            "two (Scout 10485760, Maverick 1048576, base models 262144)"
        )
    count, width, heads = keys.count("n_layers"), keys.count("dim"), keys.count("n_heads")
    if "head_dim" not in keys and width % heads:
        keys.fail("dim", width, f"a multiple of n_heads, {heads}, where head_dim is absent")
    interval = keys.count("nope_layer_interval", None)
    position_free = every(interval, count)
    if interval is not None and not position_free:
        kept["nope_layer_interval"] = interval
    moe_values = keys.take("moe_args", None)
    moe_keys = ForeignKeys(
        moe_values if moe_values is not None else {}, f"{where}, moe_args", _MOE_KEYS
    )
    rule = _rule(keys, moe_keys)
    dense, expert = rule.of(width)
    step, moe = None, None
    if moe_values is not None:
        step = moe_keys.count("interleave_moe_layer_step", 1)
        moe = MoESpec(
            experts=moe_keys.count("num_experts"),
            top_k=moe_keys.count("top_k"),
            width=expert,
            shared_width=expert,
            router="sigmoid-top-k",
        )
    moe_keys.finish()
    kept["widths"] = {
        key: value
        for key, value in (
            ("ffn_exp", rule.exponent),
            ("ffn_dim_multiplier", rule.multiplier),
            ("multiple_of", rule.multiple_of),
            ("capacity_factor", rule.capacity),
            ("auto_scale_F", rule.auto_scale),
        )
        if value is not None
    }
    spec = ModelSpec(
        name=name,
        vocabulary=keys.count("vocab_size"),
        width=width,
        norm_eps=keys.number("norm_eps"),
        max_positions=positions,
        tied=False,
        layers=llama4_layers(
            count,
            heads=heads,
            kv_heads=keys.count("n_kv_heads", heads),
            head_dim=keys.count("head_dim", width // heads),
            rope=_rope(keys, kept),
            chunk=keys.count("attention_chunk_size", None),
            qk_norm=keys.flag("use_qk_norm", False),
            temperature=_temperature(keys, kept, bool(position_free)),
            position_free=position_free,
            moe_layers=every(step, count),
            moe=moe,
            dense=DenseSpec(dense),
        ),
        vision=_vision(keys.take("vision_args", None), f"{where}, vision_args"),
        tokens=tokens or TokenIds(),
        dtype=dtype,
        source={"meta": kept},
    )
    keys.finish()
    return spec


def meta_from_spec(spec: ModelSpec) -> dict[str, Any]:
    """The ``params.json`` of a model.

    Token ids, name and dtype are not written: the format has no place for them.

    Raises:
        SpecError: the format cannot express the model.
    """
    common = layers_in_common(spec, "params.json")
    found = spec.source.get("meta", {})
    kept = found if isinstance(found, Mapping) else {}
    count = len(spec.layers)
    if spec.tied:
        raise SpecError(f"{spec.name!r} ties its head to the embedding; params.json cannot say it")
    if common.unchunked and common.chunk is not None:
        raise SpecError(
            f"layer {common.unchunked[0]} of {spec.name!r} has positions and no chunk, beside "
            "chunked layers; params.json has one chunk for all"
        )
    interval = _interval(spec, "position-free", common.position_free)
    step = _interval(spec, "mixture-of-experts", common.moe_layers)
    widths = _find_widths(spec, common.dense, common.moe, kept.get("widths", {}))
    params: dict[str, Any] = {
        "dim": spec.width,
        "n_layers": count,
        "n_heads": common.heads,
        "n_kv_heads": common.kv_heads,
        "head_dim": common.head_dim,
        "vocab_size": spec.vocabulary,
        "norm_eps": spec.norm_eps,
        "max_seq_len": spec.max_positions,
        "multiple_of": widths.multiple_of,
        "ffn_exp": widths.exponent,
        "attention_chunk_size": common.chunk,
        "nope_layer_interval": interval if interval is not None
        else kept.get("nope_layer_interval"),
        "use_qk_norm": bool(common.qk_norm),
        "attn_temperature_tuning": common.temperature is not None,
        "rope_theta": common.rope.theta if common.rope else kept.get("rope_theta", 500_000.0),
        "use_scaled_rope": False,
    }  # fmt: skip
    if widths.multiplier is not None:
        params["ffn_dim_multiplier"] = widths.multiplier
    if common.temperature is not None:
        params["floor_scale"] = common.temperature.floor
        params["attn_scale"] = common.temperature.scale
    else:
        params |= {key: kept[key] for key in ("floor_scale", "attn_scale") if key in kept}
    if "max_batch_size" in kept:
        params["max_batch_size"] = kept["max_batch_size"]
    if common.rope is not None and common.rope.scaling is not None:
        params |= _scaling(spec, common.rope.scaling)
    if common.moe is not None:
        params["moe_args"] = {
            "num_experts": common.moe.experts,
            "top_k": common.moe.top_k,
            "interleave_moe_layer_step": step,
            "capacity_factor": widths.capacity,
            "auto_scale_F": widths.auto_scale,
        }
    if spec.vision is not None:
        params["vision_args"] = _vision_args(spec.vision)
    return params


# --- in ------------------------------------------------------------------------------------


def _rule(keys: ForeignKeys, moe: ForeignKeys) -> Widths:
    return Widths(
        exponent=keys.number("ffn_exp", 4.0),
        multiplier=keys.number("ffn_dim_multiplier", None),
        multiple_of=keys.count("multiple_of"),
        capacity=moe.number("capacity_factor", 1.0),
        auto_scale=moe.flag("auto_scale_F", True),
    )


def _rope(keys: ForeignKeys, kept: dict[str, Any]) -> RopeSpec:
    theta = keys.number("rope_theta")
    kept["rope_theta"] = theta
    factor = keys.number("rope_scaling_factor", None)
    high = keys.number("rope_high_freq_factor", None)
    if not keys.flag("use_scaled_rope", False):
        return RopeSpec(theta)
    return RopeSpec(
        theta,
        RopeScaling(
            factor=factor if factor is not None else _SCALING_FACTOR,
            low_frequency_factor=_LOW_FREQUENCY_FACTOR,
            high_frequency_factor=high if high is not None else _HIGH_FREQUENCY_FACTOR,
            original_length=_ORIGINAL_LENGTH,
        ),
    )


def _temperature(keys: ForeignKeys, kept: dict[str, Any], needed: bool) -> TemperatureSpec | None:
    given = {key: keys.number(key) for key in ("floor_scale", "attn_scale") if key in keys}
    if keys.flag("attn_temperature_tuning", False) and needed:
        return TemperatureSpec(
            scale=given.get("attn_scale", 0.1), floor=given.get("floor_scale", 8192.0)
        )
    kept |= given
    return None


def _vision(values: object, where: str) -> VisionSpec | None:
    if values is None:
        return None
    keys = ForeignKeys(values, where, _VISION_KEYS)
    width, output = keys.count("dim"), keys.count("output_dim")
    spec = VisionSpec(
        width=width,
        layers=keys.count("n_layers"),
        heads=keys.count("n_heads"),
        mlp_width=int(keys.number("mlp_ratio") * width),
        image_size=_side(keys, "image_size"),
        patch_size=_side(keys, "patch_size"),
        channels=_CHANNELS,
        shuffle_ratio=keys.number("pixel_shuffle_ratio"),
        adapter_width=output,
        adapter_output=output,
        theta=_VISION_THETA,
        norm_eps=_VISION_EPS,
    )
    keys.finish()
    return spec


def _side(keys: ForeignKeys, key: str) -> int:
    inner = ForeignKeys(keys.take(key), f"{keys.where}, {key}", ("height", "width"))
    height, width = inner.count("height"), inner.count("width")
    inner.finish()
    if height != width:
        keys.fail(key, f"{height} x {width}", "a square")
    return int(height)


# --- out -----------------------------------------------------------------------------------


def _interval(spec: ModelSpec, what: str, layers: tuple[int, ...]) -> int | None:
    if not layers:
        return None
    interval = layers[0] + 1
    if every(interval, len(spec.layers)) != layers:
        raise SpecError(
            f"the {what} layers of {spec.name!r} are {list(layers)}; params.json can only say "
            "every n-th: save in the native format"
        )
    return interval


def _find_widths(
    spec: ModelSpec, dense: DenseSpec | None, moe: MoESpec | None, kept: Mapping[str, Any]
) -> Widths:
    """Numbers that make the rule yield the widths: those that were read, or else found."""

    def fits(rule: Widths) -> bool:
        plain, expert = rule.of(spec.width)
        return (dense is None or plain == dense.width) and (moe is None or expert == moe.width)

    candidates = []
    if kept:
        candidates.append(
            Widths(
                kept["ffn_exp"],
                kept.get("ffn_dim_multiplier"),
                kept["multiple_of"],
                kept["capacity_factor"],
                kept["auto_scale_F"],
            )
        )
    base = int(2 * int(4.0 * spec.width) / 3)
    for multiple in (2048, 1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1):
        for auto_scale in (True, False):
            targets = [dense.width] if dense is not None else []
            if moe is not None:
                targets.append(moe.width * (2 if auto_scale else 1))
            candidates += [
                # The half keeps the product above the whole number when it is cut off.
                Widths(4.0, (min(targets) + 0.5) / base, multiple, 1.0, auto_scale)
            ]
    for candidate in candidates:
        if fits(candidate):
            return candidate
    raise SpecError(
        f"{spec.name!r} has dense width {dense.width if dense else None} and expert width "
        f"{moe.width if moe else None}; params.json derives both from one number and cannot say "
        "that: save in the native format"
    )


def _scaling(spec: ModelSpec, scaling: RopeScaling) -> dict[str, Any]:
    fixed = (scaling.low_frequency_factor, scaling.original_length)
    if fixed != (_LOW_FREQUENCY_FACTOR, _ORIGINAL_LENGTH):
        raise SpecError(
            f"{spec.name!r} scales positions with low factor {fixed[0]} and original length "
            f"{fixed[1]}; params.json implies {_LOW_FREQUENCY_FACTOR} and {_ORIGINAL_LENGTH}"
        )
    return {
        "use_scaled_rope": True,
        "rope_scaling_factor": scaling.factor,
        "rope_high_freq_factor": scaling.high_frequency_factor,
    }


def _vision_args(vision: VisionSpec) -> dict[str, Any]:
    for slot, name in vision.foreign_parts:
        raise SpecError(
            f"vision.{slot} is {name!r}, which params.json has no word for; save in the native "
            "format instead"
        )
    fixed = (vision.theta, vision.norm_eps, vision.channels)
    if fixed != (_VISION_THETA, _VISION_EPS, _CHANNELS):
        raise SpecError(
            f"the vision encoder has theta, norm_eps and channels {fixed}; params.json implies "
            f"{(_VISION_THETA, _VISION_EPS, _CHANNELS)}"
        )
    if vision.adapter_width != vision.adapter_output:
        raise SpecError(
            f"the vision adapter is {vision.adapter_width} wide inside and "
            f"{vision.adapter_output} at its end; params.json has one number for both"
        )
    ratio = vision.mlp_width / vision.width
    if int(ratio * vision.width) != vision.mlp_width:  # the reader cuts the product off
        ratio = (vision.mlp_width + 0.5) / vision.width
    return {
        "image_size": {"height": vision.image_size, "width": vision.image_size},
        "patch_size": {"height": vision.patch_size, "width": vision.patch_size},
        "dim": vision.width,
        "n_layers": vision.layers,
        "n_heads": vision.heads,
        "mlp_ratio": ratio,
        "output_dim": vision.adapter_output,
        "pixel_shuffle_ratio": vision.shuffle_ratio,
    }
