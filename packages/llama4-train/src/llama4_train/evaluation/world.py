"""How many questions of a synthetic world a model answers, by kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from llama4_train.errors import EvaluationError, RecipeError
from llama4_train.evaluation.replies import Reply, replies
from llama4_train.evaluation.results import Figure
from llama4_train.evaluation.statistics import t_interval, wilson
from llama4_train.evaluation.tasks import Context
from llama4_train.worlds import Question, Rates, rates, world


@dataclass(frozen=True)
class WorldTask:
    """Greedy answers to the questions of a world.

    For each kind of question: ``accuracy``, the share of right replies, with Wilson's interval; and
    where a reply can be partly right (boxes: intersection over union) ``score``, its mean, with
    Student's. Beside each, chance and majority: what players reach who do not look. A reply that
    does not end within ``max_tokens`` is wrong.

    Attributes:
        world: its name.
        settings: of the world.
        split: "held-out", or "train".
        seed: of the world.
        count: samples; a sample may ask several questions.
        first: number of the first sample.
        batch: questions at once.
        max_tokens: longest reply.
        counted: samples that unknown rates of chance and majority are counted over.
        label: in reports; the world's name if empty.
    """

    world: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    split: str = "held-out"
    seed: int = 0
    count: int = 100
    first: int = 0
    batch: int = 64
    max_tokens: int = 64
    counted: int = 2000
    label: str = ""

    def __post_init__(self) -> None:
        for name in ("count", "batch", "max_tokens", "counted"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{name} is {getattr(self, name)}; expected at least 1")
        for name in ("seed", "split"):
            if name in self.settings:
                raise RecipeError(f"settings hold {name}; say it beside settings, not in them")
        self.made()

    @property
    def called(self) -> str:
        """See :class:`~llama4_train.evaluation.tasks.Task`."""
        return self.world

    def made(self) -> Any:
        """The world.

        Raises:
            RecipeError: its settings are wrong.
        """
        from llama4_train.errors import DataError

        try:
            return world(self.world, **{"seed": self.seed, "split": self.split, **self.settings})
        except (DataError, TypeError) as error:
            raise RecipeError(f"world {self.world!r:.80}: {error}") from error

    def measure(self, model: Any, context: Context) -> tuple[Figure, ...]:
        """See :class:`~llama4_train.evaluation.tasks.Task`.

        Raises:
            EvaluationError: the world asks nothing, or the model cannot be asked.
        """
        given = self.made()
        numbers = range(self.first, self.first + self.count)
        questions = [question for index in numbers for question in given.sample(index).questions]
        if not questions:
            raise EvaluationError(
                f"the world {self.world!r} asks nothing; measure the perplexity of the source "
                "worlds instead"
            )
        said = replies(
            model,
            questions,
            batch=self.batch,
            max_tokens=self.max_tokens,
            progress=context.progress,
        )
        kinds: dict[str, list[tuple[Question, Reply]]] = {}
        for question, reply in zip(questions, said, strict=True):
            kinds.setdefault(question.kind, []).append((question, reply))
        found: list[Figure] = []
        for kind, asked in sorted(kinds.items()):
            found += figures(kind, asked, self._rates(given, kind, [one for one, _ in asked]))
        if len(kinds) > 1:
            found.append(
                accuracy("all", [pair for asked in kinds.values() for pair in asked], None)
            )
        return tuple(found)

    def _rates(self, given: Any, kind: str, asked: Sequence[Question]) -> Rates:
        known = [question.exact for question in asked if question.exact is not None]
        if len(known) == len(asked):
            # Known beforehand: a long text need not be made thousands of times to count them.
            return Rates(fmean(one.chance for one in known), fmean(one.majority for one in known))
        return rates(given, self.counted)[kind]


def figures(kind: str, asked: Sequence[tuple[Question, Reply]], known: Rates) -> list[Figure]:
    """Accuracy of one kind, and its mean score where replies can be partly right."""
    found = [accuracy(kind, asked, known)]
    scores = [reply.score(question) for question, reply in asked]
    if any(0 < score < 1 for score in scores):
        mean, low, high = t_interval(scores) if len(scores) > 1 else (scores[0], None, None)
        found.append(Figure(kind, "score", mean, len(scores), low, high))
    return found


def accuracy(name: str, asked: Sequence[tuple[Question, Reply]], known: Rates | None) -> Figure:
    """The share of right replies."""
    hits = sum(reply.right(question) for question, reply in asked)
    unfinished = sum(not reply.ended for _, reply in asked)
    return Figure(
        name,
        "accuracy",
        hits / len(asked),
        len(asked),
        *wilson(hits, len(asked)),
        chance=None if known is None else known.chance,
        majority=None if known is None else known.majority,
        facts={"unfinished": unfinished / len(asked)} if unfinished else {},
    )
