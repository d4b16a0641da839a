"""Real weights at the size of a workstation: some layers and some experts of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llama4_core.checkpoints.convert import opened, write
from llama4_core.checkpoints.formats import SHARD_BYTES
from llama4_core.checkpoints.joined import join
from llama4_core.errors import CheckpointError
from llama4_core.specs import ModelSpec, MoESpec

if TYPE_CHECKING:
    from llama4_core.checkpoints.joined import Weight
    from llama4_core.checkpoints.shards import Progress

# Below a mixture: what has one row or matrix for each expert.
_BY_EXPERT = ("router.weight", "router.bias", "experts.gate_up_proj", "experts.down_proj")


def shrink(
    source: str | Path,
    target: str | Path,
    *,
    layers: Sequence[int] | None = None,
    experts: Sequence[int] | None = None,
    format: str = "native",  # noqa: A002 - the public name of the argument
    source_format: str | None = None,
    max_positions: int | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> ModelSpec:
    """Writes the chosen layers and experts of ``source`` as a model of its own to ``target``.

    The result loads and runs; what it says is not what the whole model would say. Embedding, head,
    image encoder and tokenizer are kept.

    Args:
        source: as in :func:`llama4_core.checkpoints.convert.convert`.
        target: a folder that does not exist, or is empty.
        layers: indices of the layers to keep, ascending; None keeps all.
        experts: indices of the experts to keep in every mixture, ascending; None keeps all. Routers
            keep the rows of these.
        format: name of the format to write.
        source_format: as in ``convert``, like the rest:
        max_positions: longest context, for a params.json that does not say it.
        shard_bytes: about how large a file may become.
        progress: called with bytes written and bytes in total.

    Returns:
        The description of the smaller model.

    Raises:
        CheckpointError: an index is out of range, too few experts are left for the router, or
            anything that ``convert`` refuses.
    """
    folder, spec, weights = opened(source, source_format, max_positions)
    kept = list(range(len(spec.layers))) if layers is None else list(layers)
    _check("layers", kept, len(spec.layers))
    smaller = []
    for index in kept:
        layer = spec.layers[index]
        forward = layer.feed_forward
        if isinstance(forward, MoESpec) and experts is not None:
            _check(f"experts of layer {index}", experts, forward.experts)
            if len(experts) < forward.top_k:
                raise CheckpointError(
                    f"experts are {list(experts)}, but every token of layer {index} visits "
                    f"{forward.top_k}; keep at least as many"
                )
            layer = replace(layer, feed_forward=replace(forward, experts=len(experts)))
        smaller.append(layer)
    # What was read beside the architecture describes the whole model, layer by layer.
    cut = replace(spec, name=f"{spec.name}-shrunk", layers=tuple(smaller), source={})
    chosen = _chosen(weights, spec, kept, experts)
    write(chosen, cut, folder, target, format, shard_bytes=shard_bytes, progress=progress)
    return cut


def _chosen(
    weights: Mapping[str, Weight], spec: ModelSpec, kept: list[int], experts: Sequence[int] | None
) -> dict[str, Weight]:
    places = {old: new for new, old in enumerate(kept)}
    chosen = {}
    for name, weight in weights.items():
        if not name.startswith("layers."):
            chosen[name] = weight
            continue
        _, number, rest = name.split(".", 2)
        index = int(number)
        if index not in places:
            continue
        inner = rest.removeprefix("feed_forward.")
        mixture = isinstance(spec.layers[index].feed_forward, MoESpec)
        if experts is not None and mixture and inner.startswith(("router.", "experts.")):
            if inner not in _BY_EXPERT:
                raise CheckpointError(
                    f"{name}: it is not known how this weight belongs to the experts; keep them all"
                )
            weight = join([weight.narrow(0, start, size) for start, size in _runs(experts)], 0)
        chosen[f"layers.{places[index]}.{rest}"] = weight
    return chosen


def _runs(indices: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending indices as ranges (start, length)."""
    runs: list[tuple[int, int]] = []
    for index in indices:
        if runs and sum(runs[-1]) == index:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((index, 1))
    return runs


def _check(what: str, indices: Sequence[int], count: int) -> None:
    ascending = list(indices) == sorted(set(indices))
    if not indices or not ascending or indices[0] < 0 or indices[-1] >= count:
        raise CheckpointError(
            f"{what}: got {list(indices)}; expected ascending indices from 0 to {count - 1}"
        )


def parse_ranges(text: str) -> list[int]:
    """``"0-3,7"`` as ``[0, 1, 2, 3, 7]``.

    Raises:
        CheckpointError: the text is not of this form.
    """
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(part) > 20:
            raise CheckpointError(f"{text!r}: expected indices and ranges, as in 0-3,7")
        begin, end = int(first), int(last) if dash else int(first)
        if end < begin or end - begin > 1_000_000:
            raise CheckpointError(f"{text!r}: {part} is no ascending range")
        found += range(begin, end + 1)
    return found
