"""What a model costs, by arithmetic alone: parameters, bytes of weights, bytes of a user's cache.

Nothing is assembled and no tensor library imported. A meta-device assembly has the same totals;
tests compare the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llama4_core.errors import SpecError
from llama4_core.protocols.masks import Causal, Chunked, Mask, SlidingWindow
from llama4_core.protocols.states import StateSpec
from llama4_core.specs.model import AttentionSpec, DenseSpec, ModelSpec, VisionSpec

#: Context lengths that are reported: 8K, 128K, 1M, 10M.
LENGTHS = (8 * 1024, 128 * 1024, 1024 * 1024, 10 * 1024 * 1024)

#: Inputs that share one scale in the int4 format.
INT4_GROUP = 128


@dataclass(frozen=True)
class KeyValueBytes:
    """Keys and values of one user in bfloat16, and recurrent states, which are kept in float32.

    Attributes:
        length: tokens in the context.
        full: bytes when every layer keeps every token.
        bounded: bytes when a layer keeps only what its mask may still show. The chunks are paid
            per user.
    """

    length: int
    full: int
    bounded: int


@dataclass(frozen=True)
class Accounting:
    """The costs of a model.

    Attributes:
        parts: parameters by part: embedding, head (0 when tied), attention, router,
            routed_experts, shared_experts, dense_feed_forward, norms, vision_encoder,
            vision_adapter, vision_projector.
        total: all parameters.
        text: those of the text model.
        active: those that one token of text passes, embedding and head included.
        weight_bytes: by format: "bf16"; "fp8", routed experts as e4m3 with a float32 scale per
            output row, the rest bf16; "int4", routed and shared experts as 4 bits with a float32
            scale for each 128 inputs, the rest bf16.
        scale_bytes: how much of ``weight_bytes`` are scales.
        cache: for each of :data:`LENGTHS`.
        cache_bytes_per_token: bytes that each further token of a long context adds to one user,
            with bounded caches.
        unknown: parts of the model that are in no figure, because only their component knows how
            many parameters they have: "vision_encoder 'siglip'". An assembly on the meta device
            holds them.
    """

    parts: Mapping[str, int]
    total: int
    text: int
    active: int
    weight_bytes: Mapping[str, int]
    scale_bytes: Mapping[str, int]
    cache: tuple[KeyValueBytes, ...]
    cache_bytes_per_token: int
    unknown: tuple[str, ...] = ()


def account(spec: ModelSpec) -> Accounting:
    """Count a model.

    Raises:
        SpecError: a layer has a mixer whose parameters are not known here.
    """
    parts = dict.fromkeys(
        (
            "embedding", "head", "attention", "router", "routed_experts", "shared_experts",
            "dense_feed_forward", "norms", "vision_encoder", "vision_adapter", "vision_projector",
        ),
        0,
    )  # fmt: skip
    d = spec.width
    parts["embedding"] = spec.vocabulary * d
    parts["head"] = 0 if spec.tied else spec.vocabulary * d
    parts["norms"] = (2 * len(spec.layers) + 1) * d
    idle = rows = groups = 0
    unknown: tuple[str, ...] = ()
    for layer in spec.layers:
        parts["attention"] += _mixer_parameters(layer.attention, d)
        feed_forward = layer.feed_forward
        if isinstance(feed_forward, DenseSpec):
            parts["dense_feed_forward"] += 3 * d * feed_forward.width
            continue
        f, shared = feed_forward.width, feed_forward.shared_width
        parts["router"] += feed_forward.experts * d
        parts["routed_experts"] += feed_forward.experts * 3 * d * f
        parts["shared_experts"] += 3 * d * shared
        idle += (feed_forward.experts - feed_forward.top_k) * 3 * d * f
        rows += feed_forward.experts * (2 * f + d)
        groups += feed_forward.experts * _groups(d, f) + (_groups(d, shared) if shared else 0)
    if spec.vision is not None:
        unknown = _vision_parameters(spec.vision, d, parts)

    total = sum(parts.values())
    text = total - sum(count for name, count in parts.items() if name.startswith("vision"))
    routed, shared_total = parts["routed_experts"], parts["shared_experts"]
    scales = {"bf16": 0, "fp8": 4 * rows, "int4": 4 * groups}
    packed = routed + shared_total
    states = states_of(spec)
    return Accounting(
        parts=parts,
        total=total,
        text=text,
        active=text - idle,
        weight_bytes={
            "bf16": 2 * total,
            "fp8": routed + 2 * (total - routed) + scales["fp8"],
            "int4": (packed + 1) // 2 + 2 * (total - packed) + scales["int4"],
        },
        scale_bytes=scales,
        cache=tuple(cache_bytes(states, length) for length in LENGTHS),
        cache_bytes_per_token=2
        * sum(state.elements_per_token for state in states if _horizon(state.mask) is None),
        unknown=unknown,
    )


def states_of(spec: ModelSpec) -> list[StateSpec]:
    """What each layer keeps between forwards, first to last."""
    return [_state(layer.attention) for layer in spec.layers]


def cache_bytes(states: list[StateSpec], length: int) -> KeyValueBytes:
    """The cache of one user with ``length`` tokens.

    Two bytes for each number of keys and values, four for each of a recurrent state.
    """

    def total(*, bounded: bool) -> int:
        return sum(
            4 * state.constant_elements
            + 2 * state.elements_per_token * state.tokens_kept(length, bounded=bounded)
            for state in states
        )

    return KeyValueBytes(length, full=total(bounded=False), bounded=total(bounded=True))


def _groups(d: int, f: int) -> int:
    """Scales of one SwiGLU in int4: gate and up take D inputs, down takes F."""
    return 2 * f * -(-d // INT4_GROUP) + d * -(-f // INT4_GROUP)


def _vision_parameters(vision: VisionSpec, d: int, parts: dict[str, int]) -> tuple[str, ...]:
    """Adds the eyes to ``parts``; returns what of them cannot be counted."""
    parts["vision_encoder"] = vision.encoder_parameters or 0
    parts["vision_adapter"] = vision.adapter_parameters or 0
    unknown = [f"vision_{slot} {name!r}" for slot, name in vision.foreign_parts]
    if vision.adapter_parameters is None:
        # As wide as what the adapter gives.
        unknown.append("vision_projector")
    else:
        parts["vision_projector"] = vision.adapter_output * d
    return tuple(unknown)


def _mixer_parameters(attention: AttentionSpec, d: int) -> int:
    query, key = attention.heads * attention.head_dim, attention.kv_heads * attention.head_dim
    if attention.mixer == "softmax":
        return 2 * d * query + 2 * d * key + (attention.heads if attention.sink else 0)
    if attention.mixer == "gated-linear":
        return 4 * d * query + d * attention.heads
    raise SpecError(
        f"the parameters of mixer {attention.mixer!r} are not known here; expected 'softmax' or "
        "'gated-linear': assemble the model on the meta device and count there"
    )


def _state(attention: AttentionSpec) -> StateSpec:
    if attention.mixer != "softmax":
        return StateSpec(constant_elements=attention.heads * attention.head_dim**2)
    mask: Mask = Causal()
    if attention.chunk is not None:
        mask = mask & Chunked(attention.chunk)
    if attention.window is not None:
        mask = mask & SlidingWindow(attention.window)
    return StateSpec(
        elements_per_token=2 * attention.kv_heads * attention.head_dim, mask=mask, split="kv_heads"
    )


def _horizon(mask: Mask | None) -> int | None:
    """Most tokens that a layer keeps; None for all of them."""
    probe = StateSpec(elements_per_token=1, mask=mask)
    kept = probe.tokens_kept(1 << 62)
    return None if kept == 1 << 62 else kept
