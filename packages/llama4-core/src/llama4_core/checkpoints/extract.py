"""A part of a checkpoint as a folder of its own: the text model, the image encoder, or a layer."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from llama4_core.checkpoints.convert import opened, write
from llama4_core.checkpoints.formats import SHARD_BYTES
from llama4_core.checkpoints.keys import VISION
from llama4_core.checkpoints.part import NUMBERS
from llama4_core.checkpoints.plan import safetensors_plan
from llama4_core.checkpoints.stream import stream
from llama4_core.errors import CheckpointError

if TYPE_CHECKING:
    from llama4_core.checkpoints.shards import Progress

_LAYER = re.compile(r"layer:(\d+)")


def extract(
    source: str | Path,
    target: str | Path,
    part: str,
    format: str = "native",  # noqa: A002 - the public name of the argument
    *,
    source_format: str | None = None,
    max_positions: int | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> None:
    """Writes one part of the checkpoint in ``source`` to the new folder ``target``.

    Args:
        source: as in :func:`llama4_core.checkpoints.convert.convert`.
        target: a folder that does not exist, or is empty.
        part: "text": the model without its eyes, a checkpoint that loads. "vision": encoder,
            adapter and projection under the names of their modules (``encoder.*``, ``adapter.*``,
            ``projector.weight``), with their numbers in ``vision.json``: what
            :func:`llama4_core.checkpoints.part.vision_part` reads. "layer:N": the weights of one
            block under their names in it, with their numbers in ``layer.json``. The last two are
            plain safetensors folders.
        format: of the text model; for the other parts only "native".
        source_format: as in ``convert``, like the rest:
        max_positions: longest context, for a params.json that does not say it.
        shard_bytes: about how large a file may become.
        progress: called with bytes written and bytes in total.

    Raises:
        CheckpointError: no such part, or anything that ``convert`` refuses.
    """
    layer = _LAYER.fullmatch(part)
    if part not in ("text", "vision") and layer is None:
        raise CheckpointError(f"part is {part!r}; expected text, vision or layer:N")
    folder, spec, weights = opened(source, source_format, max_positions)
    if part == "text":
        text = {name: w for name, w in weights.items() if not name.startswith(VISION)}
        write(text, spec.text_only(), folder, target, format, shard_bytes=shard_bytes,
              progress=progress)  # fmt: skip
        return
    if format != "native":
        raise CheckpointError(
            f"format is {format!r}, but {part} is no whole model; leave the format out"
        )
    if layer is None:
        if spec.vision is None:
            raise CheckpointError(f"{folder}: has no vision part; expected a multimodal checkpoint")
        prefix, title, numbers = VISION, NUMBERS, asdict(
            replace(spec.vision, extra=dict(spec.vision.extra))
        )  # fmt: skip
    else:
        index = int(layer[1])
        if index >= len(spec.layers):
            raise CheckpointError(
                f"part is {part!r}, but {folder} has the layers 0 to {len(spec.layers) - 1}"
            )
        prefix, title, numbers = f"layers.{index}.", "layer.json", asdict(spec.layers[index])
    held = {
        name.removeprefix(prefix): weight
        for name, weight in weights.items()
        if name.startswith(prefix)
    }
    plan = safetensors_plan(
        held,
        shard_bytes=shard_bytes,
        metadata={"format": "pt"},
        texts={title: json.dumps(numbers, indent=2, sort_keys=True) + "\n"},
    )
    stream(plan, Path(target).expanduser(), source=folder, progress=progress)
