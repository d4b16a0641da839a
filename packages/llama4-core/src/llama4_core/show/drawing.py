"""Bars out of characters, and figures through matplotlib, which is only needed for the latter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama4_core.errors import DrawingError

#: Colours that people with colour-blindness tell apart (Okabe and Ito, 2008), darkest last.
COLOURS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#555555",
)  # fmt: skip
FORMATS = (".png", ".svg", ".pdf")

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"


def bar(share: float, width: int) -> str:
    """A horizontal bar of ``share`` (0 to 1) of ``width`` characters, never empty above 0."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    if share > 0:
        eighths = max(eighths, 1)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()).ljust(width)


def levels(values: Sequence[float]) -> str:
    """One character per value, as high as its share of the largest; a dot where it is 0."""
    most = max(values, default=0)
    return "".join(
        _LEVELS[math.ceil(value / most * len(_LEVELS)) - 1] if value > 0 else "·"
        for value in values
    )


def segments(sizes: Sequence[float], width: int) -> list[int]:
    """``width`` characters shared out in proportion (largest remainders): they sum to ``width``."""
    total = sum(sizes)
    exact = [size / total * width for size in sizes]
    found = [int(part) for part in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda i: found[i] - exact[i])
    for index in by_remainder[: width - sum(found)]:
        found[index] += 1
    return found


def blank_figure(width: float, height: float) -> Any:
    """A matplotlib figure of ``width`` by ``height`` inches that belongs to no window.

    Raises:
        DrawingError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DrawingError(
            "a picture file needs matplotlib, which is not installed; leave --out away for the "
            "text, or pip install 'llama4-core[plot]'"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")


def check_path(path: Path) -> None:
    """Refuses a name whose ending is not a picture's, before anything is computed.

    Raises:
        DrawingError: it ends otherwise.
    """
    if path.suffix.lower() not in FORMATS:
        raise DrawingError(
            f"the picture's name is {path.name!r}; expected one that ends in {', '.join(FORMATS)}"
        )


def save(figure: Any, path: Path) -> None:
    """Writes the figure in the format that the name ends in; equal figures give equal files."""
    import matplotlib

    check_path(path)
    dates = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with matplotlib.rc_context({"svg.hashsalt": "llama4"}):
        figure.savefig(path, dpi=130, metadata=dates.get(path.suffix.lower()), facecolor="white")


def plain(axes: Any) -> None:
    """Takes away the frame lines that carry nothing."""
    axes.spines[["top", "right"]].set_visible(False)
