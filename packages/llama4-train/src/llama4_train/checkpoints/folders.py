"""Folders of checkpoints: their names, which is the latest, and what is left over of a kill.

A checkpoint is written into ``.step-NNNNNNNN.partial`` and gets its name when it is complete; one
that is no longer kept is renamed to ``.step-NNNNNNNN.removed`` before it is deleted. So a name
without a dot always stands for a whole checkpoint. Imports no torch.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llama4_core.errors import CheckpointError

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
_NAME = re.compile(r"step-(\d{8,})")
_LEFT_OVER = re.compile(r"\.step-\d{8,}\.(partial|removed)")


def checkpoint_folder(run: Path, step: int) -> Path:
    """Where the checkpoint after ``step`` steps belongs."""
    return run / CHECKPOINTS / f"step-{step:08d}"


def partial_folder(folder: Path) -> Path:
    """Where ``folder`` is written before it is complete."""
    return folder.with_name(f".{folder.name}.partial")


def checkpoints(run: Path) -> list[tuple[int, Path]]:
    """Steps and folders of all complete checkpoints of a run, oldest first."""
    place = run / CHECKPOINTS
    if not place.is_dir():
        return []
    found = [(_NAME.fullmatch(path.name), path) for path in place.iterdir()]
    return sorted((int(match.group(1)), path) for match, path in found if match)


def latest(run: str | Path) -> Path | None:
    """The checkpoint of a run with the most steps; None if it has none."""
    found = checkpoints(Path(run))
    return found[-1][1] if found else None


def prune(run: Path, keep: int) -> None:
    """Deletes all but the latest ``keep`` checkpoints."""
    for _, folder in checkpoints(run)[:-keep]:
        doomed = folder.with_name(f".{folder.name}.removed")
        with disk(folder, "removed"):
            folder.replace(doomed)
            shutil.rmtree(doomed)


def clean(run: Path) -> None:
    """Deletes what a killed process left half written or half deleted."""
    place = run / CHECKPOINTS
    if not place.is_dir():
        return
    for path in sorted(place.iterdir()):
        if _LEFT_OVER.fullmatch(path.name):
            log.info("%s: left over by a process that was stopped; removed", path)
            # What cannot be removed is in nobody's way; another process may be removing it.
            shutil.rmtree(path, ignore_errors=True)


def check_space(folder: Path, needed: int) -> None:
    """Raises where the disk of ``folder`` has too little room.

    Args:
        folder: will be written; its parent exists.
        needed: bytes.

    Raises:
        CheckpointError: says how much is needed and how much is free.
    """
    free = shutil.disk_usage(folder.parent).free
    if free < needed:
        raise CheckpointError(
            f"{folder}: needs {needed / 1e9:.3f} GB, but the disk has {free / 1e9:.3f} GB free; "
            "older checkpoints are untouched: make room, then resume"
        )


def write_text(path: Path, text: str) -> None:
    """Writes a small file, all of it or nothing."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def sync_folder(folder: Path) -> None:
    """Brings the names in a folder to the disk, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def disk(path: Path, what: str) -> Iterator[None]:
    """Turns errors of the system into one line.

    Raises:
        CheckpointError: instead of OSError.
    """
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be {what} ({error.strerror or error}); check the disk and its rights"
        ) from error
