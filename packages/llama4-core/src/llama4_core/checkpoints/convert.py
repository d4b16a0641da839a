"""From one checkpoint format to another, piece by piece, without building a model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama4_core.checkpoints.formats import (
    SHARD_BYTES,
    CheckpointFormat,
    checkpoint_format,
    detect,
    read_spec,
)
from llama4_core.checkpoints.save import tokenizer_texts, write_checkpoint
from llama4_core.checkpoints.stream import stream
from llama4_core.errors import CheckpointError

if TYPE_CHECKING:
    from llama4_core.checkpoints.joined import Weight
    from llama4_core.checkpoints.shards import Progress
    from llama4_core.specs import ModelSpec

log = logging.getLogger(__name__)


def convert(
    source: str | Path,
    target: str | Path,
    format: str = "native",  # noqa: A002 - the public name of the argument
    *,
    source_format: str | None = None,
    shards: int | None = None,
    shard_bytes: int = SHARD_BYTES,
    max_positions: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Writes the checkpoint in ``source`` to the new folder ``target``.

    The source is mapped and written in pieces of at most 64 MiB of one expert, so anonymous memory
    stays far below a gigabyte whatever the size of the model. After a kill at any point the same
    call goes on and the result has the same bytes. Licence, tokenizer and generation files go
    along; Llama 4's tokenizer is written as the format's readers want it, too.

    Args:
        source: a folder in any installed format, the name of a model that ships with its weights,
            or a repository ``org/name[@revision]``, which is downloaded unless it is in the cache.
        target: a folder that does not exist, or is empty.
        format: name of the format to write.
        source_format: name of the format of ``source``; None finds out, except where the weights
            are pickle files ("meta"): these are only read when they are asked for.
        shards: number of files, for formats whose files are equal parts of every weight (meta).
        shard_bytes: about how large a file may become, for the other formats.
        max_positions: longest context, for a params.json that does not say it.
        progress: called with bytes written and bytes in total.

    Raises:
        CheckpointError: the source is damaged, the target in use, or the format cannot hold it.
        SpecError: the description is not understood, or cannot be said in the format.
    """
    folder, spec, weights = opened(source, source_format, max_positions)
    write(weights, spec, folder, target, format, shards=shards, shard_bytes=shard_bytes,
          progress=progress)  # fmt: skip


def opened(
    source: str | Path, source_format: str | None = None, max_positions: int | None = None
) -> tuple[Path, ModelSpec, Mapping[str, Weight]]:
    """Folder, description and mapped weights of a checkpoint, found as ``load`` finds it.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    from llama4_core.checkpoints.load import resolve

    folder = resolve(source, pickles=source_format == "meta")
    if not isinstance(folder, Path):
        raise CheckpointError(
            f"{source} is a shape, not weights; expected a folder with a checkpoint, or a "
            "repository (org/name)"
        )
    form: Any = detect(folder) if source_format is None else checkpoint_format(source_format)
    if source_format is not None and not form.detect(folder):
        raise CheckpointError(f"{folder}: does not look like the format {source_format}")
    spec = read_spec(form, folder, max_positions)
    weights: Mapping[str, Weight] = (
        form.weights(folder, spec) if hasattr(form, "weights") else form.tensors(folder, spec)
    )
    for name, weight in weights.items():
        if not weight.dtype.is_floating_point:
            raise CheckpointError(
                f"{folder}: {name} is stored as {weight.dtype}; expected floating-point "
                "numbers, so fetch the file again"
            )
    embedding = weights.get("embedding.weight")
    if embedding is not None:
        spec = replace(spec, dtype=str(embedding.dtype).removeprefix("torch."))
    return folder, spec, weights


def write(
    weights: Mapping[str, Weight],
    spec: ModelSpec,
    source: Path,
    target: str | Path,
    format_name: str,
    *,
    shards: int | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> None:
    """Streams canonical weights, views of the files in ``source``, to the new folder ``target``.

    Raises:
        CheckpointError: the target is in use, or the format cannot hold the model.
    """
    if shard_bytes < 1:
        raise CheckpointError(f"shard_bytes is {shard_bytes}; expected at least 1")
    form: CheckpointFormat | Any = checkpoint_format(format_name)
    path = Path(target).expanduser()
    if not hasattr(form, "plan"):
        # A format of somebody else that writes its files itself: all or nothing.
        from llama4_core.checkpoints.joined import gathered

        log.info("%s: the format %s cannot go on after a kill", path, format_name)
        tensors = {name: gathered(weight) for name, weight in weights.items()}
        write_checkpoint(
            tensors, spec, path, format_name, carry_from=source, shard_bytes=shard_bytes,
            progress=progress,
        )  # fmt: skip
        return
    plan = form.plan(weights, spec, shard_bytes=shard_bytes, shards=shards)
    tokenizer = tokenizer_texts(form, source, spec)
    plan = replace(plan, texts={**plan.texts, **tokenizer})
    stream(plan, path, source=source, progress=progress)
