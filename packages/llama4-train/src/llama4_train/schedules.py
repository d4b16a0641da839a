"""What changes over the steps of a run: learning rate and balancing. No torch."""

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


def kept_bias(schedule: SchedulePart, step: int, steps: int) -> float | None:
    """What is left of a balancing bias after step ``step`` (from 0), as a share of that before it.

    None while the load still moves the bias, which it does until the last ``release`` steps. With
    k steps left, this one among them, the share is ``(k - 1) / k``: the bias falls linearly and is
    exactly 0 after the last step. It follows from the step alone, so that a resumed run needs to
    know nothing else.
    """
    left = steps - step
    return None if left > schedule.release else (left - 1) / left
