"""``llama4 show tiling IMAGE``: how a picture is cut into tiles, and the tokens of them."""

from __future__ import annotations

import argparse
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama4_core.cli.output import add_json_option, print_json
from llama4_core.errors import ModalityError
from llama4_vision.images.layout import PATCH, TILE_Y_SEPARATOR, layout
from llama4_vision.images.tiling import TilePlan, tile_plan

if TYPE_CHECKING:
    from PIL import Image

PLACE = 28
"""Edge of what becomes one token in Llama 4: 2 x 2 patches of 14 x 14 pixels."""

LARGEST_TILE = 48 * PLACE
LARGEST_GRID = 256
"""What a page still holds."""

_SIZE = re.compile("([0-9]{1,9})x([0-9]{1,9})")


class Command:
    """Draws the tiles of a picture, or of a size."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        parser.add_argument("image", help="a picture's file, or a size such as 1920x1080")
        parser.add_argument(
            "-o",
            "--out",
            type=Path,
            metavar="FILE",
            help="draw into FILE (.png, .svg or .pdf) instead",
        )
        parser.add_argument(
            "--tile", type=int, default=336, metavar="N", help="edge of a tile (default 336)"
        )
        parser.add_argument(
            "--max-tiles", type=int, default=16, metavar="N", help="largest grid (default 16)"
        )
        add_json_option(parser)
        parser.epilog = (
            "examples:\n  llama4 show tiling photo.jpg --out tiling.png\n"
            "  llama4 show tiling 1920x1080"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Plans the tiles and shows them."""
        if arguments.out is not None:  # what cannot be drawn is said before anything is read
            from llama4_core.show.drawing import blank_figure, check_path

            check_path(arguments.out)
            blank_figure(1, 1)
        tokens_per_tile = _tokens_per_tile(arguments.tile)
        if not 1 <= arguments.max_tiles <= LARGEST_GRID:
            raise ModalityError(
                f"--max-tiles is {arguments.max_tiles}; expected 1 to {LARGEST_GRID}"
            )
        image, (width, height) = _picture(arguments.image)
        plan = tile_plan(width, height, arguments.tile, arguments.max_tiles)
        if arguments.out is not None:
            from llama4_core.show.drawing import save
            from llama4_vision.cli.tiling_figure import draw

            save(draw(plan, rows_of(plan, tokens_per_tile), image), arguments.out)
        if arguments.json:
            print_json(numbers(plan, tokens_per_tile))
        elif arguments.out is None:
            print(text(plan, tokens_per_tile))
        else:
            print(f"Wrote {arguments.out}")
        return 0


def rows_of(plan: TilePlan, tokens_per_tile: int) -> list[list[tuple[str, int]]]:
    """The tokens of a picture, a line for each row of tiles: names, each with how often it comes.

    The first line begins with the token that begins the picture; the tile of the whole, where there
    is one, is the last line.
    """
    rows: list[list[tuple[str, int]]] = [[]]
    for name in layout(plan, tokens_per_tile):
        row = rows[-1]
        if row and row[-1][0] == name == PATCH:
            row[-1] = (name, row[-1][1] + 1)
        else:
            row.append((name, 1))
        if name == TILE_Y_SEPARATOR:
            rows.append([])
    return [row for row in rows if row]


def numbers(plan: TilePlan, tokens_per_tile: int) -> dict[str, Any]:
    """Everything that is shown, as plain values."""
    rows = rows_of(plan, tokens_per_tile)
    return {
        **asdict(plan),
        "tiles": plan.tiles,
        "canvas": [plan.columns * plan.tile, plan.rows * plan.tile],
        "padding": [
            plan.columns * plan.tile - plan.resized_width,
            plan.rows * plan.tile - plan.resized_height,
        ],
        "has_global": plan.has_global,
        "tokens_per_tile": tokens_per_tile,
        "tokens": sum(count for row in rows for _, count in row),
        "layout": [[[name, count] for name, count in row] for row in rows],
    }


def text(plan: TilePlan, tokens_per_tile: int) -> str:
    """The tiles as a grid of characters, and the tokens row by row."""
    found = numbers(plan, tokens_per_tile)
    sides = zip(found["padding"], ("right", "bottom"), strict=True)
    padding = ", ".join(f"{size} pixels at the {side}" for size, side in sides if size)
    resized = f"{plan.resized_width} x {plan.resized_height}"
    square, canvas = f"{plan.tile} x {plan.tile}", " x ".join(map(str, found["canvas"]))
    rest = "one more tile, the whole picture squashed" if plan.has_global else "none"
    patches = plan.tiles * tokens_per_tile
    counts = f"{plan.tiles} x {tokens_per_tile} = {patches:,} of tiles"
    names = {
        "x": "tile_x_separator",
        "y": "tile_y_separator",
        "start": "image_start",
        "image": "image",
        "end": "image_end",
    }
    used = {name for row in found["layout"] for name, _ in row}
    legend = [f"{short} <|{name}|>" for short, name in names.items() if f"<|{name}|>" in used]
    return "\n".join(
        (
            f"picture  {plan.width} x {plan.height} pixels",
            f"tiles    {plan.rows} x {plan.columns} (rows x columns) of {square}: {canvas} pixels",
            f"resized  to {resized}; padding: {padding or 'none'}",
            f"global   {rest}",
            f"tokens   {found['tokens']:,}: {counts}, {found['tokens'] - patches} of borders",
            "",
            *_grid(plan),
            "",
            *(" ".join(_short(name, count) for name, count in row) for row in found["layout"]),
            "",
            f"[{tokens_per_tile}] as often <|patch|>",
            " · ".join(legend),
        )
    )


def _short(name: str, count: int) -> str:
    if name == PATCH:
        return f"[{count}]"
    inner = name.strip("<|>").removeprefix("image_")
    return inner.removeprefix("tile_").removesuffix("_separator")


def _grid(plan: TilePlan) -> list[str]:
    """The canvas with the numbers of its tiles; padding is shaded."""
    wide, high = (8, 3) if plan.columns <= 8 else (4, 1)
    bar = "─" * wide

    def border(left: str, middle: str, end: str) -> str:
        return left + middle.join([bar] * plan.columns) + end

    lines = [border("┌", "┬", "┐")]
    for row in range(plan.rows):
        for line in range(high):
            y = (row + (line + 0.5) / high) * plan.tile
            cells = []
            for column in range(plan.columns):
                xs = ((column + (i + 0.5) / wide) * plan.tile for i in range(wide))
                outside = y > plan.resized_height
                shade = "".join("░" if outside or x > plan.resized_width else " " for x in xs)
                if line == high // 2:
                    label = str(row * plan.columns + column)
                    start = (wide - len(label)) // 2
                    shade = shade[:start] + label + shade[start + len(label) :]
                cells.append(shade)
            lines.append("│" + "│".join(cells) + "│")
        last = row == plan.rows - 1
        lines.append(border("└", "┴", "┘") if last else border("├", "┼", "┤"))
    return lines


def _tokens_per_tile(tile: int) -> int:
    if not PLACE <= tile <= LARGEST_TILE or tile % PLACE:
        raise ModalityError(
            f"--tile is {tile}; expected a multiple of {PLACE} up to {LARGEST_TILE}, since 2 x 2 "
            "patches of 14 pixels become one token"
        )
    return (tile // PLACE) ** 2


def _picture(what: str) -> tuple[Image.Image | None, tuple[int, int]]:
    """The picture, unless only a size is named, and its width and height."""
    size = _SIZE.fullmatch(what)
    if size is not None and not Path(what).exists():
        width, height = map(int, size.groups())
        if not (width and height):
            raise ModalityError(f"the size is {what}; expected at least 1x1")
        return None, (width, height)
    from llama4_vision.images.open import open_image

    image = open_image(what)
    return image, image.size
