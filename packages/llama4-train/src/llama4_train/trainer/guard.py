"""What stands between a run and numbers that are none: the batches are kept, the run stops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from llama4_core.checkpoints.safetensors_file import write_file
from llama4_train.errors import TrainingError
from llama4_train.protocols import Batch


def check_finite(
    loss: float, norm: float, step: int, batches: Sequence[Batch], folder: Path | None
) -> None:
    """Raises where the loss or the gradients of a step are not finite, before the weights change.

    Args:
        loss: of the step.
        norm: of its gradients.
        step: its number.
        batches: what it was taken on; written as ``not-finite-STEP.safetensors`` into the folder,
            with the names ``INDEX.tokens``, ``INDEX.targets``, ``INDEX.weights``,
            ``INDEX.lengths`` and ``INDEX.inputs.PLACEHOLDER``.
        folder: of the run, or None for keeping nothing.

    Raises:
        TrainingError: says which of the two it was, and where the batches are.
    """
    if math.isfinite(loss) and math.isfinite(norm):
        return
    what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
    where = "give the run a folder to have its batches kept"
    if folder is not None:
        file = folder / f"not-finite-{step}.safetensors"
        folder.mkdir(parents=True, exist_ok=True)
        write_file(file, _tensors(batches), {"step": str(step)})
        where = f"its batches are in {file}"
    raise TrainingError(
        f"step {step}: {what}; the weights are those before the step, and {where}: lower the "
        "learning rate, or look at the data"
    )


def _tensors(batches: Sequence[Batch]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for index, batch in enumerate(batches):
        found[f"{index}.tokens"] = batch.tokens
        found[f"{index}.targets"] = batch.targets
        found[f"{index}.weights"] = batch.weights
        found[f"{index}.lengths"] = torch.tensor(batch.lengths)
        for placeholder, inputs in batch.inputs.items():
            found[f"{index}.inputs.{placeholder}"] = inputs.contiguous()
    return found
