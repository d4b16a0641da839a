"""Questions about a scene: for each kind a function that asks, or gives None where it cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llama4_core.chat.messages import Image
from llama4_train.worlds.forms import Turn
from llama4_train.worlds.pictures import COLOURS, PLURALS, SHAPES
from llama4_train.worlds.scenes_layout import CELLS, GRID, Thing
from llama4_train.worlds.streams import Stream
from llama4_train.worlds.targets import BoxTarget, Exact, ThingsTarget, write_box

YES_NO = ("yes", "no")

COLOUR_NAMES = tuple(COLOURS)


@dataclass(frozen=True, slots=True)
class Asking:
    """What the functions below know.

    Attributes:
        stream: of random numbers.
        things: of the scene.
        inputs: its picture.
        width, height: of the picture.
        most: things that a scene may hold.
        pairs: colours and shapes that may be spoken of.
        wordings: how many of the wordings are used.
        box_step: numbers of boxes are multiples of it.
        labels: whether a box says what it holds.
    """

    stream: Stream
    things: Sequence[Thing]
    inputs: tuple[Image]
    width: int
    height: int
    most: int
    pairs: Sequence[tuple[str, str]]
    wordings: int
    box_step: int
    labels: bool

    def turn(self, kind: str, ask: str, answer: str, choices: Sequence[str] | range) -> Turn:
        """One whose answer is exact."""
        return Turn(kind, ask, answer, Exact(answer), choices, inputs=self.inputs)

    def word(self, *wordings: str) -> str:
        """One of the wordings in use."""
        return wordings[self.stream.below(min(self.wordings, len(wordings)))]

    def named_once(self) -> list[Thing]:
        """Things whose colour and shape together nothing else has."""
        names = [thing.name for thing in self.things]
        return [thing for thing in self.things if names.count(thing.name) == 1]


def article(word: str) -> str:
    """The word behind "a" or "an"."""
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def colour(asking: Asking) -> Turn | None:
    """Of a thing whose shape nothing else has."""
    shapes = [thing.shape for thing in asking.things]
    known = [thing for thing in asking.things if shapes.count(thing.shape) == 1]
    if not known:
        return None
    thing = asking.stream.pick(known)
    ask = asking.word("What colour is the {}?", "Which colour does the {} have?")
    return asking.turn("colour", ask.format(thing.shape), thing.colour, COLOUR_NAMES)


def shape(asking: Asking) -> Turn | None:
    """Of a thing whose colour nothing else has."""
    colours = [thing.colour for thing in asking.things]
    known = [thing for thing in asking.things if colours.count(thing.colour) == 1]
    if not known:
        return None
    thing = asking.stream.pick(known)
    ask = asking.word("What shape is the {} object?", "Which shape does the {} object have?")
    return asking.turn("shape", ask.format(thing.colour), thing.shape, SHAPES)


def position(asking: Asking) -> Turn | None:
    """One of nine, of a thing that has no double."""
    known = asking.named_once()
    if not known:
        return None
    thing = asking.stream.pick(known)
    ask = asking.word("Where is the {}?", "In which part of the picture is the {}?")
    return asking.turn("position", ask.format(thing.name), CELLS[thing.cell], CELLS)


def count(asking: Asking) -> Turn | None:
    """All objects, or those of a colour, or of a shape, which half of the time is there."""
    stream, things = asking.stream, asking.things
    which = stream.below(3)
    if which == 0:
        what, number = "objects", len(things)
    elif which == 1:
        name = stream.pick(things).colour if stream.flip() else stream.pick(COLOUR_NAMES)
        what, number = f"{name} objects", sum(thing.colour == name for thing in things)
    else:
        name = stream.pick(things).shape if stream.flip() else stream.pick(SHAPES)
        what, number = PLURALS[name], sum(thing.shape == name for thing in things)
    ask = asking.word("How many {} are there?", "What is the number of {}?")
    return asking.turn("count", ask.format(what), str(number), range(asking.most + 1))


def existence(asking: Asking) -> Turn | None:
    """Yes as often as no; half of what is not there shares a colour or a shape with what is."""
    stream, things = asking.stream, asking.things
    there = {(thing.colour, thing.shape) for thing in things}
    yes = stream.flip()
    if yes:
        pair = things[stream.below(len(things))]
        name = pair.name
    else:
        absent = [pair for pair in asking.pairs if pair not in there]
        if stream.flip():
            colours, shapes = zip(*there, strict=True)
            near = [pair for pair in absent if pair[0] in colours or pair[1] in shapes]
            absent = near or absent
        name = " ".join(stream.pick(absent))
    ask = asking.word("Is there {}?", "Can you see {}?")
    return asking.turn("existence", ask.format(article(name)), YES_NO[not yes], YES_NO)


def relation(asking: Asking) -> Turn | None:
    """Which of two is further left, or higher; named in any order: yes is as often as no."""
    known = asking.named_once()
    if len(known) < 2:
        return None
    one, other = asking.stream.some(known, 2)
    axes = []
    if one.cell % GRID != other.cell % GRID:
        axes.append(("left of", one.cell % GRID < other.cell % GRID))
    if one.cell // GRID != other.cell // GRID:
        axes.append(("above", one.cell // GRID < other.cell // GRID))
    words, yes = asking.stream.pick(axes)  # two things are never in one cell
    ask = asking.word("Is the {} {} the {}?", "Do you see the {} {} the {}?")
    return asking.turn("relation", ask.format(one.name, words, other.name), YES_NO[not yes], YES_NO)


def box(asking: Asking) -> Turn | None:
    """Of a thing that has no double."""
    known = asking.named_once()
    if not known:
        return None
    thing = asking.stream.pick(known)
    corners = thing.corners(asking.width, asking.height)
    ask = asking.word("Draw a box around the {}.", "Give the box of the {}.").format(thing.name)
    answer = write_box(corners, asking.box_step, thing.name if asking.labels else "")
    return Turn("box", ask, answer, BoxTarget(corners), inputs=asking.inputs)


def caption(asking: Asking) -> Turn | None:
    """Everything with its box, from left to right."""
    found = [(thing.name, thing.corners(asking.width, asking.height)) for thing in asking.things]
    answer = "".join(write_box(corners, asking.box_step, name) for name, corners in found)
    ask = asking.word("Find all objects.", "List every object with its box.")
    return Turn("caption", ask, answer, ThingsTarget(tuple(found)), inputs=asking.inputs)


def description(asking: Asking) -> Turn | None:
    """Everything in words, from left to right."""
    said = (f"{article(thing.name)} ({CELLS[thing.cell]})" for thing in asking.things)
    answer = ", ".join(said)
    ask = asking.word("Describe the picture.", "What is in the picture?")
    return Turn("description", ask, answer, Exact(answer), inputs=asking.inputs)


ASK: dict[str, Callable[[Asking], Turn | None]] = {
    "colour": colour,
    "shape": shape,
    "count": count,
    "position": position,
    "relation": relation,
    "existence": existence,
    "box": box,
    "caption": caption,
    "description": description,
}
"""Kind -> what asks."""
