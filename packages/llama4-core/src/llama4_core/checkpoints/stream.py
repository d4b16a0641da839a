"""Fills the files of a plan, a piece of one expert at a time, and goes on where it was stopped.

While ``OUT`` is being written there are two things beside it: the folder ``.OUT.partial`` and the
file ``.OUT.partial.journal``. The journal begins with the fingerprint of source and plan and then
has one checksum for every piece that is safely on the disk; pieces always come in the same order,
so their number says where to go on. At the end the folder is renamed and the journal removed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from llama4_core.checkpoints.joined import PIECE_BYTES, compact, gathered, pieces
from llama4_core.checkpoints.save import carry_files
from llama4_core.errors import CheckpointError, Llama4Error

if TYPE_CHECKING:
    from llama4_core.checkpoints.joined import Weight
    from llama4_core.checkpoints.plan import Plan
    from llama4_core.checkpoints.shards import Progress

log = logging.getLogger(__name__)

# Bytes that may have to be written again after a kill.
SYNC_BYTES = 256 * 1024**2
_LINES = re.compile(rb"(?:[0-9a-f]{8}\n)*+")


class Journal:
    """Checksums of the pieces that are safely written; in memory only without a file."""

    def __init__(self, descriptor: int | None = None, fingerprint: str = "") -> None:
        self.sums: list[int] = []
        self._waiting: list[int] = []
        self._descriptor = descriptor
        self._head = f"{fingerprint}\n".encode()
        if descriptor is None:
            return
        content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        self.fits = content.startswith(self._head)
        if self.fits:
            # A line that a kill cut off, or that a power failure left as zeros, ends the list.
            lines = _LINES.match(content, len(self._head))
            found = lines.group() if lines else b""
            self.sums = [int(line, 16) for line in found.split()]

    def begin(self) -> None:
        """Forgets everything."""
        self.sums = []
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, self._head, 0)
            os.fsync(self._descriptor)

    def add(self, checksum: int) -> None:
        """Notes a piece that is written, though perhaps not yet on the disk."""
        self._waiting.append(checksum)

    def flush(self) -> None:
        """Notes on disk the pieces added; call it when their bytes are there."""
        if self._descriptor is not None and self._waiting:
            lines = "".join(f"{checksum:08x}\n" for checksum in self._waiting).encode()
            os.pwrite(self._descriptor, lines, len(self._head) + 9 * len(self.sums))
            os.fsync(self._descriptor)
        self.sums += self._waiting
        self._waiting = []


def fill(plan: Plan, folder: Path, journal: Journal, progress: Progress | None = None) -> None:
    """Writes the files of ``plan`` into ``folder``, without the pieces that the journal has."""
    total, done, number = plan.nbytes, 0, 0
    for file in plan.files:
        path = folder / file.name
        if number == len(journal.sums):
            file.prepare(path)
        offsets = file.offsets(path)
        sums, unsynced = [], 0
        with path.open("r+b", buffering=0) as handle:
            for key, weight in file.weights.items():
                offset, checksum = offsets[key], 0
                for piece in pieces(weight):
                    if number < len(journal.sums):
                        checksum = journal.sums[number]
                    else:
                        raw = _raw(piece)
                        checksum = zlib.crc32(raw, checksum) if file.checksummed else 0
                        _write(handle, raw, offset)
                        journal.add(checksum)
                        unsynced += piece.nbytes
                        if unsynced >= SYNC_BYTES:
                            os.fsync(handle.fileno())
                            journal.flush()
                            unsynced = 0
                    offset += piece.nbytes
                    done += piece.nbytes
                    number += 1
                    if progress is not None:
                        progress(done, total)
                sums.append(checksum)
            os.fsync(handle.fileno())
        journal.flush()
        file.finish(path, sums)
    for name, text in plan.texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _raw(piece: Weight) -> memoryview:
    tensor = compact(gathered(piece).detach()).cpu()
    raw: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(raw)


def _write(handle: Any, raw: memoryview, offset: int) -> None:
    handle.seek(offset)
    while raw:
        raw = raw[handle.write(raw) :]


def stream(
    plan: Plan,
    target: Path,
    *,
    source: Path,
    progress: Progress | None = None,
) -> None:
    """Writes ``plan`` as the new folder ``target``; the same call goes on after a kill.

    Args:
        plan: what to write; its weights are views of the files in ``source``.
        target: must not exist, or be an empty folder.
        source: the files whose names, sizes and times tell whether an earlier attempt was the same;
            its licences, tokenizer and generation settings go along.
        progress: called with bytes written and bytes in total.

    Raises:
        CheckpointError: the target is in use, another process is writing it, the disk is too small,
            or something of another origin lies where the partial folder belongs.
    """
    target = target.absolute()
    partial = target.with_name(f".{target.name}.partial")
    notes = target.with_name(f".{target.name}.partial.journal")
    in_use = target.exists() and not (target.is_dir() and not any(target.iterdir()))
    if in_use and not notes.exists():
        raise CheckpointError(
            f"{target}: exists and is not an empty folder; nothing is overwritten, choose another"
        )
    if partial.exists() and not notes.exists():
        raise CheckpointError(f"{partial}: is in the way and has no journal; remove it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _opened(notes) as descriptor:
            journal = Journal(descriptor, _fingerprint(plan, source))
            if in_use:
                if not journal.fits or partial.exists():
                    raise CheckpointError(
                        f"{target}: exists and is not an empty folder; nothing is overwritten, "
                        f"choose another, or remove {notes} if it was left over"
                    )
                # Killed between its last two steps: the folder is complete.
                notes.unlink()
                return
            if not journal.fits or not partial.exists():
                shutil.rmtree(partial, ignore_errors=True)
                journal.begin()
            elif journal.sums:
                log.info("%s: goes on after %d pieces", target, len(journal.sums))
            _check_disk(plan, partial, target)
            try:
                partial.mkdir(exist_ok=True)
                fill(plan, partial, journal, progress)
                carry_files(source, partial)
            except Llama4Error:
                shutil.rmtree(partial, ignore_errors=True)
                notes.unlink(missing_ok=True)
                raise
            partial.replace(target)
            notes.unlink()
    except OSError as error:
        raise CheckpointError(
            f"{target}: cannot be written ({error.strerror or error}); check the disk and its "
            "rights, then run the same again: it goes on where it stopped"
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """The journal, locked against a second process, where the system has such locks."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            import fcntl
        except ImportError:
            pass
        else:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise CheckpointError(
                    f"{path}: another process is writing there; wait for it, or choose another "
                    "target"
                ) from error
        yield descriptor
    finally:
        os.close(descriptor)


def _fingerprint(plan: Plan, source: Path) -> str:
    files = sorted(path for path in source.iterdir() if path.is_file())
    content = {
        "source": [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files],
        "files": [
            (file.name, [(key, str(w.dtype), list(w.shape)) for key, w in file.weights.items()])
            for file in plan.files
        ],
        "texts": dict(plan.texts),
        "pieces": PIECE_BYTES,
        "torch": torch.__version__,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_disk(plan: Plan, partial: Path, target: Path) -> None:
    held = sum(path.stat().st_blocks * 512 for path in partial.glob("*")) if partial.exists() else 0
    needed = plan.nbytes - held
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise CheckpointError(
            f"{target}: needs {needed / 1e9:.2f} GB more, but the disk has {free / 1e9:.2f} GB free"
        )
