"""The world ``passkey``: a few keys in a long text that says nothing about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from llama4_train.errors import DataError
from llama4_train.worlds.forms import END, FORMS, WEIGHTINGS, Turn, build
from llama4_train.worlds.lengths import Count, added, counter, cut_to
from llama4_train.worlds.library import lines
from llama4_train.worlds.names import NOUNS, STYLES, values
from llama4_train.worlds.sample import Rates, Sample
from llama4_train.worlds.streams import Stream, check_name, check_number, check_stream, stream
from llama4_train.worlds.targets import Exact

TRIES = 96
"""Texts that are tried: nearly always the first or the second has the length."""

BEGINNINGS = 8
"""Places for a last piece that are tried before a line more makes way for a longer one."""

REACH = 160
"""Characters behind the last piece that its tokens may reach into."""

SPARE = 8
"""Tokens that what is cut has beyond the cut: some may be lost to what stands behind."""


@dataclass(frozen=True)
class Passkey:
    """Keys on lines of their own at random depths of a filler, then questions for some of them.

    The filler is a piece of the sources of Python's library, from files of the split.

    Attributes:
        seed, split: see :class:`~llama4_train.worlds.sample.World`.
        form: "pack" or "chat".
        length: tokens of the whole document in the form "pack": beginning-of-text token, text,
            questions, answers. Met exactly. A chat is longer by its headers.
        tokenizer: folder of the tokenizer that counts.
        count: a function that counts instead; without either, characters count.
        keys: in a text, each of another name and value.
        digits: of a key.
        questions: for so many of the keys, one behind the other. One is what is evaluated; more
            teach more in a text of one length.
        depth: where the key that is asked for first stands, from 0 (first) to 1 (last, right before
            the question); None for anywhere.
        style: "sentence", "statement" or "terse", see :data:`~llama4_train.worlds.names.STYLES`.
        weighting: see :data:`~llama4_train.worlds.forms.WEIGHTINGS`.

    Raises:
        DataError: a setting is wrong; when sampled: the length has no room for the keys, or this
            counting meets it with no text.
    """

    seed: int = 0
    split: str = "train"
    form: str = "pack"
    length: int = 256
    tokenizer: str = ""
    count: Count | None = None
    keys: int = 4
    digits: int = 4
    questions: int = 1
    depth: float | None = None
    style: str = "sentence"
    weighting: str = "token"

    name: ClassVar[str] = "passkey"

    def __post_init__(self) -> None:
        check_stream(self.seed, self.split)
        check_name("form of passkey", self.form, FORMS)
        check_name("weighting of passkey", self.weighting, WEIGHTINGS)
        check_name("style of passkey", self.style, tuple(STYLES))
        check_number("length of passkey", self.length, 1, 1 << 26)
        check_number("digits of passkey", self.digits, 1, 9)
        check_number("keys of passkey", self.keys, 1, min(len(NOUNS), 10**self.digits))
        check_number("questions of passkey", self.questions, 1, self.keys)
        if self.depth is not None and not 0 <= self.depth <= 1:
            raise DataError(f"depth of passkey is {self.depth!r:.80}; expected 0 to 1, or None")

    def sample(self, index: int) -> Sample:
        """See :class:`~llama4_train.worlds.sample.World`."""
        numbers = stream(self.name, self.seed, self.split, index)
        count = counter(self.count, self.tokenizer)
        names = numbers.some(NOUNS, self.keys)
        keys = values(numbers, self.keys, self.digits)
        style = STYLES[self.style]
        pairs = [{"name": name, "value": key} for name, key in zip(names, keys, strict=True)]
        facts = [style.tell.format(**pair) + "\n" for pair in pairs]
        answers = [style.answer.format(**pair) for pair in pairs]
        # Names and values are in random order already: the first are as good as any.
        asks = [style.ask.format(**pair) for pair in pairs[: self.questions]]
        tokens = self.length - 1
        tokens -= sum(count(line + END) for line in (*asks[1:], *answers[: self.questions]))
        text = self._text(numbers, count, facts, asks[0] + END, tokens)
        turns = [
            Turn(
                "passkey",
                ask if number else text + ask,
                answers[number],
                Exact(answers[number]),
                tuple(sorted(answers)),
                # Keys that were answered already are not asked for again.
                Rates(1 / (self.keys - number), 10.0**-self.digits),
                follows=number > 0,
            )
            for number, ask in enumerate(asks)
        ]
        return build(self, turns, self.form, self.weighting)

    def _text(
        self, numbers: Stream, count: Count, facts: Sequence[str], ask: str, tokens: int
    ) -> str:
        """Filler and facts that count ``tokens`` with the question behind them.

        Whole lines come first, then in front of them a last piece for the tokens that are missing.
        Not every place of the filler has one of each size (in a table of escaped bytes hardly a
        beginning counts two), so another place is drawn where one has none.
        """
        needed = sum(added(count, fact) for fact in facts) + count(ask)
        corpus = lines(self.split)
        first = numbers.below(len(corpus))
        drawn = [numbers.random() for _ in facts]
        filler: list[str] = []
        most = tokens
        # An estimate, for tokens may reach over the ends of lines; what is wrong with it is known
        # as soon as a whole text is counted.
        missing = max(0, tokens - needed)
        for attempt in range(1, TRIES + 1):
            while len(filler) < most:
                line = corpus[(first + len(filler)) % len(corpus)]
                if (used := added(count, line)) > missing:
                    break
                filler.append(line)
                missing -= used
            dry = attempt % BEGINNINGS == 0
            while filler and (missing < 0 or dry):
                missing += added(count, filler.pop())
                most = len(filler)  # what was too much once is not tried again
                dry = False
            if missing < 0:
                break
            body = self._body(filler, facts, drawn)
            place = first + len(filler) if attempt == 1 else numbers.below(len(corpus))
            start = self._start(count, corpus, place, missing, (body + ask)[:REACH])
            if start is not None:
                wrong = tokens - count(start + body + ask)
                if wrong == 0:
                    return start + body
                missing += wrong
        raise DataError(
            f"no text of exactly {self.length} tokens holds {self.keys} keys and what is asked, "
            f"which need about {needed + self.length - tokens}, with this counting; choose another "
            "length"
        )

    def _body(self, filler: Sequence[str], facts: Sequence[str], drawn: Sequence[float]) -> str:
        """The lines with the facts between them, of which the first is the one asked for."""
        places = [int(share * (len(filler) + 1)) for share in drawn]
        if self.depth is not None:
            places[0] = round(self.depth * len(filler))
        body = list(filler)
        for at, fact in sorted(zip(places, facts, strict=True), reverse=True):
            body.insert(at, fact)
        return "".join(body)

    def _start(
        self, count: Count, corpus: Sequence[str], place: int, tokens: int, behind: str
    ) -> str | None:
        """The beginning of a line, or of a few in one, that adds ``tokens``; None if none does."""
        if tokens == 0:
            return ""
        text = ""
        for at in range(place, place + tokens + SPARE):
            if count(text + "\n") >= tokens + SPARE:
                break
            text += corpus[at % len(corpus)].strip() + " "
        return cut_to(count, text, tokens, behind)
