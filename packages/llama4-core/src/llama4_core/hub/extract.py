"""A part of a checkpoint that stays where it is: only the bytes of that part are read."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from llama4_core.checkpoints.extract import extract
from llama4_core.checkpoints.formats import SHARD_BYTES
from llama4_core.checkpoints.keys import huggingface_rows, naming_of
from llama4_core.checkpoints.save import CARRIED, refuse_used
from llama4_core.errors import CheckpointError
from llama4_core.hub.remote import RemoteCheckpoint, fill
from llama4_core.hub.resolve import INDEX, SINGLE, Progress, is_plain
from llama4_core.hub.web import NotThereError

TERMS = ("LICENSE", "LICENSE.txt", "USE_POLICY.md", "NOTICE", "NOTICE.txt")
# What a folder's own extraction takes along, by full names: an address cannot be listed.
SETTINGS = (
    *(name for name in CARRIED if "*" not in name),
    "chat_template.jinja",
    "chat_template.json",
)


def mirror(
    remote: RemoteCheckpoint,
    names: Iterable[str],
    folder: Path,
    *,
    others: Iterable[str] = (),
    progress: Progress | None = None,
) -> None:
    """Lays out ``remote`` in ``folder`` with the tensors ``names`` filled in and holes elsewhere.

    Every reader of folders then works on it, as long as it takes no other tensor: those are zeros.
    Files have their full length, but take the room of what is filled in.

    Args:
        remote: where from.
        names: as they are stored there.
        folder: new.
        others: files to take along where they are there, beside the terms of use.
        progress: told bytes done and in total.

    Raises:
        CheckpointError: an unknown name, no room, or a lost connection.
    """
    folder.mkdir(parents=True)
    for name in (remote.description, SINGLE if SINGLE in remote.headers else INDEX):
        if name != SINGLE:
            (folder / name).write_bytes(remote.read_small(name))
    for name in (*TERMS, *others):
        try:
            (folder / name).write_bytes(remote.read_small(name))
        except NotThereError:
            continue
    fill(remote, names, folder, progress=progress)


def extract_remote(
    remote: RemoteCheckpoint,
    target: str | Path,
    part: str,
    format: str = "native",  # noqa: A002 - the public name of the argument
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> None:
    """Writes one part of ``remote`` to the new folder ``target``.

    What :func:`llama4_core.checkpoints.extract.extract` does with a folder; tokenizer and
    settings go along with the text model only. The part is kept twice while it is written.

    Args:
        remote: where from.
        target: a folder that does not exist, or is empty.
        part: "text", "vision" or "layer:N".
        format: of the text model; for the other parts only "native".
        shard_bytes: about how large a file may become.
        progress: told bytes done and in total, first of reading, then of writing.

    Raises:
        CheckpointError: no such part, or anything that reading or writing refuses.
    """
    place = Path(target).expanduser().absolute()
    # Not after hours of reading.
    refuse_used(place)
    remote.check()
    names = _names(remote, part)
    others = SETTINGS if part == "text" else ()
    scratch = place.with_name(f".{place.name}.ranges")
    shutil.rmtree(scratch, ignore_errors=True)
    # The readers take the name of the model from its folder.
    name = remote.spec.name.rpartition("/")[2]
    folder = scratch / (name if is_plain(name) else "remote")
    try:
        mirror(remote, names, folder, others=others, progress=progress)
        extract(folder, place, part, format, shard_bytes=shard_bytes, progress=progress)
    except OSError as error:
        raise CheckpointError(
            f"{scratch}: cannot be written ({error.strerror or error}); check the disk and its "
            "rights"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _names(remote: RemoteCheckpoint, part: str) -> list[str]:
    """The stored names of a part, and of what its reader compares."""
    kind, _, number = part.partition(":")
    if part not in ("text", "vision") and not (kind == "layer" and number.isdecimal()):
        raise CheckpointError(f"part is {part!r}; expected text, vision or layer:N")
    spec, shapes = remote.spec, remote.shapes
    if remote.description == "spec.toml":
        stored = {name: name for name in shapes}
        head = None
    else:
        naming = naming_of(shapes)
        stored = {row.ours: row.theirs for row in huggingface_rows(spec, naming)}
        # A repeated head is compared with the embedding before it is left out.
        head = naming.head if spec.tied and naming.head in shapes else None
    if part == "text":
        names = [theirs for ours, theirs in stored.items() if not ours.startswith("vision.")]
        return names if head is None else [*names, head]
    prefix = "vision." if part == "vision" else f"layers.{int(number)}."
    names = [theirs for ours, theirs in stored.items() if ours.startswith(prefix)]
    if not names:
        raise CheckpointError(
            f"{remote.name}: has no {part}; it has the layers 0 to {len(spec.layers) - 1}"
            + (", and vision" if spec.vision is not None else ", and no vision")
        )
    return names
