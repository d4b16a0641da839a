"""Curves for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama4_train.errors import TrainingError
from llama4_train.recipe import Recipe
from llama4_train.trackers.values import Value, scalars


class TensorBoard:
    """Writes scalars for ``tensorboard --logdir FOLDER``, and the recipe as text.

    A resumed run hides what was logged after the checkpoint. The first part of a name groups
    curves: ``router.violation.3`` is ``router/violation.3``.

    Args:
        folder: of the run; files go into ``folder / name``.
        recipe: of the run.
        name: of the folder below.
    """

    def __init__(self, folder: Path, recipe: Recipe, *, name: str = "tensorboard") -> None:
        self.folder = Path(folder) / name
        self.recipe = recipe
        self._writer: Any = None

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Writes the numbers of one step.

        Raises:
            TrainingError: tensorboard is not installed.
        """
        if self._writer is None:
            self._writer = self._open(step)
        for name, value in scalars(values):
            self._writer.add_scalar(name.replace(".", "/", 1), value, step)

    def finish(self) -> None:
        """Writes what is still in memory."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self, step: int) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise TrainingError(
                "the tracker tensorboard needs tensorboard, which is not installed: pip install "
                "'llama4-train[tensorboard]'"
            ) from error
        # Only now is it known which of the steps on disk come again.
        writer: Any = SummaryWriter(str(self.folder), purge_step=step)
        if step == 0:
            text = "\n".join(f"    {line}" for line in self.recipe.to_toml().splitlines())
            writer.add_text("recipe", text, step)
        return writer
