"""The world ``scenes``: pictures of coloured shapes, captions with boxes, questions."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

from llama4_core.chat.messages import Image
from llama4_train.errors import DataError
from llama4_train.worlds.forms import FORMS, WEIGHTINGS, Turn, build
from llama4_train.worlds.pairs import HELD_OUT_PAIRS, PAIRS, check_pairs, pairs_of
from llama4_train.worlds.pictures import BACKGROUNDS, draw, mask
from llama4_train.worlds.sample import Sample
from llama4_train.worlds.scenes_layout import CELLS, GRID, Scene, layout
from llama4_train.worlds.scenes_questions import ASK, Asking
from llama4_train.worlds.streams import (
    Stream,
    check_name,
    check_number,
    check_range,
    check_stream,
    stream,
)

KINDS = ("colour", "shape", "count", "position", "relation", "existence", "box")
"""Asked unless said otherwise; "caption" and "description" can be asked too."""

REDRAWS = 1000
"""Scenes that are drawn until one can be asked about: 1 is nearly always enough."""


@dataclass(frozen=True)
class Scenes:
    """Coloured shapes on a plain ground, none touching another, each in a cell of its own.

    Attributes:
        seed, split: see :class:`~llama4_train.worlds.sample.World`.
        form: "pack" or "chat" for questions, "caption" for the picture and its caption, all of
            which carries loss.
        objects: fewest and most in a picture; 9 is the limit, one for each cell.
        questions: asked about a picture, each of another kind; fewer where not that many kinds can
            be asked (a colour, where two things share each shape).
        kinds: of questions, as likely one as another; with the form "caption" "caption" (boxes) and
            "description" (words).
        width, height: of the picture in pixels; two tiles of 64 are 128 x 64.
        sizes: smallest and largest side of a shape in pixels.
        margin: least distance of a shape's middle from the borders between the nine positions, in
            pixels, so that no position is a matter of opinion.
        backgrounds: colours of the ground, one of which is drawn.
        held_out_pairs: colours and shapes that never come together in training, neither in a
            picture nor in a question.
        pairs: in the held-out split: "all" pairs, only those of "train", or only "held-out" ones.
        box_step: numbers of boxes are multiples of it; it divides 1000.
        labels: whether the answer to a question for a box names the object again.
        wordings: 1 for one wording of each question, 2 for two.
        weighting: of the answers, see :data:`~llama4_train.worlds.forms.WEIGHTINGS`.

    Raises:
        DataError: a setting is wrong, or settings do not fit together.
    """

    seed: int = 0
    split: str = "train"
    form: str = "pack"
    objects: tuple[int, int] = (1, 4)
    questions: int = 6
    kinds: tuple[str, ...] = KINDS
    width: int = 64
    height: int = 64
    sizes: tuple[int, int] = (12, 19)
    margin: int = 2
    backgrounds: tuple[str, ...] = ("white",)
    held_out_pairs: tuple[tuple[str, str], ...] = HELD_OUT_PAIRS
    pairs: str = "all"
    box_step: int = 1
    labels: bool = True
    wordings: int = 1
    weighting: str = "token"
    _pairs: tuple[tuple[str, str], ...] = field(init=False, repr=False, compare=False, default=())

    name: ClassVar[str] = "scenes"

    def __post_init__(self) -> None:
        check_stream(self.seed, self.split)
        check_name("form of scenes", self.form, (*FORMS, "caption"))
        check_name("weighting of scenes", self.weighting, WEIGHTINGS)
        check_name("pairs of scenes", self.pairs, PAIRS)
        self._set("objects", check_range("objects of scenes", self.objects, 1, len(CELLS)))
        check_number("questions of scenes", self.questions, 1, len(ASK))
        check_number("wordings of scenes", self.wordings, 1, 2)
        self._check_kinds()
        self._check_sizes()
        self._set("backgrounds", tuple(self.backgrounds))
        for background in self.backgrounds or ("",):
            check_name("a background of scenes", background, tuple(BACKGROUNDS))
        if self.box_step not in (1, 2, 4, 5, 10, 20):
            raise DataError(f"box_step is {self.box_step!r:.80}; expected 1, 2, 4, 5, 10 or 20")
        self._set("held_out_pairs", check_pairs(self.held_out_pairs))
        self._set("_pairs", pairs_of(self.split, self.pairs, self.held_out_pairs))
        if len(self._pairs) <= self.objects[1]:
            raise DataError(
                f"there are {len(self._pairs)} pairs for up to {self.objects[1]} objects; expected "
                "more, so that something can be missing: choose other held_out_pairs"
            )

    def sample(self, index: int) -> Sample:
        """See :class:`~llama4_train.worlds.sample.World`."""
        turns = self.turns(stream(self.name, self.seed, self.split, index))
        if self.form == "caption":
            # The picture alone asks, and all of the caption is learnt: weighting is for answers.
            return build(self, [dataclasses.replace(turn, ask="") for turn in turns], "pack")
        return build(self, turns, self.form, self.weighting)

    def scene(self, index: int) -> Scene:
        """The scene of sample ``index``: for labels of every pixel or patch."""
        asking, _ = self._asked(stream(self.name, self.seed, self.split, index))
        return Scene(tuple(asking.things), asking.inputs[0].source)

    def turns(self, numbers: Stream) -> list[Turn]:
        """Questions about a new scene.

        Raises:
            DataError: hardly any scene can be asked about.
        """
        return self._asked(numbers)[1]

    def _asked(self, numbers: Stream) -> tuple[Asking, list[Turn]]:
        """A scene that can be asked about, with the questions."""
        for _ in range(REDRAWS):
            asking = self._asking(numbers)
            if turns := self._ask(asking, numbers):
                return asking, turns
        raise DataError(
            f"no scene of {self.objects[0]} to {self.objects[1]} objects lets {self.kinds} be "
            "asked; choose other kinds, objects or held_out_pairs"
        )

    def _asking(self, numbers: Stream) -> Asking:
        """A new scene."""
        pairs = [numbers.pick(self._pairs) for _ in range(numbers.between(*self.objects))]
        things = layout(numbers, pairs, self.width, self.height, self.sizes, self.margin)
        ground = BACKGROUNDS[numbers.pick(self.backgrounds)]
        drawn = ((t.colour, mask(t.shape, t.size), t.box[0], t.box[1]) for t in things)
        picture = draw(self.width, self.height, ground, drawn)
        return Asking(
            numbers,
            things,
            (Image(picture),),
            self.width,
            self.height,
            self.objects[1],
            self._pairs,
            self.wordings,
            self.box_step,
            self.labels,
        )

    def _ask(self, asking: Asking, numbers: Stream) -> list[Turn]:
        """Up to ``questions`` questions, each of another kind, in random order.

        Two of one kind would have to differ, which a "yes" can do less often than a "no".
        """
        wanted = 1 if self.form == "caption" else self.questions
        found: list[Turn] = []
        for kind in numbers.some(self.kinds, len(self.kinds)):
            turn = ASK[kind](asking)
            if turn is not None:
                found.append(turn)
                if len(found) == wanted:
                    break
        return found

    def _check_kinds(self) -> None:
        kinds = tuple(self.kinds)
        if self.form == "caption":
            known: tuple[str, ...] = ("caption", "description")
            kinds = ("caption",) if kinds == KINDS else kinds
        else:
            known = tuple(ASK)
        for kind in kinds or ("",):
            check_name("a kind of scenes", kind, known)
        if kinds == ("relation",) and self.objects[1] < 2:
            raise DataError(
                f"objects are {self.objects}, but a relation needs two; set objects to (2, 4)"
            )
        self._set("kinds", kinds)

    def _check_sizes(self) -> None:
        for what in ("width", "height"):
            check_number(f"{what} of scenes", getattr(self, what), 24, 4096)
        cell = min(self.width, self.height) // GRID
        self._set("sizes", check_range("sizes of scenes", self.sizes, 6, cell - 2))
        check_number("margin of scenes", self.margin, 0, cell // 3)

    def _set(self, name: str, value: object) -> None:
        # Frozen for everybody else; lists out of a recipe become tuples, so that worlds hash.
        object.__setattr__(self, name, value)
