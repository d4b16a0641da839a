"""Tool parsers: the calls in what a model wrote.

Llama 4 is documented with the pythonic form; Hugging Face's template asks it for JSON; so models
write both. ``auto`` reads all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from llama4_core.chat.heads import FORMS
from llama4_core.chat.messages import ToolCall
from llama4_core.chat.scanner import Event, Scanner
from llama4_core.chat.writing import write_json, write_pythonic
from llama4_core.errors import ChatError

_log = logging.getLogger(__name__)

LIMIT = 20_000
"""Symbols that are read within the calls of one message: a bound on time and memory.

A list of numbers takes three for each: 6,000 of them fit. Strings of any length take one.
"""


class ToolParser(Protocol):
    """Reads the calls of one message, in chunks; built as ``target(known=None)``.

    The events of all chunks, neighbouring texts joined, are the same however the message was cut.
    What is no call comes back as text, character for character.
    """

    def feed(self, chunk: str) -> list[Event]:
        """Takes more text; returns the texts and calls that are certain now, in order."""

    def finish(self) -> list[Event]:
        """Returns what was held back, now that no more text comes."""

    def write(self, calls: Iterable[ToolCall]) -> str:
        """Calls as text that this parser reads back to the same calls."""


class CallParser:
    """Reads calls in some of three forms.

    * "pythonic": ``[f(a=1), g(b="x", c=[1, 2], d={"k": None})]``, arguments by keyword;
    * "json": ``{"name": "f", "parameters": {...}}``, "arguments" likewise, alone, in a list, or
      several separated by whitespace, ``;`` or ``,``;
    * "function": ``<function=f>{...}</function>``.

    ``<|python_start|>`` right before calls and ``<|python_end|>`` right behind them are dropped
    with the whitespace between. Values are those of JSON, in the spelling of Python or JSON.
    Nothing is evaluated and time is linear: at the first character that does not fit, what was
    read of a call is text, and the search goes on from there. Lists and dictionaries nested more
    than 64 deep are text, numbers of more than 399 digits too.

    Args:
        forms: which forms are calls.
        known: names of the tools on offer; a list with any other name is text. None for any name.
        limit: most symbols (brackets, names, values) read within the calls of the message; what
            follows is text, with a warning in the log.

    Raises:
        ChatError: an unknown form.
    """

    def __init__(
        self,
        forms: Sequence[str] = FORMS,
        known: Collection[str] | None = None,
        limit: int = LIMIT,
    ) -> None:
        for form in forms:
            if form not in FORMS:
                raise ChatError(f"the form is {form!r:.80}; expected one of {', '.join(FORMS)}")
        self._pythonic = "pythonic" in forms
        self._scanner = Scanner(tuple(forms), None if known is None else frozenset(known), limit)
        self._run = self._scanner.run()
        self._finished = False
        next(self._run)

    def feed(self, chunk: str) -> list[Event]:
        """Takes more text; returns the texts and calls that are certain now, in order.

        Raises:
            ChatError: the message was finished before.
        """
        if self._finished:
            raise ChatError("this parser has finished its message; make a new one for the next")
        if not chunk:
            return []
        self._scanner.source.feed(chunk)
        return self._advance()

    def finish(self) -> list[Event]:
        """Returns what was held back, now that no more text comes."""
        if self._finished:
            return []
        self._finished = True
        self._scanner.source.end()
        events = self._advance()
        if self._scanner.exhausted:
            _log.warning(
                "a message holds more symbols within tool calls than the limit of its parser; "
                "calls behind the limit were left as text"
            )
        return events

    def write(self, calls: Iterable[ToolCall]) -> str:
        """Calls as text: pythonic where this parser reads that, else JSON."""
        return write_pythonic(calls) if self._pythonic else write_json(calls)

    def _advance(self) -> list[Event]:
        next(self._run, None)
        events, self._scanner.events = self._scanner.events, []
        return joined(events)


def joined(events: Iterable[Event]) -> list[Event]:
    """The events with neighbouring texts joined and empty ones dropped."""
    found: list[Event] = []
    texts: list[str] = []
    for event in events:
        if isinstance(event, str):
            texts.append(event)
            continue
        if text := "".join(texts):
            found.append(text)
        texts.clear()
        found.append(event)
    if text := "".join(texts):
        found.append(text)
    return found


def read_calls(parser: ToolParser, chunks: Iterable[str]) -> list[Event]:
    """All events of a message, neighbouring texts joined."""
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    return joined([*events, *parser.finish()])
