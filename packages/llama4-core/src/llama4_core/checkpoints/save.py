"""Writing a model to a folder: all of it or nothing."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llama4_core.checkpoints.formats import SHARD_BYTES, CheckpointFormat, checkpoint_format
from llama4_core.errors import CheckpointError
from llama4_core.specs import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor

    from llama4_core.checkpoints.shards import Progress
    from llama4_core.model.transformer import Transformer

log = logging.getLogger(__name__)

# Goes along with the weights, whatever the format: the tokenizer, what generation and preprocessing
# are set to, and the terms under which the weights were given.
CARRIED = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.*",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "LICENSE*",
    "USE_POLICY*",
    "NOTICE*",
)


def save(
    model: Transformer,
    path: str | Path,
    format: str = "native",  # noqa: A002 - the public name of the argument
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> None:
    """Writes ``model`` into the new folder ``path``.

    Weights that were kept aside at load (an image encoder without its package) are written back,
    and tokenizer, generation settings and licence files of the folder that the model came from go
    along. The folder appears only when it is complete.

    A module whose weights no checkpoint format has a place for says so, and what to do, in an
    attribute ``refuses_saving``.

    Args:
        model: with weights.
        path: a folder that does not exist, or is empty.
        format: name of a checkpoint format: "native" or "huggingface", or a plugin's.
        shard_bytes: about how large a file may become.
        progress: called with bytes written and bytes in total.

    Raises:
        CheckpointError: the folder is in use, the disk too small, or the format cannot hold the
            model.
        ComponentError: no such format.
    """
    state = model.state_dict()
    empty = [name for name, tensor in state.items() if tensor.is_meta]
    if empty:
        raise CheckpointError(
            f"{path}: the model has shapes but no weights ({empty[0]} is on the meta device); "
            "load or initialise it before saving"
        )
    for name, module in model.named_modules():
        refusal = getattr(module, "refuses_saving", None)
        if refusal is not None:
            raise CheckpointError(f"{path}: {name} {refusal}")
    spec = replace(model.spec, dtype=str(model.dtype).removeprefix("torch."))
    tensors = {**state, **model.extra_weights}
    write_checkpoint(
        tensors, spec, Path(path), format, carry_from=model.folder, shard_bytes=shard_bytes,
        progress=progress,
    )  # fmt: skip


def write_checkpoint(
    tensors: Mapping[str, Tensor],
    spec: ModelSpec,
    path: Path,
    format_name: str,
    *,
    carry_from: Path | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress | None = None,
) -> None:
    """Writes canonical tensors and their spec into the new folder ``path``, in any format."""
    if shard_bytes < 1:
        raise CheckpointError(f"shard_bytes is {shard_bytes}; expected at least 1")
    chosen = checkpoint_format(format_name)
    needed = sum(tensor.nbytes for tensor in tensors.values())
    with new_folder(path, needed) as folder:
        chosen.write(tensors, spec, folder, shard_bytes=shard_bytes, progress=progress)
        if carry_from is not None:
            for name, text in tokenizer_texts(chosen, carry_from, spec).items():
                (folder / name).write_text(text, encoding="utf-8")
            carry_files(carry_from, folder)
    log.info("%s: %d tensors, %d bytes, format %s", path, len(tensors), needed, format_name)


def tokenizer_texts(form: CheckpointFormat, source: Path, spec: ModelSpec) -> dict[str, str]:
    """The tokenizer of ``source`` in the file that readers of ``form`` want, if it has another."""
    wanted = getattr(form, "tokenizer_file", None)
    if wanted is None:
        return {}
    from llama4_core.tokenizers.write import missing_files

    return missing_files(source, wanted, eos=spec.tokens.eos)


def carry_files(source: Path, target: Path) -> None:
    """Copies tokenizer, settings and licence files of one checkpoint folder into another."""
    for pattern in CARRIED:
        for file in sorted(source.glob(pattern)):
            if file.is_file() and not (target / file.name).exists():
                shutil.copyfile(file, target / file.name)


def refuse_used(path: Path) -> None:
    """Raises where writing would overwrite something.

    Raises:
        CheckpointError: ``path`` exists and is not an empty folder.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise CheckpointError(
            f"{path}: exists and is not an empty folder; nothing is overwritten, choose another"
        )


@contextmanager
def new_folder(path: Path, needed: int) -> Iterator[Path]:
    """Gives a folder beside ``path`` to write into, which becomes ``path`` if nothing goes wrong.

    Args:
        path: must not exist, or be an empty folder.
        needed: bytes that will be written.

    Raises:
        CheckpointError: ``path`` is in use, or the disk is too small.
    """
    path = path.absolute()
    refuse_used(path)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
        if free < needed:
            raise CheckpointError(
                f"{path}: needs {needed / 1e9:.2f} GB, but the disk has {free / 1e9:.2f} GB free"
            )
        partial.mkdir()
        yield partial
        partial.replace(path)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be written ({error.strerror or error}); check the disk and its rights"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
