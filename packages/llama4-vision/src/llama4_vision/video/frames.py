"""The frames of a film, whatever it is: a file of any kind, a folder, a list of pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from llama4_core.errors import ModalityError
from llama4_vision.images.formats import format_of
from llama4_vision.images.limits import Limits, too_many_frames
from llama4_vision.images.open import open_image
from llama4_vision.images.sources import read_bytes
from llama4_vision.video.animations import Animation
from llama4_vision.video.durations import timeline
from llama4_vision.video.films import Film
from llama4_vision.video.sampling import check_rate, sample
from llama4_vision.video.sources import find, head_of, unreadable

if TYPE_CHECKING:
    from PIL import Image

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
"""Endings of the files of a folder that are its frames; others are passed over."""

_ANIMATED = ("GIF", "PNG", "WebP")


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame that was taken from a film.

    Attributes:
        image: RGB, transparency on white.
        seconds: from the start of the film until the frame comes on the screen.
    """

    image: Image.Image
    seconds: float


class Source(Protocol):
    """A film whose frames can be decoded.

    Attributes:
        times: seconds at which each frame comes on the screen, ascending, the first at 0.
        end: when the last one leaves it.
    """

    times: tuple[float, ...]
    end: float

    def pictures(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        """The frames of ascending ``indices``, RGB, one at a time."""


class Pictures:
    """Pictures as a film: one per second.

    Args:
        sources: of the frames, in order.
        limits: see :class:`~llama4_vision.images.limits.Limits`.
    """

    def __init__(self, sources: Sequence[Any], limits: Limits) -> None:
        self._sources, self._limits = sources, limits
        self.times = tuple(float(index) for index in range(len(sources)))
        self.end = float(len(sources))

    def pictures(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        """The pictures of ``indices``, opened one at a time."""
        for index in indices:
            yield open_image(self._sources[index], self._limits)


@dataclass(frozen=True, eq=False)
class Sampled:
    """A film, and which of its frames to look at: decided before any is decoded.

    Attributes:
        film: the source.
        indices: ascending.
    """

    film: Source
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Frame]:
        """Decodes frame after frame, holding one."""
        pictures = self.film.pictures(self.indices)
        for index, picture in zip(self.indices, pictures, strict=True):
            yield Frame(picture, self.film.times[index])


def sampled(
    source: Any,
    count: int | None = None,
    fps: float | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> Sampled:
    """Opens a film and chooses frames; arguments and errors as :func:`read_frames`."""
    check_rate(count, fps)
    if count is not None and count > limits.frames:
        raise ModalityError(too_many_frames(count, limits.frames))
    film = open_film(source, limits)
    indices = sample(film.times, film.end, count, fps)
    if len(indices) > limits.frames:
        raise ModalityError(too_many_frames(len(indices), limits.frames))
    return Sampled(film, indices)


def read_frames(
    source: Any,
    count: int | None = None,
    fps: float | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> list[Frame]:
    """Frames of a film.

    Args:
        source: a path, bytes, a file object or a ``data:`` URL of a GIF, WebP, PNG or, with the
            extra ``[video]``, of what PyAV reads; a folder of pictures, in the order of their names
            (frame2 before frame10); or a list of pictures, each as :func:`open_image` takes them.
            Pictures of a folder or list are one second apart.
        count: how many frames, evenly over the film, the first and the last among them; all where
            it has fewer.
        fps: how many frames of each second instead. With neither,
            :data:`~llama4_vision.video.sampling.DEFAULT_FRAMES` frames.
        limits: bytes of the file, pixels of a frame, and frames that are taken.

    Raises:
        ModalityError: no film, a damaged one, or one beyond the limits.
    """
    return list(sampled(source, count, fps, limits))


def open_film(source: Any, limits: Limits = Limits()) -> Source:  # noqa: B008 - frozen
    """Finds out what a film is and when its frames are shown; decodes none.

    Raises:
        ModalityError: as :func:`read_frames`.
    """
    if isinstance(source, list | tuple):
        if not source:
            raise ModalityError("the list of pictures is empty; expected at least one frame")
        return Pictures(source, limits)
    found = find(source, limits)
    if isinstance(found, Path) and found.is_dir():
        return Pictures(_in_folder(found), limits)
    kind = _picture(head_of(found))
    if kind is None:
        return Film(found, limits)
    if kind not in _ANIMATED:
        return Pictures([found], limits)
    data = read_bytes(found, limits)
    line = timeline(data, kind)
    return Pictures([data], limits) if line is None else Animation(data, kind, line, limits)


def _picture(head: bytes) -> str | None:
    """The format of a picture's file by its first bytes; None if it is none."""
    try:
        return format_of(head)
    except ModalityError:
        return None


def _in_folder(folder: Path) -> list[Path]:
    """The pictures of a folder, in the order of their names."""
    try:
        files = [path for path in folder.iterdir() if path.suffix.lower() in PICTURES]
    except OSError as problem:
        raise ModalityError(unreadable(folder, problem)) from problem
    if not files:
        raise ModalityError(
            f"the folder {folder} holds no picture; expected files that end in "
            f"{', '.join(PICTURES)}"
        )
    return sorted(files, key=_natural)


def _natural(path: Path) -> tuple[list[Any], str]:
    """Order of names in which numbers count as numbers; the name itself decides among equals."""
    pieces = re.split("([0-9]+)", path.name.casefold())
    # Text and numbers take turns, so that only like is compared with like.
    return [int(piece) if index % 2 else piece for index, piece in enumerate(pieces)], path.name
