"""The world ``recall``: names with values, asked for again and again, without any filler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llama4_core.chat.messages import Text
from llama4_train.errors import DataError
from llama4_train.protocols import Piece, Record
from llama4_train.worlds.forms import WEIGHTINGS, learnt, said
from llama4_train.worlds.lengths import Count, counted, counter
from llama4_train.worlds.names import NAMES, NOUNS, STYLES, values
from llama4_train.worlds.sample import Question, Rates, Sample
from llama4_train.worlds.streams import check_name, check_number, check_stream, stream
from llama4_train.worlds.targets import Exact

PLACE = 8
"""Tokens of a text for each name that it may use, beyond the short names: never more than said."""

LINES = 3
"""One line of so many says something new."""


@dataclass(frozen=True)
class Recall:
    """New names with their values, and twice as many questions for those said before.

    Nearly every line is a question or is asked for later: what a model needs to find keys in a long
    text is learnt here in a short one. The last line is a question, the one that is evaluated.

    Attributes:
        seed, split: see :class:`~llama4_train.worlds.sample.World`.
        length: most tokens of the document, the beginning-of-text token included. Lines are added
            while they fit; names at the end that nobody asks for any more are left out.
        tokenizer, count: see :class:`~llama4_train.worlds.passkey.Passkey`.
        digits: of a value.
        style: "sentence", "statement" or "terse", see :data:`~llama4_train.worlds.names.STYLES`.
        weighting: see :data:`~llama4_train.worlds.forms.WEIGHTINGS`.

    Raises:
        DataError: a setting is wrong; when sampled: not even one name and one question fit.
    """

    seed: int = 0
    split: str = "train"
    length: int = 128
    tokenizer: str = ""
    count: Count | None = None
    digits: int = 4
    style: str = "terse"
    weighting: str = "token"

    name: ClassVar[str] = "recall"

    def __post_init__(self) -> None:
        check_stream(self.seed, self.split)
        check_name("weighting of recall", self.weighting, WEIGHTINGS)
        check_name("style of recall", self.style, tuple(STYLES))
        check_number("length of recall", self.length, 1, 1 << 26)
        check_number("digits of recall", self.digits, 1, 9)

    def sample(self, index: int) -> Sample:
        """See :class:`~llama4_train.worlds.sample.World`."""
        numbers = stream(self.name, self.seed, self.split, index)
        count = counter(self.count, self.tokenizer)
        pool = NAMES[: max(len(NOUNS), self.length // PLACE)]
        most = min(len(pool), 10**self.digits)
        names = numbers.some(pool, most)
        keys = values(numbers, most, self.digits)
        style = STYLES[self.style]
        answers = [
            style.answer.format(name=name, value=key) for name, key in zip(names, keys, strict=True)
        ]
        pieces: list[Piece] = []
        left = self.length - 1
        known = 0
        while True:
            # The second line is always a question: however short the text, there is one.
            new = known == 0 or (len(pieces) > 1 and known < most and numbers.below(LINES) == 0)
            at = numbers.below(known) if known else 0
            asked = style.ask.format(name=names[at])
            line = [said(asked), learnt(answers[at], self.weighting)]
            if new:
                fact = said(style.tell.format(name=names[known], value=keys[known]))
                line = [fact] if not known or _tokens(count, [fact]) <= left else line
            used = _tokens(count, line)
            if used > left:
                break
            left -= used
            known += len(line) == 1
            pieces += line
        while pieces and pieces[-1].weight == 0:  # names that nobody asks for any more
            pieces.pop()
        if not pieces:
            raise DataError(
                f"a recall of {self.length} tokens has no room for a name and its question; set a "
                "larger length"
            )
        told = sum(1 for piece in pieces if piece.weight == 0) - sum(
            1 for piece in pieces if piece.weight > 0
        )
        answer = _text(pieces[-1]).rstrip()
        question = Question(
            "recall",
            answer,
            Exact(answer),
            tuple(piece.part for piece in pieces[:-1]),
            choices=tuple(sorted(answers[:told])),
            exact=Rates(1 / told, 10.0**-self.digits),
            world=self,
        )
        return Sample(Record(pieces=tuple(pieces), source=self.name), (question,))


def _tokens(count: Count, pieces: list[Piece]) -> int:
    return sum(counted(count, _text(piece)) for piece in pieces)


def _text(piece: Piece) -> str:
    return piece.part.text if isinstance(piece.part, Text) else ""
