"""Writing and reading a whole checkpoint, by one process or by all of a group."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from llama4_core.errors import CheckpointError, Llama4Error
from llama4_train.checkpoints.groups import grouped, leads
from llama4_train.checkpoints.planners import JsonLoadPlanner, JsonSavePlanner
from llama4_train.checkpoints.storage import Reader, Writer

State = MutableMapping[str, Any]
"""Name -> tensor (plain, or a DTensor of any placement) or JSON value."""


def write(state: State, folder: str | Path, group: Any = None) -> None:
    """Writes a checkpoint into the new folder ``folder``.

    In a group every process calls it, with the same names; what all of them hold is written once.

    Args:
        state: what to store.
        folder: appears when it is complete.
        group: of processes; None for all.

    Raises:
        CheckpointError: the folder exists, the disk is too small or refuses, or a value is neither
            a tensor nor JSON.
    """
    planner, writer = JsonSavePlanner(), Writer(folder)
    try:
        if grouped():
            _together(
                lambda: dcp.save(
                    dict(state), storage_writer=writer, planner=planner, process_group=group
                )
            )
        else:
            planner.set_up_planner(dict(state), None, True)
            writer.set_up_storage_writer(True)
            local = writer.prepare_local_plan(planner.create_local_plan())
            plans, metadata = planner.create_global_plan([local])
            (plan,) = writer.prepare_global_plan(plans)
            results = writer.write_data(planner.finish_plan(plan), planner)
            writer.finish(metadata, [results.wait()])
    finally:
        if leads(group):
            writer.discard()


def read(state: State, folder: str | Path, group: Any = None) -> None:
    """Fills ``state`` from a checkpoint: its tensors in place, its other values replaced.

    Each process reads only its part, of whatever parts the checkpoint was written in.

    Args:
        state: names that the checkpoint has; tensors of the same shapes.
        folder: of the checkpoint.
        group: of processes; None for all.

    Raises:
        CheckpointError: the checkpoint is damaged, lacks a name, or holds a tensor of another
            shape.
    """
    reader = Reader(folder)
    metadata = reader.read_metadata()
    _check(state, metadata, reader.folder)
    planner = JsonLoadPlanner()
    if grouped():
        flat = dict(state)
        _together(
            lambda: dcp.load(flat, storage_reader=reader, planner=planner, process_group=group)
        )
        state.update(flat)
        return
    planner.set_up_planner(dict(state), metadata, True)
    reader.set_up_storage_reader(metadata, True)
    plan = planner.finish_plan(planner.create_global_plan([planner.create_local_plan()])[0])
    reader.read_data(plan, planner).wait()
    state.update(planner.original_state_dict)


def contents(folder: str | Path) -> dict[str, torch.Tensor | None]:
    """What a checkpoint holds: a tensor on the meta device for each name, None for JSON values.

    Raises:
        CheckpointError: its manifest or its metadata are missing or damaged.
    """
    return {
        name: torch.empty(entry.size, dtype=entry.properties.dtype, device="meta")
        if isinstance(entry, TensorStorageMetadata)
        else None
        for name, entry in Reader(folder).read_metadata().state_dict_metadata.items()
    }


def read_part(folder: str | Path, *prefixes: str) -> dict[str, Any]:
    """Everything whose name begins with one of ``prefixes``, in new memory of one process.

    Raises:
        CheckpointError: as :func:`read`.
    """
    state: dict[str, Any] = {
        name: None if entry is None else torch.empty_like(entry, device="cpu")
        for name, entry in contents(folder).items()
        if name.startswith(prefixes)
    }
    read(state, folder)
    return state


def _check(state: State, metadata: Metadata, folder: Path) -> None:
    for name, value in state.items():
        entry = metadata.state_dict_metadata.get(name)
        if entry is None:
            raise CheckpointError(
                f"{folder}: holds no {name!r}; expected a checkpoint of this model and optimizer"
            )
        stored = entry if isinstance(entry, TensorStorageMetadata) else None
        if isinstance(value, torch.Tensor) != (stored is not None):
            raise CheckpointError(
                f"{folder}: {name!r} is {'no' if stored is None else 'a'} tensor there; expected a "
                "checkpoint of this model and optimizer"
            )
        if stored is not None and stored.size != value.shape:
            raise CheckpointError(
                f"{folder}: {name!r} has shape {tuple(stored.size)}; expected {tuple(value.shape)}"
            )


def _together(call: Callable[[], Any]) -> None:
    """Runs a collective of torch's; its errors, of any process, become one of ours."""
    try:
        call()
    except dcp.CheckpointException as error:
        failures = [failure for failure, _ in error.failures.values()]
        for failure in failures:
            if isinstance(failure, Llama4Error):
                raise CheckpointError(str(failure)) from error
        raise CheckpointError(f"a process failed: {failures[0]!r:.300}") from error
