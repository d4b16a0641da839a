"""The world ``chats``: conversations of several turns about what the other worlds ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from llama4_train.worlds.arithmetic import Arithmetic
from llama4_train.worlds.forms import Turn, build
from llama4_train.worlds.names import NOUNS, STYLES, Style, values
from llama4_train.worlds.sample import Rates, Sample
from llama4_train.worlds.scenes import Scenes
from llama4_train.worlds.sentences import Sentences
from llama4_train.worlds.streams import Stream, check_name, check_range, check_stream, stream
from llama4_train.worlds.targets import Exact
from llama4_train.worlds.tool_tables import TOOLS
from llama4_train.worlds.tools import Tools

TOPICS = ("scenes", "arithmetic", "sentences", "memory", "tools")

SYSTEM = "Answer briefly."

AGREED = "I will remember that."

OFFERED = 2
"""Tools on offer in a conversation that is also about tools: their schemas are long."""


@dataclass(frozen=True)
class Chats:
    """A conversation about several topics, each answer checked as in its own world.

    "memory" is a key that the user tells at one point, and asks for at the end. Every question is
    asked behind the whole conversation before it.

    Attributes:
        seed, split: see :class:`~llama4_train.worlds.sample.World`.
        topics: of "scenes", "arithmetic", "sentences", "memory" and "tools".
        lengths: fewest and most topics in a conversation; one may come again.
        follow_ups: fewest and most questions about one picture, and problems in a row.
        objects: fewest and most in a picture.
        digits: fewest and most of arithmetic.
        style: of memory, see :data:`~llama4_train.worlds.names.STYLES`.
        system: message that conversations begin with; empty for none.

    Raises:
        DataError: a setting is wrong.
    """

    seed: int = 0
    split: str = "train"
    topics: tuple[str, ...] = TOPICS
    lengths: tuple[int, int] = (2, 4)
    follow_ups: tuple[int, int] = (1, 2)
    objects: tuple[int, int] = (1, 4)
    digits: tuple[int, int] = (1, 2)
    style: str = "sentence"
    system: str = SYSTEM

    name: ClassVar[str] = "chats"

    def __post_init__(self) -> None:
        check_stream(self.seed, self.split)
        topics = tuple(self.topics)
        for topic in topics or ("",):
            check_name("a topic of chats", topic, TOPICS)
        check_name("style of chats", self.style, tuple(STYLES))
        # Frozen for everybody else; lists out of a recipe become tuples, so that worlds hash.
        for name, value in (
            ("topics", topics),
            ("lengths", check_range("lengths of chats", self.lengths, 1, 64)),
            ("follow_ups", check_range("follow_ups of chats", self.follow_ups, 1, 16)),
            ("objects", check_range("objects of chats", self.objects, 1, 9)),
            ("digits", check_range("digits of chats", self.digits, 1, 9)),
        ):
            object.__setattr__(self, name, value)

    def sample(self, index: int) -> Sample:
        """See :class:`~llama4_train.worlds.sample.World`."""
        numbers = stream(self.name, self.seed, self.split, index)
        topics = [numbers.pick(self.topics) for _ in range(numbers.between(*self.lengths))]
        tools = numbers.some(TOOLS, OFFERED) if "tools" in topics else []
        turns: list[Turn] = []
        for topic in topics:
            if topic == "tools":
                turns += Tools(self.seed, self.split).turns(numbers, tools)
            elif topic != "memory":
                turns += self._turns(topic, numbers)
        if "memory" in topics:
            told, asked = _memory(numbers, STYLES[self.style])
            turns.insert(_front(numbers, turns), told)
            turns.append(asked)
        schemas: tuple[Mapping[str, Any], ...] = tuple(tool.schema for tool in tools)
        return build(self, turns, "chat", system=self.system, tools=schemas, history=True)

    def _turns(self, topic: str, numbers: Stream) -> list[Turn]:
        asked = numbers.between(*self.follow_ups)
        if topic == "scenes":
            scenes = Scenes(self.seed, self.split, objects=self.objects, questions=asked)
            return scenes.turns(numbers)
        if topic == "arithmetic":
            arithmetic = Arithmetic(self.seed, self.split, digits=self.digits)
            return [arithmetic.turn(numbers) for _ in range(asked)]
        sentences = Sentences(self.seed, self.split)
        return [sentences.turn(numbers) for _ in range(asked)]


def _memory(numbers: Stream, style: Style) -> tuple[Turn, Turn]:
    pair = {"name": numbers.pick(NOUNS), "value": values(numbers, 1, 4)[0]}
    agreed = Turn(
        "agreement", style.tell.format(**pair), AGREED, Exact(AGREED), (AGREED,), Rates(1.0, 1.0)
    )
    answer = style.answer.format(**pair)
    rates = Rates(10.0**-4, 10.0**-4)  # four digits, and no other key to mistake it for
    return agreed, Turn("memory", style.ask.format(**pair), answer, Exact(answer), exact=rates)


def _front(numbers: Stream, turns: list[Turn]) -> int:
    """Where something may be said in between: not between a call and its result."""
    places = [at for at in range(len(turns) + 1) if at == len(turns) or not turns[at].follows]
    return numbers.pick(places)
