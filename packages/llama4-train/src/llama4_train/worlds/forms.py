"""Forms: how questions and answers become a document.

"pack": each question on a line of its own and its answer on the next, without headers, several of
them behind one picture; the answers carry the loss. "chat": a conversation, of which the trainer
knows that the loss is on what the assistant says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from llama4_core.chat.messages import Message, Part, Text, ToolCall
from llama4_train.protocols import Piece, Record
from llama4_train.worlds.sample import Question, Rates, Sample, World
from llama4_train.worlds.targets import Target

FORMS = ("pack", "chat")

WEIGHTINGS = ("token", "root", "answer")
"""What an answer of n tokens weighs in all: n, the root of n, or 1.

The worlds know no tokenizer: n is taken as one for each digit and sign and for every six letters.
"""

END = "\n"

_UNITS = re.compile(r"\d|[^\w\s]|[^\W\d]{1,6}")


@dataclass(frozen=True, slots=True)
class Turn:
    """One question and its answer, before any form.

    Attributes:
        kind: see :class:`~llama4_train.worlds.sample.Question`.
        ask: what is said to the model; nothing where the picture alone is the question.
        answer: of the model.
        target: what makes a reply right.
        choices: all possible answers; empty where they are open.
        exact: rates that are known beforehand.
        inputs: pictures and films that the question is about, said before it.
        follows: whether it makes sense only behind the turns before.
        role: who says ``ask``: "user", or "ipython" for the result of a tool.
        call: that the answer is, where it is one.
    """

    kind: str
    ask: str
    answer: str
    target: Target
    choices: Sequence[str] | range = ()
    exact: Rates | None = None
    inputs: tuple[Part, ...] = ()
    follows: bool = False
    role: str = "user"
    call: ToolCall | None = None


def build(
    world: World,
    turns: Sequence[Turn],
    form: str,
    weighting: str = "token",
    *,
    opening: str = "",
    system: str = "",
    tools: tuple[Mapping[str, Any], ...] = (),
    history: bool = False,
) -> Sample:
    """A sample of some turns.

    Args:
        world: that asks.
        turns: in order. Pictures that a turn shares with the one before are shown once.
        form: "pack" or "chat".
        weighting: of the answers in a pack.
        opening: said before everything, in a pack.
        system: message that a chat begins with.
        tools: on offer, in a chat.
        history: ask each question of a chat behind all turns before; else only those that
            follow.
    """
    if form == "chat":
        return _chat(world, turns, system, tools, history)
    return _pack(world, turns, weighting, opening)


@lru_cache(maxsize=1 << 12)
def said(text: str) -> Piece:
    """A line that is only read. Pieces are values: equal ones are made once."""
    return Piece(Text(text + END), 0.0)


@lru_cache(maxsize=1 << 12)
def learnt(text: str, weighting: str) -> Piece:
    """A line that carries the loss; what it weighs in all is told by :data:`WEIGHTINGS`."""
    units = len(_UNITS.findall(text)) + 1  # and the end of the line
    weights = {"token": 1.0, "root": 1 / math.sqrt(units), "answer": 1 / units}
    return Piece(Text(text + END), weights[weighting])


def _pack(world: World, turns: Sequence[Turn], weighting: str, opening: str) -> Sample:
    first = (said(opening),) if opening else ()
    start = tuple(piece.part for piece in first)
    pieces = list(first)
    shown: tuple[Part, ...] = ()
    questions = []
    for turn in turns:
        inputs = turn.inputs
        ask = (said(turn.ask),) if turn.ask else ()
        if inputs is not shown:
            pieces += [Piece(part, 0.0) for part in inputs]
            shown = inputs
        pieces += ask
        if turn.follows:
            before = tuple(piece.part for piece in pieces)
        else:
            before = start + inputs + tuple(piece.part for piece in ask)
        pieces.append(learnt(turn.answer, weighting))
        questions.append(_question(world, turn, before, (), (), END))
    return Sample(Record(pieces=tuple(pieces), source=world.name), tuple(questions))


def _chat(
    world: World,
    turns: Sequence[Turn],
    system: str,
    tools: tuple[Mapping[str, Any], ...],
    history: bool,
) -> Sample:
    first = (Message("system", system),) if system else ()
    messages = list(first)
    shown: tuple[Part, ...] = ()
    questions = []
    for turn in turns:
        inputs = () if turn.inputs is shown else turn.inputs
        asked = Message(turn.role, (*inputs, Text(turn.ask)))
        if history or turn.follows:
            before = (*messages, asked)
        else:
            before = (*first, Message(turn.role, (*turn.inputs, Text(turn.ask))))
        shown = turn.inputs
        messages.append(asked)
        if turn.call is None:
            messages.append(Message("assistant", turn.answer))
        else:
            messages.append(Message("assistant", (), (turn.call,)))
        questions.append(_question(world, turn, (), before, tools, ""))
    record = Record(messages=tuple(messages), tools=tools, source=world.name)
    return Sample(record, tuple(questions))


def _question(
    world: World,
    turn: Turn,
    prompt: tuple[Part, ...],
    messages: tuple[Message, ...],
    tools: tuple[Mapping[str, Any], ...],
    stop: str,
) -> Question:
    return Question(
        turn.kind,
        turn.answer,
        turn.target,
        prompt,
        messages,
        tools,
        stop,
        turn.choices,
        turn.exact,
        world,
    )
