"""A line about where a run stands."""

from __future__ import annotations

import math
import shutil
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from llama4_train.errors import RecipeError
from llama4_train.recipe import Recipe
from llama4_train.trackers.values import Value

MEASURED = "measured"
"""In place of a peak: measure it at the first step."""

_WINDOW = 50
"""Steps over which rates are averaged."""


class Progress:
    """Shows step, loss, learning rate, tokens per second, use of the machine and time left.

    On a terminal one line is rewritten; elsewhere there is a line every so many steps. Of the
    values of a step it reads ``loss``, ``learning_rate``, ``tokens``, ``seconds`` and ``flops``,
    the operations of the step as :func:`llama4_train.flops.training_flops` counts them; what is
    missing is not shown.

    Args:
        folder: of the run, or None; nothing is written there.
        recipe: says how many steps there are, and the dtype of the weights.
        every: steps between two lines where there is no terminal.
        peak: operations per second that the machine could do; "measured" takes the fastest of a
            few products of square matrices.
        device: type of device that the peak is measured on.
        stream: where lines go; None for standard error.

    Raises:
        RecipeError: ``every`` or ``peak`` is out of range.
    """

    def __init__(
        self,
        folder: Path | None,
        recipe: Recipe,
        *,
        every: int = 10,
        peak: float | str = MEASURED,
        device: str = "cpu",
        stream: TextIO | None = None,
    ) -> None:
        if every < 1:
            raise RecipeError(f"every is {every}; expected at least 1")
        if isinstance(peak, str) and peak != MEASURED:
            raise RecipeError(f"peak is {peak!r}; expected operations per second, or {MEASURED!r}")
        if not isinstance(peak, str) and not 0 < peak < math.inf:
            raise RecipeError(f"peak is {peak}; expected operations per second, above 0")
        self.recipe = recipe
        self.every = every
        self.peak = peak
        self.device = device
        self.stream = stream
        self._window: deque[Mapping[str, Value]] = deque(maxlen=_WINDOW)
        self._open_line = False

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Shows the step."""
        self._window.append(values)
        stream = self.stream or sys.stderr
        last = step + 1 >= self.recipe.steps
        terminal = stream.isatty()
        if not terminal and not last and (step + 1) % self.every:
            return
        text = line(step, self.recipe.steps, list(self._window), self._peak(values))
        if terminal:
            # A line that wraps cannot be rewritten.
            text = text[: max(shutil.get_terminal_size().columns - 1, 1)]
            stream.write(f"\r{text}\x1b[K")
            self._open_line = True
        else:
            stream.write(f"{text}\n")
        stream.flush()

    def finish(self) -> None:
        """Leaves the line."""
        if self._open_line:
            stream = self.stream or sys.stderr
            stream.write("\n")
            stream.flush()
            self._open_line = False

    def _peak(self, values: Mapping[str, Value]) -> float | None:
        if "flops" not in values:
            return None
        if isinstance(self.peak, str):
            from llama4_train.trackers.peak import measured_peak

            self.peak = measured_peak(self.recipe.model.dtype, self.device)
        return self.peak


def line(
    step: int, steps: int, window: list[Mapping[str, Value]], peak: float | None = None
) -> str:
    """The text of the line.

    Args:
        step: number of the latest step.
        steps: of the run.
        window: values of the latest steps, this one the last: rates are averaged over them.
        peak: operations per second that the machine could do; None leaves their use away.
    """
    latest = window[-1]
    texts = [f"step {step + 1:,}/{steps:,}"]
    if "loss" in latest:
        texts.append(f"loss {_scalar(latest, 'loss'):.4f}")
    if "learning_rate" in latest:
        texts.append(f"lr {_scalar(latest, 'learning_rate'):.2e}")
    seconds = sum(_scalar(values, "seconds") for values in window if "seconds" in values)
    if seconds > 0:
        tokens = sum(_scalar(values, "tokens") for values in window if "tokens" in values)
        if tokens:
            texts.append(f"{tokens / seconds:,.0f} tokens/s")
        flops = sum(_scalar(values, "flops") for values in window if "flops" in values)
        if flops and peak is not None:
            texts.append(f"{flops / seconds / peak:.0%} of {peak / 1e12:.3g} TFLOP/s")
        left = round((steps - 1 - step) * seconds / len(window))
        texts.append(f"{duration(left)} left")
    return " | ".join(texts)


def duration(seconds: int) -> str:
    """``H:MM:SS``, or ``M:SS`` below an hour."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _scalar(values: Mapping[str, Value], name: str) -> float:
    value = values[name]
    return math.nan if not isinstance(value, int | float) else float(value)
