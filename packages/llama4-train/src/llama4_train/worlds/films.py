"""The world ``films``: a shape that moves, and questions about where it goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from llama4_core.chat.messages import Image, Part, Video
from llama4_train.errors import DataError
from llama4_train.worlds.forms import FORMS, WEIGHTINGS, Turn, build
from llama4_train.worlds.pairs import HELD_OUT_PAIRS, PAIRS, check_pairs, pairs_of
from llama4_train.worlds.pictures import BACKGROUNDS, COLOURS, SHAPES, Box, draw, mask
from llama4_train.worlds.sample import Sample
from llama4_train.worlds.scenes_layout import CELLS, cell_of, clear_of_borders
from llama4_train.worlds.streams import (
    Stream,
    check_name,
    check_number,
    check_range,
    check_stream,
    stream,
)
from llama4_train.worlds.targets import Exact

DIRECTIONS: dict[str, tuple[int, int]] = {
    "right": (1, 0),
    "left": (-1, 0),
    "down": (0, 1),
    "up": (0, -1),
}
"""Steps across and down."""

KINDS = ("direction", "colour", "shape", "end")

SHOWN_AS = ("film", "pictures")

REDRAWS = 1000
"""Paths that are drawn until one ends clear of the borders: hardly ever more than 5."""


@dataclass(frozen=True, slots=True)
class Film:
    """A moving shape.

    Attributes:
        colour, shape, direction: names.
        boxes: where it is in each frame, to the pixel.
        frames: pictures of Pillow.
    """

    colour: str
    shape: str
    direction: str
    boxes: tuple[Box, ...]
    frames: list[object]


@dataclass(frozen=True)
class Films:
    """A coloured shape that moves straight through the picture, evenly, a quarter to a half of it.

    Attributes:
        seed, split: see :class:`~llama4_train.worlds.sample.World`.
        form: "pack" or "chat".
        frames: of each film; at most a quarter of the shorter side, so that each shows a step.
        questions: asked about a film, each of another kind.
        kinds: of questions, of "direction", "colour", "shape" and "end" (the position at the end).
        width, height: of a frame in pixels.
        sizes: smallest and largest side of the shape in pixels.
        shown_as: "film", one part whose source is the list of frames, or "pictures", one part for
            each frame.
        margin: least distance of the shape's last middle from the borders between positions.
        held_out_pairs, pairs, weighting: see :class:`~llama4_train.worlds.scenes.Scenes`.

    Raises:
        DataError: a setting is wrong, or settings do not fit together.
    """

    seed: int = 0
    split: str = "train"
    form: str = "pack"
    frames: int = 4
    questions: int = 4
    kinds: tuple[str, ...] = KINDS
    width: int = 64
    height: int = 64
    sizes: tuple[int, int] = (12, 19)
    shown_as: str = "film"
    margin: int = 2
    held_out_pairs: tuple[tuple[str, str], ...] = HELD_OUT_PAIRS
    pairs: str = "all"
    weighting: str = "token"
    _pairs: tuple[tuple[str, str], ...] = field(init=False, repr=False, compare=False, default=())

    name: ClassVar[str] = "films"

    def __post_init__(self) -> None:
        check_stream(self.seed, self.split)
        check_name("form of films", self.form, FORMS)
        check_name("weighting of films", self.weighting, WEIGHTINGS)
        check_name("pairs of films", self.pairs, PAIRS)
        check_name("shown_as of films", self.shown_as, SHOWN_AS)
        check_number("questions of films", self.questions, 1, len(KINDS))
        kinds = tuple(self.kinds)
        for kind in kinds or ("",):
            check_name("a kind of films", kind, KINDS)
        side = min(self.width, self.height)
        for what in ("width", "height"):
            check_number(f"{what} of films", getattr(self, what), 24, 4096)
        check_number("frames of films", self.frames, 2, side // 4)
        sizes = check_range("sizes of films", self.sizes, 6, side // 3)
        check_number("margin of films", self.margin, 0, side // 9)
        held_out = check_pairs(self.held_out_pairs)
        allowed = pairs_of(self.split, self.pairs, held_out)
        if not allowed:
            raise DataError("no pair of colour and shape is left; choose other held_out_pairs")
        # Frozen for everybody else; lists out of a recipe become tuples, so that worlds hash.
        for name, value in (
            ("kinds", kinds),
            ("sizes", sizes),
            ("held_out_pairs", held_out),
            ("_pairs", allowed),
        ):
            object.__setattr__(self, name, value)

    def sample(self, index: int) -> Sample:
        """See :class:`~llama4_train.worlds.sample.World`."""
        numbers = stream(self.name, self.seed, self.split, index)
        film = self._film(numbers)
        inputs: tuple[Part, ...] = (Video(film.frames),)
        if self.shown_as == "pictures":
            inputs = tuple(Image(frame) for frame in film.frames)
        order = numbers.some(self.kinds, min(self.questions, len(self.kinds)))
        turns = [self._turn(kind, film, inputs) for kind in order]
        return build(self, turns, self.form, self.weighting)

    def film(self, index: int) -> Film:
        """The film of sample ``index``, with its boxes."""
        return self._film(stream(self.name, self.seed, self.split, index))

    def _film(self, numbers: Stream) -> Film:
        colour, shape = numbers.pick(self._pairs)
        across, down = DIRECTIONS[direction := numbers.pick(tuple(DIRECTIONS))]
        size = numbers.between(*self.sizes)
        picture = mask(shape, size)
        for _ in range(REDRAWS):
            boxes = self._path(numbers, across, down, picture.size)
            if clear_of_borders(boxes[-1], self.width, self.height, self.margin):
                break
        else:
            raise DataError(
                f"no path of {self.width} x {self.height} pixels ends {self.margin} pixels off the "
                "borders between positions; set a smaller margin"
            )
        ground = BACKGROUNDS["white"]
        frames: list[object] = [
            draw(self.width, self.height, ground, [(colour, picture, box[0], box[1])])
            for box in boxes
        ]
        return Film(colour, shape, direction, boxes, frames)

    def _path(
        self, numbers: Stream, across: int, down: int, size: tuple[int, int]
    ) -> tuple[Box, ...]:
        whole = self.width if across else self.height
        travel = numbers.between(whole // 4, whole // 2)
        free_x = self.width - size[0] - (travel if across else 0)
        free_y = self.height - size[1] - (travel if down else 0)
        # The corner that the path covers, then the end of it that the movement starts from.
        x = numbers.between(0, free_x) + (travel if across < 0 else 0)
        y = numbers.between(0, free_y) + (travel if down < 0 else 0)
        steps = [round(travel * at / (self.frames - 1)) for at in range(self.frames)]
        corners = [(x + across * step, y + down * step) for step in steps]
        return tuple((x, y, x + size[0], y + size[1]) for x, y in corners)

    def _turn(self, kind: str, film: Film, inputs: tuple[Part, ...]) -> Turn:
        choices: tuple[str, ...]
        if kind == "direction":
            ask, answer = f"Which way does the {film.shape} move?", film.direction
            choices = tuple(DIRECTIONS)
        elif kind == "colour":
            ask, answer, choices = f"What colour is the {film.shape}?", film.colour, tuple(COLOURS)
        elif kind == "shape":
            ask, answer, choices = f"What shape is the {film.colour} object?", film.shape, SHAPES
        else:
            ask = f"Where is the {film.shape} at the end?"
            answer = CELLS[cell_of(film.boxes[-1], self.width, self.height)]
            choices = CELLS
        return Turn(kind, ask, answer, Exact(answer), choices, inputs=inputs)
