"""torch.distributed.checkpoint's metadata as JSON.

Its own storage writes a pickle. Here the file ``metadata.json`` says, for every tensor, dtype,
shape and the chunks that it lies in, and for every other value the file that holds it::

    {"version": 1,
     "tensors": {name: {"dtype": "F32", "shape": [4, 2], "chunks": [
        {"offset": [0, 0], "shape": [2, 2], "file": "tensors-00000.safetensors", "key": name}]}},
     "values": {name: "values-00000.json"}}
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from llama4_core.checkpoints.safetensors_file import DTYPES, NAMES
from llama4_core.errors import CheckpointError
from llama4_train.checkpoints.manifest import FileFacts, not_understood, read_json

METADATA = "metadata.json"
VERSION = 1


@dataclass(frozen=True)
class Place:
    """Where a chunk or a value lies.

    Attributes:
        file: that holds it.
        key: under which name.
    """

    file: FileFacts
    key: str


def metadata_text(metadata: Metadata, places: Mapping[MetadataIndex, Place]) -> str:
    """The content of ``metadata.json``.

    Args:
        metadata: of a save planner.
        places: of every chunk (name and offset) and value (name) that was written.
    """
    tensors: dict[str, Any] = {}
    values: dict[str, str] = {}
    for name, entry in metadata.state_dict_metadata.items():
        if isinstance(entry, BytesStorageMetadata):
            values[name] = places[MetadataIndex(name)].file.name
            continue
        chunks = []
        for chunk in entry.chunks:
            place = places[MetadataIndex(name, chunk.offsets)]
            chunks.append(
                {
                    "offset": list(chunk.offsets),
                    "shape": list(chunk.sizes),
                    "file": place.file.name,
                    "key": place.key,
                }
            )
        tensors[name] = {
            "dtype": NAMES[entry.properties.dtype],
            "shape": list(entry.size),
            "chunks": chunks,
        }
    content = {"version": VERSION, "tensors": tensors, "values": values}
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False) + "\n"


def read_metadata(folder: Path, files: Mapping[str, FileFacts]) -> Metadata:
    """The metadata of a checkpoint; ``storage_data`` maps indices to :class:`Place`.

    Args:
        folder: of the checkpoint.
        files: by name, from its manifest.

    Raises:
        CheckpointError: the file is missing, of another version, or does not describe whole
            tensors in these files.
    """
    path = folder / METADATA
    content = read_json(path)
    version = content.get("version")
    if version != VERSION:
        raise CheckpointError(
            f"{path}: has version {version!r:.40}; expected {VERSION}: read it with the version of "
            "llama4-train that wrote it"
        )
    state: dict[str, Any] = {}
    places: dict[MetadataIndex, Place] = {}
    for name, file in _table(path, content, "values").items():
        if not isinstance(file, str) or file not in files:
            raise not_understood(path, name, file)
        state[name] = BytesStorageMetadata()
        places[MetadataIndex(name)] = Place(files[file], name)
    for name, entry in _table(path, content, "tensors").items():
        dtype = entry.get("dtype") if isinstance(entry, Mapping) else None
        shape = _sizes(entry.get("shape")) if isinstance(entry, Mapping) else None
        if not isinstance(dtype, str) or dtype not in DTYPES or shape is None:
            raise not_understood(path, name, entry)
        stored = entry.get("chunks")
        chunks = [_chunk(path, name, one, files) for one in _list(path, name, stored)]
        _check_cover(path, name, shape, [chunk for chunk, _ in chunks])
        state[name] = TensorStorageMetadata(
            TensorProperties(dtype=DTYPES[dtype]), torch.Size(shape), [one for one, _ in chunks]
        )
        places.update({MetadataIndex(name, chunk.offsets): place for chunk, place in chunks})
    return Metadata(state, storage_data=places)


def _table(path: Path, content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = content.get(key)
    if not isinstance(value, Mapping):
        raise not_understood(path, key, value)
    return value


def _list(path: Path, name: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise not_understood(path, name, value)
    return value


def _sizes(value: object) -> tuple[int, ...] | None:
    whole = isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)
    return tuple(value) if isinstance(value, list) and whole else None


def _chunk(
    path: Path, name: str, value: object, files: Mapping[str, FileFacts]
) -> tuple[ChunkStorageMetadata, Place]:
    if not isinstance(value, Mapping):
        raise not_understood(path, name, value)
    offset, shape = _sizes(value.get("offset")), _sizes(value.get("shape"))
    file, key = value.get("file"), value.get("key")
    found = files.get(file) if isinstance(file, str) else None
    if offset is None or shape is None or not isinstance(key, str) or found is None:
        raise not_understood(path, name, value)
    return ChunkStorageMetadata(torch.Size(offset), torch.Size(shape)), Place(found, key)


def _check_cover(
    path: Path, name: str, shape: tuple[int, ...], chunks: Iterable[ChunkStorageMetadata]
) -> None:
    """Chunks lie inside the tensor, begin at different places and are as large together."""
    held, starts = 0, set()
    for chunk in chunks:
        ends = [begin + size for begin, size in zip(chunk.offsets, chunk.sizes, strict=False)]
        inside = len(chunk.offsets) == len(chunk.sizes) == len(shape) and all(
            end <= size for end, size in zip(ends, shape, strict=True)
        )
        if not inside or chunk.offsets in starts:
            raise not_understood(path, name, f"chunk {tuple(chunk.offsets)} of {shape}")
        starts.add(chunk.offsets)
        held += math.prod(chunk.sizes)
    if held != math.prod(shape):
        raise not_understood(path, name, f"{held} numbers of {math.prod(shape)}")
