"""The learning rate over the steps of a run, as a factor of its largest value. No torch."""

from __future__ import annotations

import math

from llama4_train.recipe import SchedulePart


def factor(schedule: SchedulePart, step: int, steps: int) -> float:
    """The factor of step ``step`` (from 0) of a run of ``steps``.

    Warm-up grows linearly from ``1 / warmup`` to 1. Then "constant" stays at 1, "cosine" falls to
    ``floor`` along half a cosine by the last step, and "wsd" stays at 1 until the last ``decay``
    steps, in which it falls linearly to ``floor`` (Hu et al., "MiniCPM", 2024).
    """
    if step < schedule.warmup:
        return (step + 1) / schedule.warmup
    if schedule.shape == "constant":
        return 1.0
    if schedule.shape == "wsd":
        left = steps - step
        if left > schedule.decay:
            return 1.0
        return schedule.floor + (1 - schedule.floor) * left / (schedule.decay + 1)
    done = (step - schedule.warmup) / max(1, steps - 1 - schedule.warmup)
    return schedule.floor + (1 - schedule.floor) * (1 + math.cos(math.pi * min(1.0, done))) / 2
