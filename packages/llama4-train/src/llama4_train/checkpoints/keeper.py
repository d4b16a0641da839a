"""Writes checkpoints of a run beside its steps."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from llama4_core.errors import CheckpointError, Llama4Error
from llama4_train.checkpoints.folders import (
    CHECKPOINTS,
    check_space,
    checkpoint_folder,
    clean,
    disk,
    prune,
)
from llama4_train.checkpoints.groups import grouped, leads

log = logging.getLogger(__name__)


class Keeper:
    """Keeps the latest checkpoints of a run.

    :meth:`save` copies the state in memory and returns; a thread writes the copy. One copy at a
    time: saving again waits for the one before. What goes wrong in the thread is raised by the
    next call, and the checkpoints that are already there stay as they are. A group of processes
    writes without a thread, all together.

    Args:
        run: folder of the run; no other run may use it at the same time.
        keep: how many checkpoints stay.
    """

    def __init__(self, run: Path, keep: int) -> None:
        self.run = run.absolute()
        self.keep = keep
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        with disk(self.run, "written"):
            (self.run / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        if leads():
            clean(self.run)

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Stores ``state`` as the checkpoint after ``step`` steps.

        Args:
            step: number of steps taken.
            state: name -> tensor or JSON value; may change as soon as this returns.

        Raises:
            CheckpointError: the disk is too small, a value is no JSON, or the checkpoint before
                could not be written.
        """
        from llama4_train.checkpoints.planners import json_bytes

        self.wait()
        folder = checkpoint_folder(self.run, step)
        if folder.exists():
            log.info("%s: is there already", folder)
            return
        if grouped():
            self._write(folder, dict(state))
            return
        tensors = {name: one for name, one in state.items() if isinstance(one, Tensor)}
        # Before the copy is made: nobody should wait for that only to be told.
        check_space(folder, sum(one.nbytes for one in tensors.values()))
        copied: dict[str, Any] = {
            name: tensors[name].detach().to("cpu", copy=True)
            if name in tensors
            else json.loads(json_bytes(value, name))
            for name, value in state.items()
        }
        self._thread = threading.Thread(
            target=self._try, args=(folder, copied), name=f"writes {folder.name}"
        )
        self._thread.start()

    def check(self) -> None:
        """Raises what went wrong since the last call; never waits.

        Raises:
            CheckpointError: a checkpoint could not be written.
        """
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Waits until nothing is being written.

        Raises:
            CheckpointError: a checkpoint could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def _try(self, folder: Path, state: dict[str, Any]) -> None:
        try:
            self._write(folder, state)
        except Llama4Error as error:
            # Also where nobody takes another step.
            log.warning("%s", error)
            self._error = error
        except Exception as error:  # noqa: BLE001 - of a thread: kept for the next step, never lost
            self._error = CheckpointError(f"{folder}: cannot be written: {error!r:.300}")
            self._error.__cause__ = error

    def _write(self, folder: Path, state: dict[str, Any]) -> None:
        from llama4_train.checkpoints.whole import write

        write(state, folder)
        log.info("%s: written", folder)
        if leads():
            prune(self.run, self.keep)
