"""Names and shapes of all weights of a model, in our names and in Hugging Face's.

The tables are generated from a :class:`ModelSpec`, total and one to one: every weight of the model
has exactly one row. Hugging Face stores experts ``[E, in, out]``; ours are ``[E, out, in]``, so
their rows are marked transposed and mapping them is a view, never a copy.

Vision weights stand behind ``vision.``, by the names of the modules in another package that use
them.

Source of the foreign names: transformers 5.23, ``models/llama4/modeling_llama4.py``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from llama4_core.errors import CheckpointError
from llama4_core.specs import LayerSpec, ModelSpec, MoESpec, VisionSpec

VISION = "vision."
PROJECTOR = "projector.weight"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Naming:
    """How a Hugging Face class prefixes its keys."""

    text: str
    head: str
    vision: str


# Llama4ForCausalLM; Llama4ForConditionalGeneration as its checkpoints are stored; the same class as
# newer versions nest it in memory, which some exporters write as it is.
CAUSAL = Naming("model.", "lm_head.weight", "")
CONDITIONAL = Naming("language_model.model.", "language_model.lm_head.weight", "")
NESTED = Naming("model.language_model.", "lm_head.weight", "model.")
NAMINGS = (CAUSAL, CONDITIONAL, NESTED)


@dataclass(frozen=True)
class Row:
    """One weight: our name, theirs, our shape, and whether theirs has the last two axes swapped."""

    ours: str
    theirs: str
    shape: Shape
    transposed: bool = False

    @property
    def their_shape(self) -> Shape:
        """The shape as Hugging Face stores it."""
        if not self.transposed:
            return self.shape
        return (*self.shape[:-2], self.shape[-1], self.shape[-2])


def huggingface_rows(spec: ModelSpec, naming: Naming) -> list[Row]:
    """Every weight of ``spec``, in the order of the model.

    Raises:
        CheckpointError: the spec has a part that Hugging Face's Llama 4 has no name for.
    """
    for index, layer in enumerate(spec.layers):
        if layer.attention.mixer != "softmax":
            raise _no_name(f"layers.{index}.attention is a mixer {layer.attention.mixer!r}")
        if layer.attention.sink:
            raise _no_name(f"layers.{index}.attention has a learned sink")
    for slot, got in spec.vision.foreign_parts if spec.vision is not None else ():
        raise _no_name(f"vision.{slot} is {got!r}")
    return _rows(spec, naming)


def of_foreign_vision(vision: VisionSpec, name: str) -> bool:
    """Whether only a component knows the weight ``name`` (without ``vision.``)."""
    slots = [slot for slot, _ in vision.foreign_parts]
    return name.startswith(tuple(f"{slot}." for slot in slots)) or (
        # As wide as what the adapter gives.
        name == PROJECTOR and "adapter" in slots
    )


def of_foreign_part(spec: ModelSpec, name: str) -> bool:
    """Whether only a component knows the weight ``name``: then no table here has it."""
    if spec.vision is not None and name.startswith(VISION):
        return of_foreign_vision(spec.vision, name.removeprefix(VISION))
    own = [
        f"layers.{i}.attention."
        for i, x in enumerate(spec.layers)
        if x.attention.mixer != "softmax"
    ]
    return name.startswith(tuple(own))


def native_shapes(spec: ModelSpec) -> dict[str, Shape]:
    """Our name -> shape of the weights of ``spec``, vision included.

    Of a mixer other than softmax, and of another encoder or adapter than Llama 4's, only the
    component itself knows the weights; they are left out.
    """
    shapes = {row.ours: row.shape for row in _rows(spec, CONDITIONAL)}
    for index, layer in enumerate(spec.layers):
        path = f"layers.{index}.attention."
        if layer.attention.mixer != "softmax":
            shapes = {name: shape for name, shape in shapes.items() if not name.startswith(path)}
        elif layer.attention.sink:
            shapes[path + "variant.sink"] = (layer.attention.heads,)
    return shapes


def _rows(spec: ModelSpec, naming: Naming) -> list[Row]:
    text, width = naming.text, spec.width
    rows = [Row("embedding.weight", f"{text}embed_tokens.weight", (spec.vocabulary, width))]
    for index, layer in enumerate(spec.layers):
        ours, theirs = f"layers.{index}.", f"{text}layers.{index}."
        rows += [
            Row(ours + name, theirs + foreign, shape, transposed)
            for name, foreign, shape, transposed in _layer(layer, width)
        ]
    rows.append(Row("norm.weight", f"{text}norm.weight", (width,)))
    if not spec.tied:
        rows.append(Row("head.weight", naming.head, (spec.vocabulary, width)))
    if spec.vision is not None:
        rows += [
            Row(VISION + row.ours, naming.vision + row.theirs, row.shape)
            for row in vision_rows(spec.vision, width)
        ]
    return rows


def _layer(layer: LayerSpec, D: int) -> list[tuple[str, str, Shape, bool]]:
    attention, feed_forward = layer.attention, layer.feed_forward
    queries = attention.heads * attention.head_dim
    keys = attention.kv_heads * attention.head_dim
    rows: list[tuple[str, str, Shape, bool]] = [
        ("attention_norm.weight", "input_layernorm.weight", (D,), False),
        ("attention.q_proj.weight", "self_attn.q_proj.weight", (queries, D), False),
        ("attention.k_proj.weight", "self_attn.k_proj.weight", (keys, D), False),
        ("attention.v_proj.weight", "self_attn.v_proj.weight", (keys, D), False),
        ("attention.o_proj.weight", "self_attn.o_proj.weight", (D, queries), False),
        ("feed_forward_norm.weight", "post_attention_layernorm.weight", (D,), False),
    ]
    path = "feed_forward."
    if isinstance(feed_forward, MoESpec):
        E, F = feed_forward.experts, feed_forward.width
        banks: list[tuple[str, Shape, bool]] = [
            ("router.weight", (E, D), False),
            ("experts.gate_up_proj", (E, 2 * F, D), True),
            ("experts.down_proj", (E, D, F), True),
        ]
        rows += [(path + name, path + name, shape, swap) for name, shape, swap in banks]
        path, width = "feed_forward.shared_expert.", feed_forward.shared_width
    else:
        width = feed_forward.width
    if width:
        for name, shape in (("gate", (width, D)), ("up", (width, D)), ("down", (D, width))):
            rows.append((f"{path}{name}_proj.weight", f"{path}{name}_proj.weight", shape, False))
    return rows


def vision_rows(vision: VisionSpec, text_width: int) -> list[Row]:
    """Encoder, adapter and projection into the text model, without their prefixes.

    Of an encoder or an adapter other than Llama 4's only the component itself knows the weights,
    and how wide the projection behind it is; they are left out.
    """
    rows: list[Row] = []
    slots = [slot for slot, _ in vision.foreign_parts]
    if "encoder" not in slots:
        rows += [
            Row(f"encoder.{ours}", f"vision_model.{theirs}", shape)
            for ours, theirs, shape in _encoder(vision)
        ]
    if "adapter" not in slots:
        shuffled = round(vision.width / vision.shuffle_ratio**2)
        inner, theirs = vision.adapter_width, "vision_model.vision_adapter.mlp."
        rows += [
            Row("adapter.fc1.weight", f"{theirs}fc1.weight", (inner, shuffled)),
            Row("adapter.fc2.weight", f"{theirs}fc2.weight", (vision.adapter_output, inner)),
            Row(
                PROJECTOR,
                "multi_modal_projector.linear_1.weight",
                (text_width, vision.adapter_output),
            ),
        ]
    return rows


def _encoder(vision: VisionSpec) -> Iterator[tuple[str, str, Shape]]:
    D, F = vision.width, vision.mlp_width
    patches = (vision.image_size // vision.patch_size) ** 2
    yield "class_embedding", "class_embedding", (D,)
    yield "positional_embedding", "positional_embedding_vlm", (patches + 1, D)
    pixels = vision.channels * vision.patch_size**2
    yield "patch_embedding.weight", "patch_embedding.linear.weight", (D, pixels)
    for norm in ("pre", "post"):
        for part in ("weight", "bias"):
            yield f"norm_{norm}.{part}", f"layernorm_{norm}.{part}", (D,)
    for index in range(vision.layers):
        for ours, theirs, shape in (
            *((f"attention.{part}_proj", f"self_attn.{part}_proj", (D, D)) for part in "qkvo"),
            ("feed_forward.fc1", "mlp.fc1", (F, D)),
            ("feed_forward.fc2", "mlp.fc2", (D, F)),
            ("attention_norm", "input_layernorm", (D,)),
            ("feed_forward_norm", "post_attention_layernorm", (D,)),
        ):
            place, foreign = f"layers.{index}.{ours}", f"model.layers.{index}.{theirs}"
            yield f"{place}.weight", f"{foreign}.weight", shape
            yield f"{place}.bias", f"{foreign}.bias", shape[:1]


def naming_of(keys: Iterable[str]) -> Naming:
    """The naming that most of ``keys`` follow."""
    counts = dict.fromkeys(NAMINGS, 0)
    for key in keys:
        for naming in NAMINGS:
            # What follows tells the text model from the encoder, whose prefix may begin alike.
            counts[naming] += key.startswith(
                tuple(naming.text + part for part in ("embed_tokens.", "layers.", "norm."))
            )
    return max(counts, key=lambda naming: counts[naming])


def check_keys(
    got: Mapping[str, Shape], expected: Mapping[str, Shape], where: str, *, up_to: int = 5
) -> None:
    """Compares stored shapes with expected ones.

    Raises:
        CheckpointError: one line with up to five of the missing, extra and misshaped keys.
    """
    missing = [key for key in expected if key not in got]
    extra = [key for key in got if key not in expected]
    wrong = [key for key in expected if key in got and tuple(got[key]) != tuple(expected[key])]
    problems = []
    if missing:
        problems.append(_listed("missing", missing, up_to))
    if extra:
        candidates = missing or list(expected)
        shown = [key + _nearest(key, candidates) for key in extra[:up_to]]
        problems.append(_listed("not part of this model", shown, up_to, len(extra)))
    if wrong:
        shown = [
            f"{key} has {_dims(got[key])}, expected {_dims(expected[key])}" for key in wrong[:up_to]
        ]
        problems.append(_listed("misshaped", shown, up_to, len(wrong)))
    if problems:
        raise CheckpointError(
            f"{where}: the weights do not fit the model described: {'; '.join(problems)}; check "
            "that the description and the weights belong together"
        )


def _listed(what: str, keys: list[str], up_to: int, total: int | None = None) -> str:
    total = len(keys) if total is None else total
    rest = f" and {total - up_to} more" if total > up_to else ""
    return f"{total} {what}: {', '.join(keys[:up_to])}{rest}"


def _nearest(key: str, candidates: list[str]) -> str:
    close = difflib.get_close_matches(key, candidates, n=1, cutoff=0.8)
    return f" (did you mean {close[0]}?)" if close else ""


def _dims(shape: Shape) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def _no_name(what: str) -> CheckpointError:
    return CheckpointError(
        f"{what}, which Hugging Face's Llama 4 has no name for; save in the native format instead"
    )
