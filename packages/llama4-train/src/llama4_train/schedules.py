"""The learning rate over the steps of a run, as a factor of its largest value. No torch."""

from __future__ import annotations

import math

from llama4_train.recipe import SchedulePart


def factor(schedule: SchedulePart, step: int, steps: int) -> float:
    """The factor of step ``step`` (from 0) of a run of ``steps``.

    Warm-up grows linearly from ``1 / warmup`` to 1. Then "constant" stays at 1, "cosine" falls
    along half a cosine (Loshchilov and Hutter, "SGDR", 2017), and "wsd" stays at 1 until the last
    ``decay`` steps, in which it falls linearly (Hu et al., "MiniCPM", 2024). Both fall to ``floor``
    at the last step, and stay there if the run goes on. Where a decay begins within the warm-up,
    the smaller of both factors holds.
    """
    growing = (step + 1) / schedule.warmup if step < schedule.warmup else 1.0
    if schedule.shape == "constant":
        return growing
    # Of the steps that fall, how many are behind when this one is taken, as a share.
    if schedule.shape == "wsd":
        behind = schedule.decay - (steps - 1 - step)
        share = behind / schedule.decay if schedule.decay else 0.0
        fallen = min(max(share, 0.0), 1.0)
    else:
        share = (step - schedule.warmup) / max(1, steps - 1 - schedule.warmup)
        fallen = (1 - math.cos(math.pi * min(max(share, 0.0), 1.0))) / 2
    return min(growing, 1 - (1 - schedule.floor) * fallen)
