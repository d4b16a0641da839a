"""GIF, WebP and animated PNG, by Pillow."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from PIL import Image

from llama4_core.errors import ModalityError
from llama4_vision.images.damage import READER_ERRORS
from llama4_vision.images.formats import read_header
from llama4_vision.images.open import open_image
from llama4_vision.video.durations import Timeline

if TYPE_CHECKING:
    from llama4_vision.images.limits import Limits

DECODED = 16
"""Pictures of the largest size that are decoded for one film at most: each frame changes the one
before it, so all up to the last that is wanted are."""

LEAST = 4096
"""Pixels that a frame counts for at least: a small one takes as long to find as these to decode."""


class Animation:
    """The frames of an animated file, as people see them: each drawn over those before it.

    Args:
        data: of the file.
        kind: "GIF", "PNG" or "WebP".
        line: what the container says about it.
        limits: see :class:`~llama4_vision.images.limits.Limits`.

    Attributes:
        times: seconds at which each frame comes on the screen.
        end: when the last one leaves it.

    Raises:
        ModalityError: it is beyond the limits.
    """

    def __init__(self, data: bytes, kind: str, line: Timeline, limits: Limits) -> None:
        self._data, self._kind, self._first, self._limits = data, kind, line.first, limits
        limits.check_size(line.width, line.height)
        count = len(line.seconds)
        pixels = count * max(LEAST, line.width * line.height)
        most = DECODED * limits.pixels
        if pixels > most:
            raise ModalityError(
                f"the film has {count:,} frames of {line.width} x {line.height}, which count for "
                f"{pixels:,} pixels; the limit is {most:,}: cut it shorter, make it smaller, or "
                "raise Limits.pixels"
            )
        *starts, end = itertools.accumulate(line.seconds, initial=0)
        self.times = tuple(map(float, starts))
        self.end = float(end)

    def pictures(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        """The frames of ascending ``indices``, RGB, transparency on white.

        Raises:
            ModalityError: the file is damaged.
        """
        try:
            film = read_header(self._data, self._kind, self._limits)
        except READER_ERRORS as problem:
            raise _damaged(problem) from problem
        with film:
            for index in indices:
                try:
                    film.seek(self._first + index)
                    # A copy: the film's own pixels change with the next frame.
                    shown = film.copy()
                except READER_ERRORS as problem:
                    raise _damaged(problem) from problem
                yield open_image(shown, self._limits)


def _damaged(problem: Exception) -> ModalityError:
    if isinstance(problem, ModalityError):
        return problem
    reason = " ".join(str(problem).split())[:160] or type(problem).__name__
    return ModalityError(
        f"the animation is damaged or cut short ({reason}); expected a whole file: copy it again"
    )
