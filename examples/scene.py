"""A picture to look at, drawn by Pillow: a lighthouse, a boat, a sun. Nobody's photograph."""

from __future__ import annotations

from PIL import Image, ImageDraw

#: Where things are, in thousandths of the width and the height.
LIGHTHOUSE = (150, 180, 250, 760)
BOAT = (560, 600, 760, 800)
SUN = (800, 80, 900, 260)


def scene(width: int = 1280, height: int = 720) -> Image.Image:
    """The picture in any size; what is in it keeps its place."""
    image = Image.new("RGB", (width, height), "#a9d3ee")
    brush = ImageDraw.Draw(image)

    def at(*places: float) -> list[float]:
        return [place / 1000 * (width, height)[index % 2] for index, place in enumerate(places)]

    brush.rectangle(at(0, 650, 1000, 1000), fill="#2e6f9e")
    for wave in range(700, 1000, 60):
        brush.line(at(0, wave, 1000, wave + 15), fill="#4d8dba", width=max(1, height // 240))
    brush.polygon(at(0, 1000, 0, 780, 120, 720, 300, 740, 420, 1000), fill="#6b5b4b")
    brush.ellipse(at(*SUN), fill="#f6c945")
    left, top, right, bottom = LIGHTHOUSE
    brush.polygon(at(165, bottom, 180, 280, 220, 280, 235, bottom), fill="#f4f1ea")
    for stripe in (380, 520, 660):
        brush.rectangle(at(174, stripe, 226, stripe + 60), fill="#c8442f")
    brush.rectangle(at(178, 210, 222, 280), fill="#ffe58a")
    brush.polygon(at(left + 15, 210, 200, top, right - 15, 210), fill="#c8442f")
    brush.rectangle(at(left, bottom - 20, right, bottom), fill="#54483c")
    left, top, right, bottom = BOAT
    brush.polygon(at(left, 740, right, 740, right - 30, bottom, left + 30, bottom), fill="#7a3b22")
    brush.polygon(at(660, top, 660, 725, right - 10, 725), fill="#f4f1ea")
    brush.polygon(at(650, top + 20, 650, 725, left + 20, 725), fill="#e4ddcf")
    return image
