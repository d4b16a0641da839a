"""What one step of a run was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Step:
    """One step of the optimizer.

    Attributes:
        number: from 0.
        loss: of the step, per weight of its targets.
        parts: named shares of the loss, losses by data source, and health of router and gradients.
        learning_rate: that the step was taken with.
        gradient_norm: of all gradients together, before clipping.
        tokens: of all batches of the step.
        seconds: of wall time.
        evaluation: results of an evaluation after this step, by task.
        loads: layer -> share of the step's tokens that each of its experts got.
        flops: operations that the step needs (:mod:`llama4_train.flops`); 0 where nobody counted.
    """

    number: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    seconds: float
    parts: Mapping[str, float] = field(default_factory=dict)
    evaluation: Mapping[str, float] = field(default_factory=dict)
    loads: Mapping[int, Sequence[float]] = field(default_factory=dict)
    flops: float = 0.0
