"""Films for the tests, drawn by Pillow and PyAV."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
from PIL import Image

SIZES = ((7, 5), (16, 9), (1, 3))


def pictures(count: int, size: tuple[int, int] = (7, 5), *, clear: bool = False) -> list[Any]:
    """Pictures that all differ; ``clear`` leaves a moving pixel transparent."""
    drawn = []
    for index in range(count):
        picture = Image.new("RGBA", size, (10 + 7 * index % 240, 200 - 3 * index % 190, 30, 255))
        place = (index % size[0], index % size[1])
        picture.putpixel(place, (0, 0, 0, 0) if clear else (255, 40, index, 255))
        drawn.append(picture)
    return drawn


def on_white(picture: Image.Image) -> Image.Image:
    """What people see."""
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")


def _indexed(picture: Image.Image) -> Image.Image:
    """The same picture with a palette, exactly: Pillow's own choice of colours is a guess."""
    data = picture.tobytes()
    pixels = [data[place : place + 4] for place in range(0, len(data), 4)]
    colours = sorted(set(pixels), key=lambda colour: colour[3])
    found = Image.new("P", picture.size)
    found.putpalette([value for colour in colours for value in colour[:3]])
    found.putdata([colours.index(pixel) for pixel in pixels])
    if not colours[0][3]:
        found.info["transparency"] = 0
    return found


def animation(
    kind: str, frames: Sequence[Image.Image], milliseconds: Sequence[int], **settings: Any
) -> bytes:
    """A GIF, PNG or WebP without loss."""
    file = io.BytesIO()
    if kind == "WebP":
        settings = {"lossless": True, "exact": True, **settings}
    if kind == "GIF":
        frames = [_indexed(frame) for frame in frames]
    first, *rest = frames
    first.save(
        file,
        kind,
        save_all=True,
        append_images=rest,
        duration=list(milliseconds) if len(frames) > 1 else milliseconds[0],
        **settings,
    )
    return file.getvalue()


def film(
    container: str = "mp4",
    codec: str = "libx264",
    *,
    count: int = 12,
    rate: int = 10,
    size: tuple[int, int] = (32, 16),
    group: int = 12,
    between: int = 0,
    settings: dict[str, str] | None = None,
) -> bytes:
    """A film whose frame i is grey of value 8 i, with a white square at the top left.

    Args:
        container: as PyAV names it.
        codec: likewise.
        count: frames.
        rate: per second.
        size: in pixels.
        group: frames from one that stands for itself to the next.
        between: frames that are predicted from later ones.
        settings: of the container.
    """
    # A file with a name, as the container's head is moved to the front by reading it again.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "film")
        _write(path, container, codec, count, rate, size, group, between, settings or {})
        return path.read_bytes()


def _write(
    path: Path,
    container: str,
    codec: str,
    count: int,
    rate: int,
    size: tuple[int, int],
    group: int,
    between: int,
    settings: dict[str, str],
) -> None:
    with av.open(str(path), "w", format=container, options=settings) as output:
        stream: Any = output.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.gop_size = group
        stream.max_b_frames = between
        if codec == "libx264":
            # Else each of these flat pictures would stand for itself.
            stream.options = {"sc_threshold": "0"}
        # Enough that greys stay apart.
        stream.bit_rate = 8_000_000
        for index in range(count):
            picture = Image.new("RGB", size, (8 * index,) * 3)
            picture.paste((255, 255, 255), (0, 0, 8, 8))
            output.mux(stream.encode(av.VideoFrame.from_image(picture)))
        output.mux(stream.encode())


def numbers(frames: Sequence[Any]) -> list[int]:
    """Which frames of :func:`film` these are, by their grey."""
    found = []
    for frame in frames:
        width, height = frame.image.size
        found.append(round(frame.image.getpixel((width - 1, height - 1))[0] / 8))
    return found
