"""The world ``sentences``: translation and completion between twelve languages."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar

from llama4_train.errors import DataError
from llama4_train.worlds.forms import FORMS, WEIGHTINGS, Turn, build
from llama4_train.worlds.grammar import Language, Meaning, meanings, parts, sentence
from llama4_train.worlds.languages import LANGUAGES
from llama4_train.worlds.sample import Sample
from llama4_train.worlds.streams import (
    Stream,
    check_name,
    check_number,
    check_stream,
    in_split,
    stream,
)
from llama4_train.worlds.targets import Exact

KINDS = ("translation", "completion")

_BY_CODE = {language.code: language for language in LANGUAGES}


@dataclass(frozen=True)
class Sentences:
    """``Translate to French: The black cat sleeps.`` and its one answer.

    ``Complete: The black cat sleeps. = Le chat noir ...`` asks for the rest of the translation.

    Attributes:
        seed, split: see :class:`~llama4_train.worlds.sample.World`.
        form: "pack" or "chat".
        questions: in a document.
        kinds: of questions, of "translation" and "completion".
        languages: codes of those in use, at least two.
        pivot: code of a language that every question has on one side, or empty for any two.
        held_out: one meaning of so many is never said in training in any language, and the held-out
            split says these alone; 0 for none.
        weighting: see :data:`~llama4_train.worlds.forms.WEIGHTINGS`.

    Raises:
        DataError: a setting is wrong.
    """

    seed: int = 0
    split: str = "train"
    form: str = "pack"
    questions: int = 4
    kinds: tuple[str, ...] = KINDS
    languages: tuple[str, ...] = tuple(_BY_CODE)
    pivot: str = ""
    held_out: int = 8
    weighting: str = "token"
    _meanings: tuple[Meaning, ...] = field(init=False, repr=False, compare=False, default=())

    name: ClassVar[str] = "sentences"

    def __post_init__(self) -> None:
        check_stream(self.seed, self.split)
        check_name("form of sentences", self.form, FORMS)
        check_name("weighting of sentences", self.weighting, WEIGHTINGS)
        check_number("questions of sentences", self.questions, 1, 1 << 12)
        kinds, languages = tuple(self.kinds), tuple(self.languages)
        for kind in kinds or ("",):
            check_name("a kind of sentences", kind, KINDS)
        for code in languages:
            check_name("a language of sentences", code, tuple(_BY_CODE))
        if len(set(languages)) < 2 or len(set(languages)) < len(languages):
            raise DataError(f"languages are {languages}; expected at least two different ones")
        if self.pivot:
            check_name("pivot of sentences", self.pivot, languages)
        if self.held_out != 0:
            check_number("held_out of sentences", self.held_out, 2, 32)
        # Frozen for everybody else; lists out of a recipe become tuples, so that worlds hash.
        object.__setattr__(self, "kinds", kinds)
        object.__setattr__(self, "languages", languages)
        object.__setattr__(self, "_meanings", _said(self.held_out, self.split))

    def sample(self, index: int) -> Sample:
        """See :class:`~llama4_train.worlds.sample.World`."""
        numbers = stream(self.name, self.seed, self.split, index)
        turns = [self.turn(numbers) for _ in range(self.questions)]
        return build(self, turns, self.form, self.weighting)

    def turn(self, numbers: Stream) -> Turn:
        """One question."""
        kind = numbers.pick(self.kinds)
        one, other = self._pair(numbers)
        meaning = numbers.pick(self._meanings)
        given = sentence(one, meaning)
        if kind == "translation":
            answer = sentence(other, meaning)
            ask = f"Translate to {other.name}: {given}"
            return Turn(kind, ask, answer, Exact(answer))
        pieces = parts(other, meaning)
        at = numbers.between(1, len(pieces) - 1)
        beginning, answer = "".join(pieces[:at]), "".join(pieces[at:]).strip()
        return Turn(kind, f"Complete: {given} = {beginning} ...", answer, Exact(answer))

    def _pair(self, numbers: Stream) -> tuple[Language, Language]:
        if self.pivot:
            others = [code for code in self.languages if code != self.pivot]
            pair = [self.pivot, numbers.pick(others)]
            pair = pair if numbers.flip() else pair[::-1]
        else:
            pair = numbers.some(self.languages, 2)
        return _BY_CODE[pair[0]], _BY_CODE[pair[1]]


@lru_cache(maxsize=64)
def _said(held_out: int, split: str) -> tuple[Meaning, ...]:
    """Meanings of a split."""
    return tuple(one for one in meanings() if in_split(one.key, held_out, split))
