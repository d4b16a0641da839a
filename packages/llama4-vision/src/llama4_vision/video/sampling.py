"""Which frames of a film to look at. Imports without torch or Pillow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from llama4_core.errors import ModalityError

DEFAULT_FRAMES = 8
"""Frames of a film when neither their number nor a rate is asked for."""

# Times come from sums and quotients of floats: what is nearer than a microsecond is the same.
_SAME = 1e-6


def sample(
    times: Sequence[float], end: float, count: int | None = None, fps: float | None = None
) -> tuple[int, ...]:
    """Indices of the frames to look at, in order, none twice.

    With ``count`` n of N frames: frame ``round(k (N - 1) / (n - 1))`` for k from 0 to n - 1, halves
    upwards, so the first and the last are among them; the first alone for n = 1, all N for
    ``n >= N``. With ``fps``: those that are on the screen at the times ``k / fps`` from the start
    of the first frame until ``end``.

    Args:
        times: seconds at which each frame comes on the screen, ascending.
        end: when the last one leaves it.
        count: how many frames; :data:`DEFAULT_FRAMES` if ``fps`` is None too.
        fps: frames per second.

    Raises:
        ModalityError: both are given, or one is no number above 0; there is no frame.
    """
    check_rate(count, fps)
    total = len(times)
    if not total:
        raise ModalityError("the film has no frame; expected at least one")
    if fps is None:
        return _evenly(total, DEFAULT_FRAMES if count is None else count)
    starts = [(time - times[0]) * fps - _SAME for time in (*times, max(end, times[-1]))]
    # The last frame of a film that does not say how long it is shown is on the screen when it ends.
    starts[-1] = max(starts[-1], starts[-2] + 2 * _SAME)
    return tuple(i for i in range(total) if max(0, math.ceil(starts[i])) < starts[i + 1])


def check_rate(count: Any, fps: Any) -> None:
    """Raises a ModalityError unless at most one is given, and is a number above 0."""
    if count is not None and fps is not None:
        raise ModalityError(
            f"got {count!r:.40} frames and {fps!r:.40} frames per second of a film; expected one "
            "of the two"
        )
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        raise ModalityError(
            f"got {count!r:.40} as the number of frames; expected a whole number of at least 1"
        )
    number = isinstance(fps, int | float) and not isinstance(fps, bool)
    if fps is not None and not (number and 0 < fps < math.inf):
        raise ModalityError(f"got {fps!r:.40} frames per second; expected a finite number above 0")


def _evenly(total: int, count: int) -> tuple[int, ...]:
    if count >= total:
        return tuple(range(total))
    if count == 1:
        return (0,)
    steps = count - 1
    return tuple((2 * k * (total - 1) + steps) // (2 * steps) for k in range(count))
