"""Storage for torch.distributed.checkpoint: safetensors for tensors, JSON for everything else.

Nothing is pickled and nothing that is read can run. Each process writes its tensors into one file;
the coordinator adds metadata and manifest and gives the complete folder its name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata, MetadataIndex
from torch.distributed.checkpoint.planner import (
    LoadItemType,
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    SavePlanner,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from llama4_core.checkpoints.safetensors_file import file_header, map_tensors, read_header
from llama4_core.errors import CheckpointError
from llama4_train.checkpoints.folders import check_space, disk, partial_folder, sync_folder
from llama4_train.checkpoints.manifest import (
    FileFacts,
    read_json,
    read_manifest,
    verify,
    write_manifest,
)
from llama4_train.checkpoints.metadata import METADATA, Place, metadata_text, read_metadata

# Headers, JSON values and the blocks of the file system, beside the bytes of tensors.
_ASIDE = 1 << 20


class Writer(StorageWriter):
    """Writes one checkpoint, all of it or nothing.

    Needs a planner that gives bytes as JSON, such as
    :class:`~llama4_train.checkpoints.planners.JsonSavePlanner`.

    Args:
        folder: of the checkpoint; must not exist. Several processes must see the same disk.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).absolute()

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Another checkpoint begins, perhaps in another folder."""
        if checkpoint_id is not None:
            self.folder = Path(checkpoint_id).absolute()

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Whether a checkpoint can be written there."""
        return not Path(checkpoint_id).exists()

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Makes an empty folder beside the final one.

        Raises:
            CheckpointError: the folder exists, or planning without a coordinator is asked for.
        """
        if not kwargs.get("use_collectives", True):
            raise CheckpointError(
                "use_collectives is False, but metadata is written by one coordinator; leave it out"
            )
        if not is_coordinator:
            return
        if self.folder.exists():
            raise CheckpointError(f"{self.folder}: exists; nothing is overwritten, choose another")
        with disk(self.folder, "written"):
            self.discard()
            partial_folder(self.folder).mkdir(parents=True)

    def discard(self) -> None:
        """Removes what was written of a checkpoint that will not be completed."""
        shutil.rmtree(partial_folder(self.folder), ignore_errors=True)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Nothing to add."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Numbers the processes, whose files are named by it, and looks for room on the disk.

        Raises:
            CheckpointError: the disk is too small.
        """
        needed = sum(_nbytes(item) for plan in plans for item in plan.items)
        with disk(self.folder, "written"):
            check_space(self.folder, needed + _ASIDE)
        return [dataclasses.replace(plan, storage_data=number) for number, plan in enumerate(plans)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Writes the tensors and values of one process.

        Raises:
            CheckpointError: the disk refuses, a dtype has no name in safetensors, or the planner
                gives bytes that are no JSON.
        """
        folder, number = partial_folder(self.folder), int(plan.storage_data)
        tensors: dict[str, Tensor] = {}
        keys: dict[MetadataIndex, str] = {}
        values: dict[str, Any] = {}
        for item in plan.items:
            if item.type == WriteItemType.BYTE_IO:
                values[item.index.fqn] = _parsed(planner.resolve_data(item), item.index.fqn)
            else:
                resolved: Any = planner.resolve_data(item)
                key = _key(item)
                keys[item.index] = key
                tensors[key] = resolved.detach()
        files: dict[WriteItemType, FileFacts] = {}
        with disk(self.folder, "written"):
            if tensors:
                path = folder / f"tensors-{number:05d}.safetensors"
                facts = write_tensors(path, tensors)
                files[WriteItemType.TENSOR] = files[WriteItemType.SHARD] = facts
            if values:
                text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
                path = folder / f"values-{number:05d}.json"
                files[WriteItemType.BYTE_IO] = write_bytes(path, [text.encode("utf-8")])
        done: Future[list[WriteResult]] = Future()
        done.set_result(
            [
                WriteResult(
                    item.index,
                    _nbytes(item),
                    Place(files[item.type], keys.get(item.index, item.index.fqn)),
                )
                for item in plan.items
            ]
        )
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Writes metadata and manifest, and gives the folder its name."""
        places = {one.index: one.storage_data for part in results for one in part}
        files = {place.file for place in places.values()}
        partial = partial_folder(self.folder)
        with disk(self.folder, "written"):
            text = metadata_text(metadata, places).encode("utf-8")
            files.add(write_bytes(partial / METADATA, [text]))
            write_manifest(partial, files)
            sync_folder(partial)
            partial.replace(self.folder)
            sync_folder(self.folder.parent)


class Reader(StorageReader):
    """Reads a checkpoint of :class:`Writer`, by any number of processes.

    Every file is compared with the manifest before anything of it is believed.

    Args:
        folder: of the checkpoint.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._places: Mapping[MetadataIndex, Place] = {}

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Another checkpoint is read, perhaps from another folder."""
        if checkpoint_id is not None:
            self.folder = Path(checkpoint_id)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Whether there is a folder."""
        return Path(checkpoint_id).is_dir()

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """What the checkpoint holds.

        Raises:
            CheckpointError: manifest or metadata are missing or damaged.
        """
        files = read_manifest(self.folder)
        if METADATA not in files:
            raise CheckpointError(
                f"{self.folder}: its manifest lists no {METADATA}; expected a folder that "
                "llama4-train wrote"
            )
        verify(self.folder, [files[METADATA]])
        return read_metadata(self.folder, files)

    def set_up_storage_reader(
        self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any
    ) -> None:
        """Remembers where everything lies."""
        self._places = metadata.storage_data

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Nothing to add."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Nothing to add."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Reads what a plan asks for, from verified files.

        Raises:
            CheckpointError: a file is missing, damaged, or lacks what the metadata promises.
        """
        wanted: dict[tuple[FileFacts, LoadItemType], list[tuple[ReadItem, str]]] = {}
        for item in plan.items:
            place = self._places[item.storage_index]
            wanted.setdefault((place.file, item.type), []).append((item, place.key))
        verify(self.folder, {file for file, _ in wanted})
        for (file, kind), items in wanted.items():
            path = self.folder / file.name
            if kind == LoadItemType.BYTE_IO:
                values = read_json(path)
                for item, key in items:
                    text = json.dumps(_held(values, key, path)).encode("utf-8")
                    planner.load_bytes(item, io.BytesIO(text))
            else:
                tensors = map_tensors(read_header(path))
                for item, key in items:
                    _copy(_held(tensors, key, path), item, planner, path)
        done: Future[None] = Future()
        done.set_result(None)
        return done


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> FileFacts:
    """Writes a safetensors file; returns its size and checksum, taken from memory."""
    header, names = file_header(path, tensors, {"format": "pt"})
    return write_bytes(path, (header, *(_raw(tensors[name]) for name in names)))


def write_bytes(path: Path, pieces: Iterable[Any]) -> FileFacts:
    """Writes a file and brings it to the disk."""
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for piece in pieces:
            view = memoryview(piece)
            digest.update(view)
            size += view.nbytes
            file.write(view)
        file.flush()
        os.fsync(file.fileno())
    return FileFacts(path.name, size, digest.hexdigest())


def _raw(tensor: Tensor) -> Any:
    return tensor.cpu().reshape(-1).view(torch.uint8).numpy()


def _nbytes(item: WriteItem) -> int:
    data = item.tensor_data
    if data is None:
        return 0
    return math.prod(data.chunk.sizes) * data.properties.dtype.itemsize


def _key(item: WriteItem) -> str:
    """The tensor's name; with the offset of a part."""
    data = item.tensor_data
    if data is None or data.chunk.sizes == data.size:
        return item.index.fqn
    return f"{item.index.fqn}@{','.join(str(one) for one in data.chunk.offsets)}"


def _parsed(raw: Any, name: str) -> Any:
    try:
        return json.loads(raw.getvalue())
    except ValueError as error:
        raise CheckpointError(
            f"{name}: the planner gives bytes that are no JSON, and no others are stored; save "
            "with JsonSavePlanner"
        ) from error


def _held(content: Mapping[str, Any], key: str, path: Path) -> Any:
    if key not in content:
        raise CheckpointError(f"{path}: lacks {key!r}, which {METADATA} places there")
    return content[key]


def _copy(stored: Tensor, item: ReadItem, planner: LoadPlanner, path: Path) -> None:
    """Copies the asked part of a stored chunk into its place."""
    ends = [begin + size for begin, size in zip(item.storage_offsets, item.lengths, strict=True)]
    if stored.dim() != len(ends) or any(
        end > size for end, size in zip(ends, stored.shape, strict=True)
    ):
        raise CheckpointError(
            f"{path}: {item.storage_index.fqn!r} has shape {tuple(stored.shape)}, smaller than "
            f"{METADATA} says"
        )
    part = stored
    for axis, (begin, size) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
        part = part.narrow(axis, begin, size)
    target = planner.resolve_tensor(item).detach()
    target.copy_(part)
    planner.commit_tensor(item, target)
