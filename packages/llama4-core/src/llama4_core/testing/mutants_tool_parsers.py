"""Bugs of tool parsers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from llama4_core.chat import scanner
from llama4_core.chat.heads import heads
from llama4_core.chat.messages import ToolCall
from llama4_core.chat.source import Source
from llama4_core.chat.tools import CallParser
from llama4_core.testing.check import Subject
from llama4_core.testing.mutants import Mutant, patched


class Impatient:
    """Reads every chunk as if it were a whole message."""

    def __init__(self, known: Any = None) -> None:
        self.known = known

    def feed(self, chunk: str) -> list[Any]:
        """Takes text."""
        parser = CallParser(known=self.known)
        return [*parser.feed(chunk), *parser.finish()]

    def finish(self) -> list[Any]:
        """Has nothing left."""
        return []

    def write(self, calls: Iterable[ToolCall]) -> str:
        """Calls as text."""
        return CallParser().write(calls)


class Changed(CallParser):
    """A parser whose events are changed."""

    def __init__(self, change: Callable[[Any], Any], known: Any = None) -> None:
        super().__init__(known=known)
        self._change = change

    def feed(self, chunk: str) -> list[Any]:
        """Takes text."""
        return [self._change(event) for event in super().feed(chunk)]

    def finish(self) -> list[Any]:
        """What is left."""
        return [self._change(event) for event in super().finish()]


class Deep(CallParser):
    """A parser that goes one call deeper for each bracket."""

    def feed(self, chunk: str) -> list[Any]:
        """Takes text."""

        def descend(depth: int) -> int:
            return depth and descend(depth - 1)

        descend(min(chunk.count("["), 20_000))
        return super().feed(chunk)


def _mutant(
    bug: str, check: str, build: Callable[..., Any] = CallParser, planted: Any = None
) -> Mutant:
    subject = Subject("tool_parsers", "auto", build, distribution="planted")
    return Mutant(bug, check, subject, **({} if planted is None else {"planted": planted}))


def _changed(change: Callable[[ToolCall], ToolCall]) -> Callable[..., Any]:
    def build(known: Any = None) -> Any:
        return Changed(lambda e: change(e) if isinstance(e, ToolCall) else e, known)

    return build


def _texts(change: Callable[[str], str]) -> Callable[..., Any]:
    def build(known: Any = None) -> Any:
        return Changed(lambda e: change(e) if isinstance(e, str) else e, known)

    return build


def _floats(value: Any) -> Any:
    if type(value) is int and abs(value) < 2**53:
        return float(value)
    if isinstance(value, dict):
        return {key: _floats(item) for key, item in value.items()}
    return [_floats(item) for item in value] if isinstance(value, list) else value


def _only_first(call: ToolCall) -> ToolCall:
    return ToolCall(call.name, dict(list(call.arguments.items())[:1]))


def _raw(self: Any, raw: str, delimiter: str) -> str:
    return raw


def _no_cut(forms: Any) -> Any:
    found = heads(forms)
    copy = object.__new__(type(found))
    copy.__dict__.update(found.__dict__, cut_head=re.compile(r"(?!)"))
    return copy


def _rest(self: Source) -> str:
    return self.text[self._marked : self.at]


MUTANTS: tuple[Mutant, ...] = (
    _mutant("every chunk for itself", "any-chunking", Impatient),
    _mutant("a beginning cut in two", "any-chunking", planted=patched(scanner, "heads", _no_cut)),
    _mutant("text of earlier chunks lost", "any-chunking", planted=patched(Source, "raw", _rest)),
    _mutant(
        "whole numbers become floats",
        "read-undoes-write",
        _changed(lambda call: ToolCall(call.name, _floats(call.arguments))),
    ),
    _mutant("only the first argument", "read-undoes-write", _changed(_only_first)),
    _mutant(
        "escapes stay",
        "read-undoes-write",
        planted=patched(scanner.Scanner, "_unescaped", _raw),
    ),
    _mutant("text stripped", "text-stays-text", _texts(str.strip)),
    _mutant("markers dropped", "text-stays-text", _texts(lambda t: re.sub(r"<\|\w+\|>", "", t))),
    _mutant("any name", "unknown-names-are-text", lambda known=None: CallParser()),
    _mutant(
        "first names only",
        "unknown-names-are-text",
        lambda known=None: CallParser(known=list(known)[:0] if known else None),
    ),
    _mutant("a frame per bracket", "endless-text-is-survived", Deep),
    _mutant("text cut", "endless-text-is-survived", _texts(lambda text: text[:8192])),
)
