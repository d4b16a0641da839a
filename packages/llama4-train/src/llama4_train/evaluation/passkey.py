"""A key in a long text, at lengths that the model was never trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llama4_core.specs.model import ModelSpec
from llama4_train.errors import EvaluationError, RecipeError
from llama4_train.evaluation.replies import replies
from llama4_train.evaluation.results import Figure
from llama4_train.evaluation.tasks import Context
from llama4_train.evaluation.world import accuracy
from llama4_train.respec import as_spec, respec
from llama4_train.worlds import Question, Rates
from llama4_train.worlds.forms import FORMS
from llama4_train.worlds.names import STYLES
from llama4_train.worlds.passkey import Passkey

AS_IS, OFF = "model", "off"

HEADERS = 32
"""Tokens that a chat may be longer by than its text; the format of Llama 4 needs about ten."""


@dataclass(frozen=True)
class PasskeyTask:
    """Accuracy of passkeys over the length of the text.

    Every attention temperature gets the same texts. Neither the temperature nor the longest context
    is a weight: the model runs by another description for as long as it is asked.

    Attributes:
        length: of the texts of training, in tokens; 0 for that of the recipe. Lengths are multiples
            of it.
        times: the multiples.
        temperatures: "model" for the model's own, "off", or "SCALE/FLOOR", such as "0.1/256": see
            :class:`~llama4_core.specs.model.TemperatureSpec`.
        count: texts at each length.
        keys, digits, style, form: see :class:`~llama4_train.worlds.passkey.Passkey`.
        split, seed: of the texts.
        tokens: of all prompts of a batch together, at most; a longer text is a batch alone.
        label: in reports; "passkey" if empty.
    """

    length: int = 0
    times: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    temperatures: tuple[str, ...] = (AS_IS,)
    count: int = 50
    keys: int = 4
    digits: int = 4
    style: str = "sentence"
    form: str = "pack"
    split: str = "held-out"
    seed: int = 0
    tokens: int = 16_384
    label: str = ""

    def __post_init__(self) -> None:
        if self.length < 0 or self.count < 1 or self.tokens < 1:
            raise RecipeError(
                f"length is {self.length}, count {self.count} and tokens {self.tokens}; expected "
                "numbers of at least 1 (length 0 for that of the recipe)"
            )
        for name, values in (("times", self.times), ("temperatures", self.temperatures)):
            if not values or len(set(values)) < len(values):
                raise RecipeError(f"{name} are {list(values)}; expected some, each once")
        if min(self.times) < 1:
            raise RecipeError(f"times are {list(self.times)}; expected whole numbers from 1 on")
        if self.style not in STYLES:
            raise RecipeError(f"style is {self.style!r}; expected one of {', '.join(STYLES)}")
        if self.form not in FORMS:
            raise RecipeError(f"form is {self.form!r}; expected one of {', '.join(FORMS)}")
        for text in self.temperatures:
            _temperature(text)

    @property
    def called(self) -> str:
        """See :class:`~llama4_train.evaluation.tasks.Task`."""
        return "passkey"

    def measure(self, model: Any, context: Context) -> tuple[Figure, ...]:
        """See :class:`~llama4_train.evaluation.tasks.Task`.

        Raises:
            EvaluationError: nobody knows the length of training, or the model has no tokenizer.
        """
        length = self.length or context.length
        if not length:
            raise EvaluationError(
                "the passkey task does not know how long the texts of training were; say it: "
                "passkey:length=256"
            )
        count = _count(model)
        found: list[Figure] = []
        total = self.count * len(self.times) * len(self.temperatures)
        for times in self.times:
            tokens = length * times
            texts = Passkey(
                self.seed,
                self.split,
                self.form,
                length=tokens,
                count=count,
                keys=self.keys,
                digits=self.digits,
                style=self.style,
            )
            questions = [texts.sample(index).question for index in range(self.count)]
            for text in self.temperatures:
                done = len(found) * self.count
                room = HEADERS + _longest(questions) + 2
                with as_spec(model, self._spec(model.spec, text, tokens + room)):
                    said = replies(
                        model,
                        questions,
                        batch=max(1, self.tokens // tokens),
                        # The answer, at worst one token for each byte, and the end of its line.
                        max_tokens=_longest(questions) + 2,
                        progress=lambda now, _, done=done: context.progress(done + now, total),  # type: ignore[misc]
                    )
                asked = list(zip(questions, said, strict=True))
                name = f"{tokens}" if text == AS_IS else f"{tokens}@{text.replace('/', '-')}"
                known = Rates(1 / self.keys, 10.0**-self.digits)
                one = accuracy(name, asked, known)
                facts: dict[str, float | str] = {"length": tokens, "times": times}
                facts |= {"temperature": text, **one.facts}
                found.append(replace(one, facts=facts))
        return tuple(found)

    def _spec(self, spec: ModelSpec, text: str, tokens: int) -> ModelSpec:
        scale, floor = _temperature(text)
        # The longest context is a claim, not a weight.
        longest = max(spec.max_positions, tokens)
        return respec(spec, temperature=scale, floor=floor, max_positions=longest)


def _longest(questions: Sequence[Question]) -> int:
    """Bytes of the longest answer."""
    return max(len(question.answer.encode()) for question in questions)


def _temperature(text: str) -> tuple[float | None, float | None]:
    """Scale and floor that a setting means.

    Raises:
        RecipeError: it means none.
    """
    if text == AS_IS:
        return None, None
    if text == OFF:
        return 0.0, None
    scale, _, floor = text.partition("/")
    try:
        numbers = float(scale), float(floor)
    except ValueError as error:
        raise RecipeError(
            f"a temperature is {text!r:.80}; expected 'model', 'off' or 'SCALE/FLOOR', such as "
            "'0.1/256'"
        ) from error
    if not math.isfinite(numbers[0]) or not 0 < numbers[1] < math.inf:
        raise RecipeError(
            f"a temperature is {text!r:.80}; expected a finite scale and a floor above 0"
        )
    return numbers


def _count(model: Any) -> Callable[[str], int]:
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise EvaluationError(
            f"{model.spec.name} has no tokenizer, so nobody can ask it; load a folder with a "
            "tokenizer.json"
        )
    return lambda text: len(tokenizer.encode(text, bos=False))
