"""Names, shapes and cuts of all weights in Meta's layout, for any number of shards.

Every row says which ranges of our weights one of Meta's keys holds, how it is cut over the shards
and how it is laid out. The same row reads and writes:

* ``sources``: ranges ``[start, start + length)`` of our weights along ``axis``. Each is cut into as
  many equal parts as there are shards; a shard's key holds its parts stacked along the first axis
  (``wqkv``: its queries, then its keys, then its values; ``fc1``: its gates, then its ups).
* ``shared``: every shard holds all of it.
* ``swapped``: the last two axes lie the other way round.

Stacks of experts ``[E, a, b]`` are stored ``[E * a, b]``.

Source: the load hooks of Meta's reference code (llama-models, ``models/llama4``: ``model.py``,
``moe.py``, ``ffn.py``, ``vision/``) and the table in transformers 5.23,
``convert_llama4_weights_to_hf.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from llama4_core.checkpoints.keys import VISION, Shape, native_shapes
from llama4_core.errors import CheckpointError
from llama4_core.specs import ModelSpec, MoESpec

# Counters and buffers of training that the reference code drops, by name.
JUNK = re.compile(
    r"(^|\.)(_extra_state|global_gate_stats_3E|running_gate_stats_3E|expert_activation_DE"
    r"|rope\.freqs|freqs?_cis)$"
)


@dataclass(frozen=True)
class Source:
    """A range of one of our weights along ``axis``."""

    ours: str
    axis: int
    start: int
    length: int


@dataclass(frozen=True)
class MetaRow:
    """One of Meta's keys; ``shape`` is that of a shard. ``aliases`` are names read but not written.

    ``stacked`` is the number of experts, or 0 for what is no stack.
    """

    theirs: str
    sources: tuple[Source, ...]
    shape: Shape
    shared: bool = False
    swapped: bool = False
    stacked: int = 0
    aliases: tuple[str, ...] = ()


def meta_rows(spec: ModelSpec, shards: int) -> list[MetaRow]:
    """Every weight of ``spec`` as ``shards`` files of Meta's hold it.

    Raises:
        CheckpointError: the format has no name for a part, or a weight cannot be cut so often.
    """
    _check(spec, shards)
    shapes = native_shapes(spec)
    rows = [
        *_Builder(shapes, shards).rows(_text(spec, shapes)),
        *_Builder(shapes, shards).rows(_vision(shapes)),
    ]
    covered = {source.ours for row in rows for source in row.sources}
    left = [name for name in shapes if name not in covered]
    if left:
        raise CheckpointError(
            f"{left[0]} has no name in Meta's format; save in the native format instead"
        )
    return rows


def _check(spec: ModelSpec, shards: int) -> None:
    if shards < 1:
        raise CheckpointError(f"shards is {shards}; expected at least 1")
    if spec.tied:
        raise CheckpointError(
            "the head is tied to the embedding, which Meta's format cannot say; save in the native "
            "format instead"
        )
    for index, layer in enumerate(spec.layers):
        if layer.attention.mixer != "softmax" or layer.attention.sink:
            what = "a learned sink" if layer.attention.sink else repr(layer.attention.mixer)
            raise CheckpointError(
                f"layers.{index}.attention has {what}, which Meta's format has no name for; save "
                "in the native format instead"
            )
        for what, count in (
            ("heads", layer.attention.heads),
            ("kv heads", layer.attention.kv_heads),
        ):
            if count % shards:
                raise _indivisible(f"layers.{index}.attention: {what}", count, shards)
    if spec.vision is not None and spec.vision.heads % shards:
        raise _indivisible("the vision encoder: heads", spec.vision.heads, shards)


def _indivisible(what: str, count: int, shards: int) -> CheckpointError:
    return CheckpointError(
        f"{what} is {count}, which {shards} shards cannot share equally; choose a number of shards "
        f"that divides {count}"
    )


@dataclass(frozen=True)
class _Row:
    theirs: str
    # Our name and, where a key holds only a part of it, (part, of how many) along the axis.
    ours: tuple[tuple[str, int, int], ...]
    axis: int | None
    swapped: bool = False
    aliases: tuple[str, ...] = ()


def _row(theirs: str, ours: str, axis: int | None, *aliases: str, swapped: bool = False) -> _Row:
    return _Row(theirs, ((ours, 0, 1),), axis, swapped, aliases)


def _text(spec: ModelSpec, shapes: Mapping[str, Shape]) -> Iterator[_Row]:
    yield _row("tok_embeddings.weight", "embedding.weight", 0)
    for index, layer in enumerate(spec.layers):
        here = f"layers.{index}."
        yield _row(
            f"{here}attention.wqkv.layer_norm_weight",
            f"{here}attention_norm.weight",
            None,
            f"{here}attention_norm.weight",
        )
        projections = tuple((f"{here}attention.{part}_proj.weight", 0, 1) for part in "qkv")
        yield _Row(f"{here}attention.wqkv.weight", projections, 0)
        yield _row(f"{here}attention.wo.weight", f"{here}attention.o_proj.weight", 1)
        moe = isinstance(layer.feed_forward, MoESpec)
        forward = f"{here}feed_forward."
        norms = [f"{forward}norm.weight", f"{forward}mlp.layer_norm_weight"]
        written = norms.pop(0 if moe else 1)
        yield _row(
            written, f"{here}feed_forward_norm.weight", None, *norms, f"{here}ffn_norm.weight"
        )
        yield from _mixture(forward, shapes) if moe else _dense(forward)
    yield _row("norm.weight", "norm.weight", None)
    yield _row("output.weight", "head.weight", 0)


def _dense(forward: str) -> Iterator[_Row]:
    halves = tuple((f"{forward}{part}_proj.weight", 0, 1) for part in ("gate", "up"))
    yield _Row(f"{forward}mlp.fc1_weight", halves, 0)
    yield _row(f"{forward}mlp.fc2_weight", f"{forward}down_proj.weight", 1)


def _mixture(forward: str, shapes: Mapping[str, Shape]) -> Iterator[_Row]:
    yield _row(f"{forward}router_DE", f"{forward}router.weight", None, swapped=True)
    bank = f"{forward}experts."
    fused = f"{bank}gate_up_proj"
    yield _Row(f"{bank}moe_w_in_eD_F", ((fused, 0, 2),), 1, swapped=True)
    yield _Row(f"{bank}moe_w_swiglu_eD_F", ((fused, 1, 2),), 1, swapped=True)
    yield _row(f"{bank}moe_w_out_eF_D", f"{bank}down_proj", 2, swapped=True)
    shared = f"{forward}shared_expert."
    if f"{shared}gate_proj.weight" in shapes:
        yield _row(f"{forward}w_in_shared_FD.weight", f"{shared}gate_proj.weight", 0)
        yield _row(f"{forward}w_swiglu_FD.weight", f"{shared}up_proj.weight", 0)
        yield _row(f"{forward}w_out_shared_DF.weight", f"{shared}down_proj.weight", 1)


# Below "vision.": our name, Meta's, and the axis that is cut (None: every shard has it).
_VISION_NAMES: tuple[tuple[str, str, int | None], ...] = (
    (r"encoder\.patch_embedding\.weight", "{encoder}conv1._linear.weight", 0),
    (r"encoder\.class_embedding", "{encoder}class_embedding", None),
    (r"encoder\.positional_embedding", "{encoder}positional_embedding_vlm", None),
    (r"encoder\.norm_(pre|post)\.(weight|bias)", r"{encoder}ln_\1.\2", None),
    (r"{block}attention\.([qkv])_proj\.(weight|bias)", r"{blocks}attn.w\2.\3", 0),
    (r"{block}attention\.o_proj\.weight", r"{blocks}attn.wo.weight", 1),
    (r"{block}attention\.o_proj\.bias", r"{blocks}attn.wo.bias", None),
    (r"{block}feed_forward\.fc1\.(weight|bias)", r"{blocks}mlp.c_fc.\2", 0),
    (r"{block}feed_forward\.fc2\.weight", r"{blocks}mlp.c_proj.weight", 1),
    (r"{block}feed_forward\.fc2\.bias", r"{blocks}mlp.c_proj.bias", None),
    (r"{block}attention_norm\.(weight|bias)", r"{blocks}ln_1.\2", None),
    (r"{block}feed_forward_norm\.(weight|bias)", r"{blocks}ln_2.\2", None),
    (r"adapter\.fc1\.weight", "{adapter}mlp.c_fc.weight", 0),
    (r"adapter\.fc2\.weight", "{adapter}mlp.c_proj.weight", 1),
    (r"projector\.weight", "vision_projection.weight", 0),
)
_PLACES = (
    ("{block}", r"encoder\.layers\.(\d+)\."),
    ("{blocks}", r"vision_embeddings.vision_encoder.transformer.resblocks.\1."),
    ("{encoder}", "vision_embeddings.vision_encoder."),
    ("{adapter}", "vision_embeddings.vision_adapter."),
)


def _vision(shapes: Mapping[str, Shape]) -> Iterator[_Row]:
    table = [(_placed(ours), _placed(theirs), axis) for ours, theirs, axis in _VISION_NAMES]
    for name in shapes:
        if not name.startswith(VISION):
            continue
        for ours, theirs, axis in table:
            match = re.fullmatch(ours, name.removeprefix(VISION))
            if match:
                yield _row(match.expand(theirs), name, axis)


def _placed(pattern: str) -> str:
    for short, long in _PLACES:
        pattern = pattern.replace(short, long)
    return pattern


@dataclass(frozen=True)
class _Builder:
    shapes: Mapping[str, Shape]
    shards: int

    def rows(self, rows: Iterator[_Row]) -> Iterator[MetaRow]:
        for row in rows:
            yield self._row(row)

    def _row(self, row: _Row) -> MetaRow:
        axis = row.axis or 0
        sources = []
        for name, part, of in row.ours:
            length = self.shapes[name][axis] // of
            if row.axis is not None and length % self.shards:
                raise _indivisible(f"{name}: axis {axis}", length, self.shards)
            sources.append(Source(name, axis, part * length, length))
        # Of one shard: the cut axis, then the stacked parts, then the layout.
        shape = list(self.shapes[sources[0].ours])
        held = sum(source.length for source in sources)
        shape[axis] = held if row.axis is None else held // self.shards
        if row.swapped:
            shape[-2:] = reversed(shape[-2:])
        stacked = shape[0] if len(shape) == 3 else 0
        if stacked:
            shape = [shape[0] * shape[1], shape[2]]
        return MetaRow(
            row.theirs,
            tuple(sources),
            tuple(shape),
            shared=row.axis is None,
            swapped=row.swapped,
            stacked=stacked,
            aliases=row.aliases,
        )
