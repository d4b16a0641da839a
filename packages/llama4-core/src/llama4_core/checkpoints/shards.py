"""Folders of safetensors shards with an index, as Hugging Face lays them out and as ours are.

``model.safetensors.index.json`` holds ``{"metadata": {...}, "weight_map": {key: file}}``; a folder
with a single ``model.safetensors`` needs no index.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from llama4_core.checkpoints.safetensors_file import (
    Header,
    map_tensors,
    read_header,
)
from llama4_core.errors import CheckpointError

if TYPE_CHECKING:
    from llama4_core.checkpoints.joined import Weight

log = logging.getLogger(__name__)

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

Progress = Callable[[int, int], None]
"""Called with bytes written and bytes in total."""


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        CheckpointError: the file is missing, not JSON, or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror or error}); check that the file is there"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: not JSON ({error}); fetch or write the file again"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a JSON {type(content).__name__}; expected an object")
    return content


def map_folder(folder: Path) -> dict[str, Tensor]:
    """Maps all tensors of ``folder``, by the names that they have there.

    Raises:
        CheckpointError: no weights, a missing or damaged shard, or an index that disagrees with
            its shards.
    """
    if not (folder / INDEX).is_file():
        if not (folder / SINGLE).is_file():
            raise CheckpointError(
                f"{folder}: holds neither {INDEX} nor {SINGLE}; expected a folder with the weights"
            )
        return map_tensors(read_header(folder / SINGLE))
    index = folder / INDEX
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: lacks a 'weight_map' from keys to files; write it again")
    by_file: dict[str, list[str]] = {}
    for key, name in weight_map.items():
        if not isinstance(name, str) or Path(name).name != name or name in ("", "..", INDEX):
            raise CheckpointError(
                f"{index}: key {key!r} points at {name!r}; expected the name of a file beside it"
            )
        by_file.setdefault(name, []).append(key)
    tensors: dict[str, Tensor] = {}
    for name, keys in sorted(by_file.items()):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder / name}: missing; {INDEX} names it for {len(keys)} keys ({keys[0]}, ...)"
                "; fetch that file"
            )
        header = read_header(folder / name)
        check_shard(folder / name, header, keys)
        tensors.update(map_tensors(header))
    return tensors


def check_shard(path: Path, header: Header, keys: Sequence[str]) -> None:
    """Compares the keys of a file with those that the index places there.

    Raises:
        CheckpointError: they differ.
    """
    for key in keys:
        if key not in header.entries:
            raise CheckpointError(
                f"{path}: lacks the key {key!r} that {INDEX} promises; the index and the shards "
                "are not of one checkpoint"
            )
    unlisted = header.entries.keys() - set(keys)
    if unlisted:
        raise CheckpointError(
            f"{path}: holds the key {min(unlisted)!r}, which {INDEX} does not place there; the "
            "index and the shards are not of one checkpoint"
        )


def split_shards(tensors: Mapping[str, Weight], shard_bytes: int) -> dict[str, list[str]]:
    """Name of each file -> the keys in it, in order.

    A shard is never empty: a tensor larger than ``shard_bytes`` gets one of its own.
    """
    shards: list[list[str]] = [[]]
    room = shard_bytes
    for key, tensor in tensors.items():
        if tensor.nbytes > room and shards[-1]:
            shards.append([])
            room = shard_bytes
        shards[-1].append(key)
        room -= tensor.nbytes
    return {
        f"model-{number:05d}-of-{len(shards):05d}.safetensors": keys
        for number, keys in enumerate(shards, start=1)
    }
