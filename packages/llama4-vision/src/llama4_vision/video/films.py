"""Films that PyAV decodes: mp4, webm, mkv, mov, avi, mpeg. The extra ``[video]``."""

from __future__ import annotations

import bisect
import contextlib
import importlib
import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from llama4_core.errors import ModalityError

if TYPE_CHECKING:
    from PIL import Image

    from llama4_vision.images.limits import Limits

CONTAINERS = "mov,mp4,matroska,webm,avi,mpeg,mpegts,flv,asf,ogg"
"""Containers that are read. Playlists are not among them: they name other files and addresses."""

DECODED = 1024
"""Pictures of the largest size that are decoded for one film at most, kept or not."""

# Containers with an index by which one can go straight to a frame that stands for itself.
_INDEXED = ("mov", "matroska")

# Frames per second of a film that names neither times nor a rate.
_RATE = 25.0

# Seconds that a film may end before its own head says: containers round, and sound may be longer.
_SHORT = 1.0


class Film:
    """A film whose frames are decoded when they are asked for; one picture is held at a time.

    Pixels are taken as square; the rotation that a phone writes into the container is applied.

    Args:
        source: the file, or its content.
        limits: see :class:`~llama4_vision.images.limits.Limits`.

    Attributes:
        times: seconds from the first frame at which each comes on the screen.
        end: when the last one leaves it.

    Raises:
        ModalityError: PyAV is not installed; no film, or a damaged one; it is beyond the limits.
    """

    def __init__(self, source: Path | bytes, limits: Limits) -> None:
        self._source, self._limits = source, limits
        self._av = _library()
        with self._opened() as (container, stream):
            self._size = (stream.codec_context.width, stream.codec_context.height)
            packets = _packets(container, stream)
            unit = float(stream.time_base)
            rate = float(stream.average_rate or stream.guessed_rate or 0) or _RATE
            kind = container.format.name
        # Packets come in the order of decoding, and AVI does not say when each is shown.
        self._counted = kind == "avi" or any(stamp is None for stamp, _, _ in packets)
        if self._counted:
            unit = 1 / rate
            packets = [(index, index == 0, 1) for index in range(len(packets))]
        shown = sorted((stamp, key, length) for stamp, key, length in packets if stamp is not None)
        self._stamps = [stamp for stamp, _, _ in shown]
        keys = [index for index, (_, key, _) in enumerate(shown) if key]
        self._keys = keys if kind.startswith(_INDEXED) and keys[:1] == [0] else [0]
        self.times = tuple((stamp - self._stamps[0]) * unit for stamp in self._stamps)
        self.end = self.times[-1] + shown[-1][2] * unit

    def pictures(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        """The frames of ascending ``indices``, RGB.

        Decoding starts at the last frame before each that stands for itself, or goes on from the
        frame before, whichever is nearer.

        Raises:
            ModalityError: the film is damaged, or too much would have to be decoded.
        """
        starts = [self._keys[bisect.bisect_right(self._keys, index) - 1] for index in indices]
        self._check_work(indices, starts)
        with self._opened() as (container, stream):
            frames: Iterator[tuple[int, Any]] = iter(())
            reached = -1
            for index, start in zip(indices, starts, strict=True):
                if reached < start:
                    if start:
                        container.seek(self._stamps[start], stream=stream)
                    frames = self._decoded(container, stream)
                stamp = self._stamps[index]
                at, frame = next((found for found in frames if found[0] >= stamp), (-1, None))
                if frame is None or at != stamp or frame.is_corrupt:
                    raise ModalityError(_damaged(f"frame {index + 1} cannot be decoded"))
                reached = index
                self._limits.check_size(frame.width, frame.height)
                turn = round(frame.rotation)
                picture = frame.to_image()
                yield picture.rotate(turn, expand=True) if turn % 360 else picture

    def _decoded(self, container: Any, stream: Any) -> Iterator[tuple[int, Any]]:
        """Frames from here on, each with its stamp."""
        for number, frame in enumerate(container.decode(stream)):
            if self._counted:
                yield number, frame
            elif frame.pts is not None:
                yield frame.pts, frame

    def _check_work(self, indices: Sequence[int], starts: Sequence[int]) -> None:
        before = itertools.chain([-1], indices)
        decoded = sum(
            index + 1 - max(start, last + 1)
            for index, start, last in zip(indices, starts, before, strict=False)
        )
        pixels = decoded * self._size[0] * self._size[1]
        most = DECODED * self._limits.pixels
        if pixels > most:
            raise ModalityError(
                f"to get at {len(indices)} frames of the film, {decoded:,} of {self._size[0]} x "
                f"{self._size[1]} would be decoded, {pixels:,} pixels; the limit is {most:,}: cut "
                "the film shorter, make it smaller, or raise Limits.pixels"
            )

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """The container and its stream of pictures; whatever PyAV raises becomes our error."""
        av = self._av
        try:
            with contextlib.ExitStack() as stack:
                if isinstance(self._source, bytes):
                    file: Any = io.BytesIO(self._source)
                else:
                    # Opened here: PyAV would take a name for an address.
                    file = stack.enter_context(self._source.open("rb"))
                container = stack.enter_context(
                    av.open(
                        file,
                        container_options={"format_whitelist": CONTAINERS},
                        io_open=_no_other_file,
                    )
                )
                stream = container.streams.best("video")
                if stream is None:
                    raise ModalityError(_damaged("it has no pictures"))
                context = stream.codec_context
                if context is None:
                    raise ModalityError(_damaged("nothing here decodes its pictures"))
                self._limits.check_size(context.width, context.height)
                # For the decoder, should frames grow on the way; it rounds sizes up to blocks.
                most = max(self._limits.pixels, (context.width + 64) * (context.height + 64))
                context.options = {"max_pixels": str(most)}
                yield container, stream
        except ModalityError:
            raise
        except (av.FFmpegError, OSError, ValueError, IndexError) as problem:
            reason = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
            raise ModalityError(_damaged(" ".join(reason.split())[:160])) from problem


def _packets(container: Any, stream: Any) -> list[tuple[int | None, bool, int]]:
    """Of each frame: when it is shown, whether it stands for itself, how long it is shown.

    Times are in units of the stream. All streams are walked through, and nothing is decoded.

    Raises:
        ModalityError: the film has no frame, or its end is missing.
    """
    found, furthest = [], 0.0
    for packet in container.demux():
        if packet.is_corrupt:
            raise ModalityError(_damaged("a part of it is missing"))
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is not None:
            furthest = max(furthest, float((stamp + (packet.duration or 0)) * packet.time_base))
        if packet.stream_index == stream.index and packet.size and not packet.is_discard:
            found.append((packet.pts, bool(packet.is_keyframe), packet.duration or 0))
    if not found:
        raise ModalityError(_damaged("it has no frame"))
    # In millionths of a second.
    start, length = (value or 0 for value in (container.start_time, container.duration))
    lasts = furthest - start / 1e6
    if length / 1e6 > lasts + _SHORT:
        raise ModalityError(
            _damaged(f"it says that it lasts {length / 1e6:.1f} s, and ends after {lasts:.1f} s")
        )
    return found


def _library() -> Any:
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise ModalityError(
            "this film is no GIF, WebP or PNG, and needs PyAV: pip install 'llama4-vision[video]', "
            "or give a folder or list of its frames"
        ) from error


def _no_other_file(url: str, flags: int, options: Any) -> NoReturn:
    raise OSError(f"the film names another file, {url!r:.60}, which is not opened")


def _damaged(reason: str) -> str:
    return (
        f"the film cannot be read: {reason}; expected a whole mp4, webm, mkv, mov, avi or mpeg "
        "file, a GIF, WebP or PNG, or a folder or list of frames"
    )
