"""From one checkpoint format to another, tensor by tensor, without building a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llama4_core.checkpoints.formats import SHARD_BYTES, detect
from llama4_core.checkpoints.save import write_checkpoint
from llama4_core.errors import CheckpointError

if TYPE_CHECKING:
    from llama4_core.checkpoints.shards import Progress


def convert(
    source: str | Path,
    target: str | Path,
    format: str = "native",  # noqa: A002 - the public name of the argument
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> None:
    """Writes the checkpoint in ``source`` to the new folder ``target``.

    The source is mapped and written slice by slice (one expert at a time), so anonymous memory
    stays at the size of the largest slice whatever the size of the model.

    Args:
        source: a folder in any installed format.
        target: a folder that does not exist, or is empty.
        format: name of the format to write.
        shard_bytes: about how large a file may become.
        progress: called with bytes written and bytes in total.

    Raises:
        CheckpointError: the source is damaged, the target in use, or the format cannot hold it.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; expected one with a checkpoint")
    form = detect(folder)
    spec = form.read_spec(folder)
    write_checkpoint(
        form.tensors(folder, spec),
        spec,
        Path(target).expanduser(),
        format,
        carry_from=folder,
        shard_bytes=shard_bytes,
        progress=progress,
    )
