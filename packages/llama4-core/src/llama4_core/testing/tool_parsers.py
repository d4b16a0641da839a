"""Checks of the socket tool_parsers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from llama4_core.chat.messages import ToolCall
from llama4_core.chat.tools import joined
from llama4_core.testing.chat_strategies import CALLS, HOSTILE, TEXT, WORDS, cut
from llama4_core.testing.check import Check, Subject, check

_BORDERS = st.lists(st.floats(0, 1), max_size=12)


def read(parser: Any, chunks: list[str]) -> list[Any]:
    """The events of a message, as the contract counts them: neighbouring texts joined."""
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    return joined([*events, *parser.finish()])


@dataclass(frozen=True)
class Message:
    """A message around calls.

    Attributes:
        before, after: text.
        calls: in between.
        borders: where it is cut, as parts of its length.
    """

    before: str
    calls: list[ToolCall]
    after: str
    borders: list[float]

    def text(self, parser: Any) -> str:
        """The message as the model of this parser writes it."""
        written = parser.write(self.calls) if self.calls else ""
        return f"{self.before}{written}{self.after}"


def _messages(text: st.SearchStrategy[str]) -> st.SearchStrategy[Message]:
    return st.builds(Message, text, st.lists(CALLS, max_size=3), text, _BORDERS)


@check(
    properties=(38,),
    why="servers drop calls that arrive in one piece, or in other pieces than usual",
    cases=lambda subject: _messages(TEXT),
)
def any_chunking(subject: Subject, case: Message) -> None:
    """The events are the same however the message is cut, also one character at a time."""
    text = case.text(subject.build())
    whole = read(subject.build(), [text])
    for chunks in (cut(text, case.borders), list(text), ["", text, ""]):
        got = read(subject.build(), chunks)
        if got != whole:
            raise AssertionError(f"{text!r} in chunks {chunks}: got {got}, expected {whole}")


@check(
    properties=(38,),
    why="a tool called with other arguments than the model wrote does something else",
    cases=lambda subject: _messages(WORDS),
)
def read_undoes_write(subject: Subject, case: Message) -> None:
    """Calls that the parser writes, it reads back: names, values and their types, and the text."""
    text = case.text(subject.build())
    events = read(subject.build(), cut(text, case.borders))
    got = [event for event in events if not isinstance(event, str)]
    if got != case.calls or _types(got) != _types(case.calls):
        raise AssertionError(f"{text!r}: got {got}, expected {case.calls}")
    rest = "".join(event for event in events if isinstance(event, str))
    # A parser may drop whitespace beside calls.
    if "".join(rest.split()) != "".join((case.before + case.after).split()):
        raise AssertionError(f"{text!r}: the text became {rest!r}")


def _types(value: Any) -> Any:
    """1, 1.0 and True are equal, but not the same argument."""
    if isinstance(value, ToolCall):
        return _types(value.arguments)
    if isinstance(value, dict):
        return {key: _types(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_types(item) for item in value]
    return (type(value).__name__, repr(value) if isinstance(value, float) else "")


@check(
    properties=(38,),
    why="a user reads the text: a bracket too few and code or mathematics is wrong",
    cases=lambda subject: st.tuples(TEXT, _BORDERS),
)
def text_stays_text(subject: Subject, case: tuple[str, list[float]]) -> None:
    """A message without a call comes back character for character."""
    text, borders = case
    # No call has this name, whatever the text spells.
    got = read(subject.build(known=["-.-.-"]), cut(text, borders))
    if got != ([text] if text else []):
        raise AssertionError(f"{text!r}: got {got}")


@check(
    properties=(38,),
    why="a name that nobody offers is a guess of the model; calling it fails far away",
    cases=lambda subject: _messages(WORDS).filter(lambda case: bool(case.calls)),
)
def unknown_names_are_text(subject: Subject, case: Message) -> None:
    """Calls of tools that are not on offer stay text; those of tools on offer are calls."""
    text = case.text(subject.build())
    got = read(subject.build(known=["-.-.-"]), [text])
    if got != [text]:
        raise AssertionError(f"{text!r}: got {got}, expected it as text")
    events = read(subject.build(known=[call.name for call in case.calls]), [text])
    if [event for event in events if not isinstance(event, str)] != case.calls:
        raise AssertionError(f"{text!r} with its names known: got {events}")


@check(
    properties=(38,),
    why="a model that runs into a loop, or a user who asks for it, must not stop the server",
    cases=lambda subject: st.tuples(st.sampled_from(HOSTILE), st.sampled_from(HOSTILE)),
    examples=60,
)
def endless_text_is_survived(subject: Subject, case: tuple[str, str]) -> None:
    """Any two pieces of calls, repeated thousands of times, raise nothing and lose no text."""
    text = "".join(case) * 4000
    events = read(subject.build(), [text])
    if not any(isinstance(event, ToolCall) for event in events) and events != [text]:
        raise AssertionError(f"{case[0] + case[1]!r} repeated: text was lost")


CHECKS: tuple[Check, ...] = (
    any_chunking,
    read_undoes_write,
    text_stays_text,
    unknown_names_are_text,
    endless_text_is_survived,
)
