"""What a world gives: a document to learn from, and the questions in it to be asked later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from llama4_core.chat.messages import Message, Part
from llama4_train.errors import DataError
from llama4_train.protocols import Record
from llama4_train.worlds.targets import Target


@dataclass(frozen=True)
class Rates:
    """How often players are right who do not look.

    Attributes:
        chance: of one who draws among the possible answers, each as likely. Where answers are open
            (a sentence, a box), of one who gives the answer of another question of the same kind.
        majority: of one who always gives the answer that is right most often.
    """

    chance: float
    majority: float


class World(Protocol):
    """Samples without end; a frozen dataclass of its settings.

    Attributes:
        name: in the registry; also the ``source`` of its records.
        seed: samples of different seeds have nothing to do with each other.
        split: "train" or "held-out".
    """

    name: ClassVar[str]

    @property
    def seed(self) -> int:
        """Samples of different seeds have nothing to do with each other."""

    @property
    def split(self) -> str:
        """Either "train" or "held-out"."""

    def __hash__(self) -> int:
        """Equal for equal settings: rates are counted once for each."""

    def sample(self, index: int) -> Sample:
        """Sample ``index``, which depends on the settings and on nothing else.

        Raises:
            DataError: ``index`` is no whole number from 0 on, or something that the world needs is
                not installed.
        """


@dataclass(frozen=True, slots=True)
class Question:
    """Something to be asked, with its one right answer.

    Attributes:
        kind: "colour", "count", ...: figures are reported by kind.
        answer: as it stands in the document, without the end of its line.
        target: what makes a reply right.
        prompt: text and pictures up to the answer, without the beginning-of-text token; empty where
            the question is part of a conversation.
        messages: the conversation up to the answer, where it is one.
        tools: on offer in it.
        stop: the reply ends there; empty where it ends with the turn.
        choices: all possible answers; empty where they are open.
        exact: rates that are known beforehand; None where they are counted.
        world: that asked.
    """

    kind: str
    answer: str
    target: Target
    prompt: tuple[Part, ...] = ()
    messages: tuple[Message, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    stop: str = "\n"
    choices: Sequence[str] | range = ()
    exact: Rates | None = None
    world: World | None = field(default=None, repr=False, compare=False)

    def accept(self, text: str) -> bool:
        """Whether the reply ``text`` is right; what follows the stop does not count."""
        return self.target.accept(self._reply(text))

    def score(self, text: str) -> float:
        """How right it is, from 0 to 1: intersection over union for boxes, else 0 or 1."""
        return self.target.score(self._reply(text))

    @property
    def chance(self) -> float:
        """See :class:`Rates`."""
        if self.exact is not None:
            return self.exact.chance
        return 1 / len(self.choices) if len(self.choices) else self._counted.chance

    @property
    def majority(self) -> float:
        """See :class:`Rates`."""
        return self.exact.majority if self.exact is not None else self._counted.majority

    @property
    def _counted(self) -> Rates:
        from llama4_train.worlds.rates import rates

        if self.world is None:
            raise DataError("this question came from no world; ask one for its rates instead")
        return rates(self.world)[self.kind]

    def _reply(self, text: str) -> str:
        return text.partition(self.stop)[0] if self.stop else text


@dataclass(frozen=True, slots=True)
class Sample:
    """One document and its questions.

    The attributes of the first question are also the sample's own: ``sample.prompt``,
    ``sample.answer``, ``sample.accept(text)`` and so on.

    Attributes:
        record: to learn from.
        questions: in order; none where there is only text.
    """

    record: Record
    questions: tuple[Question, ...] = ()

    @property
    def question(self) -> Question:
        """The first question.

        Raises:
            DataError: there is none.
        """
        if not self.questions:
            raise DataError(
                f"a sample of {self.record.source!r} asks nothing; measure its perplexity instead"
            )
        return self.questions[0]

    @property
    def kind(self) -> str:
        """Of the first question."""
        return self.question.kind

    @property
    def prompt(self) -> tuple[Part, ...]:
        """Of the first question."""
        return self.question.prompt

    @property
    def messages(self) -> tuple[Message, ...]:
        """Of the first question."""
        return self.question.messages

    @property
    def answer(self) -> str:
        """Of the first question."""
        return self.question.answer

    @property
    def chance(self) -> float:
        """Of the first question."""
        return self.question.chance

    @property
    def majority(self) -> float:
        """Of the first question."""
        return self.question.majority

    def accept(self, text: str) -> bool:
        """Whether ``text`` answers the first question."""
        return self.question.accept(text)

    def score(self, text: str) -> float:
        """How well ``text`` answers the first question."""
        return self.question.score(text)
