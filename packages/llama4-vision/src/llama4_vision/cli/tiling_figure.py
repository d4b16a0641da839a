"""The figure of ``llama4 show tiling``: the canvas, the tile of the whole, and the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llama4_core.show.drawing import COLOURS, blank_figure

if TYPE_CHECKING:
    from PIL import Image

    from llama4_vision.images.tiling import TilePlan

_SHOWN = 900
"""Longest edge of the picture in the figure, in pixels: more only makes the file larger."""

_TOKENS = {
    "<|image_start|>": (COLOURS[7], "start"),
    "<|tile_x_separator|>": (COLOURS[1], "x separator"),
    "<|tile_y_separator|>": (COLOURS[5], "y separator"),
    "<|image|>": (COLOURS[3], "image"),
    "<|image_end|>": (COLOURS[2], "end"),
}


def draw(
    plan: TilePlan, rows: Sequence[Sequence[tuple[str, int]]], image: Image.Image | None
) -> Any:
    """A matplotlib figure.

    Args:
        plan: of the tiles.
        rows: tokens as :func:`llama4_vision.cli.tiling.rows_of` gives them.
        image: the picture; without one its place is filled.
    """
    longest = max(plan.rows, plan.columns)
    edge = min(3.2, 6.4 / longest + 0.15)  # of a tile, in inches
    # At least as wide as what stands above it.
    canvas_width, canvas_height = max(plan.columns * edge, 3.0), plan.rows * edge
    side = 2.2  # of the global tile, its title above it
    token_height = 0.8 + 0.32 * len(rows)
    above_height = max(canvas_height, side * plan.has_global) + 0.6
    width = max(canvas_width + 0.6 + (side + 0.4) * plan.has_global, 7.0)
    figure = blank_figure(width, above_height + token_height)
    # Room for titles of two lines: axes of a fixed shape are moved after it was measured.
    figure.get_layout_engine().set(h_pad=0.15)
    # The last column is what a narrow canvas leaves free.
    ratios = [canvas_width, side * plan.has_global + 0.01, max(width - canvas_width - side, 0.01)]
    grid = figure.add_gridspec(
        2, 3, height_ratios=[above_height, token_height], width_ratios=ratios
    )
    _canvas(figure.add_subplot(grid[0, 0]), plan, image)
    if plan.has_global:
        _whole(figure.add_subplot(grid[0, 1]), plan, image)
    _tokens(figure.add_subplot(grid[1, :]), plan, rows)
    return figure


def _canvas(axes: Any, plan: TilePlan, image: Image.Image | None) -> None:
    """The resized picture on the canvas, with the lines along which it is cut."""
    width, height = plan.columns * plan.tile, plan.rows * plan.tile
    _show(axes, image, plan.resized_width, plan.resized_height)
    for corner, size in (
        ((plan.resized_width, 0), (width - plan.resized_width, height)),
        ((0, plan.resized_height), (plan.resized_width, height - plan.resized_height)),
    ):
        if min(size) > 0:
            _fill(axes, corner, size, facecolor="white", edgecolor="#9aa4ae", hatch="///")
    for place in range(plan.columns + 1):
        axes.plot([place * plan.tile] * 2, [0, height], color=COLOURS[5], linewidth=1.4)
    for place in range(plan.rows + 1):
        axes.plot([0, width], [place * plan.tile] * 2, color=COLOURS[5], linewidth=1.4)
    for tile in range(plan.rows * plan.columns):
        row, column = divmod(tile, plan.columns)
        axes.text(
            (column + 0.5) * plan.tile,
            (row + 0.5) * plan.tile,
            str(tile),
            ha="center",
            va="center",
            fontsize=9 if max(plan.rows, plan.columns) <= 8 else 6,
            bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "lw": 0, "alpha": 0.85},
        )
    axes.set_xlim(-0.01 * width, 1.01 * width)
    axes.set_ylim(1.01 * height, -0.01 * height)
    axes.set_aspect("equal", anchor="NW")
    axes.set_title(
        f"{plan.width} x {plan.height}, resized to {plan.resized_width} x {plan.resized_height}\n"
        f"{plan.rows} x {plan.columns} tiles of {plan.tile}; padding hatched",
        fontsize=10,
        loc="left",
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _whole(axes: Any, plan: TilePlan, image: Image.Image | None) -> None:
    """The global tile."""
    _show(axes, image, plan.tile, plan.tile)
    axes.set_xlim(0, plan.tile)
    axes.set_ylim(plan.tile, 0)
    axes.set_aspect("equal", anchor="NW")
    axes.set_title(f"tile {plan.tiles - 1}: the whole,\nsquashed", fontsize=10, loc="left")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(COLOURS[5])


def _show(axes: Any, image: Image.Image | None, width: int, height: int) -> None:
    """The picture from the origin to ``width, height``."""
    if image is None:
        _fill(axes, (0, 0), (width, height), facecolor="#dbe4ec")
        return
    scale = min(1.0, _SHOWN / max(width, height))
    small = image.resize((max(round(width * scale), 1), max(round(height * scale), 1)))
    axes.imshow(small, extent=(0, width, height, 0), interpolation="nearest")


def _tokens(axes: Any, plan: TilePlan, rows: Sequence[Sequence[tuple[str, int]]]) -> None:
    """A line for each row of tokens; the width of a tile is shortened, that of borders is not."""
    tile, border = 10.0, 1.5
    widest, index = 0.0, 0
    seen: set[str] = set()
    for line, row in enumerate(rows):
        # Tiles of one column stand below each other: the first is behind what begins it all.
        x = 0.0 if row[0][0] in _TOKENS else border
        for name, count in row:
            colour, label = _TOKENS.get(name, ("#cfe3f1", "patches of a tile"))
            width = border if name in _TOKENS else tile
            # Each once in the legend: labels that begin with _ are left out of it.
            shown = f"_{label}" if label in seen else label
            _fill(axes, (x, line + 0.1), (width, 0.8), facecolor=colour, label=shown)
            seen.add(label)
            if name not in _TOKENS:
                words = f"{index}: {count}" if plan.columns <= 8 else str(index)
                axes.text(x + tile / 2, line + 0.5, words, ha="center", va="center", fontsize=8)
                index += 1
            x += width
        widest = max(widest, x)
    total = sum(count for row in rows for _, count in row)
    axes.set_title(f"{total:,} tokens, in this order", fontsize=10, loc="left")
    axes.legend(
        frameon=False, fontsize=8, ncols=6, loc="upper left", bbox_to_anchor=(0, 0),
        borderaxespad=0.3, handlelength=1.0, columnspacing=1.2,
    )  # fmt: skip
    axes.set_xlim(0, max(widest, 40))
    axes.set_ylim(len(rows), 0)
    axes.axis("off")


def _fill(axes: Any, corner: tuple[float, float], size: tuple[float, float], **looks: Any) -> None:
    """A rectangle without a line around it."""
    (x, y), (width, height) = corner, size
    axes.fill([x, x + width, x + width, x], [y, y, y + height, y + height], lw=0, **looks)
