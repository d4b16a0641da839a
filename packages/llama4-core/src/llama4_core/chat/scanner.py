"""The reader of tool calls: a hand-written scanner that takes text in any chunks.

It runs as one generator that pauses where the text ends. A beginning of a call is read strictly;
at the first character that does not fit, everything since the beginning is text, and the search
goes on from that character: no character is read twice, so time is linear. Nothing is evaluated.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Generator
from typing import Any

from llama4_core.chat.heads import LONGEST, PYTHON_START, heads
from llama4_core.chat.messages import MAX_DEPTH, ToolCall
from llama4_core.chat.source import Source
from llama4_core.errors import ChatError

Event = str | ToolCall
Values = Generator[None, None, Any]

# What a beginning counts towards the limit, so that many which lead nowhere reach it too.
_HEAD = 4
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*+)\Z")
# With a point or an exponent: 01 is no number, as in Python and JSON.
_FLOAT = re.compile(r"-?(?:[0-9]++(?:\.[0-9]*+|(?=[eE]))|\.[0-9]++)(?:[eE][+-]?[0-9]++)?\Z")
_DESCRIPTION = {"name", "parameters", "arguments", "type", "id"}
_CONSTANTS = {
    "None": None,
    "True": True,
    "False": False,
    "null": None,
    "true": True,
    "false": False,
}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{1,3}|.)", re.DOTALL)
_ESCAPES = dict(zip("\"'\\/abfnrtv", "\"'\\/\a\b\f\n\r\t\v", strict=True)) | {"\n": ""}


class NotACall(Exception):  # noqa: N818 - an outcome, never seen outside
    """What is being read is text after all."""


class Scanner:
    """Reads one message.

    Args:
        forms: which of :data:`~llama4_core.chat.heads.FORMS` are calls.
        known: names of tools; calls of others are text. None for any name.
        limit: most symbols (brackets, names, values) to read within calls; all that follows is
            text.

    Attributes:
        source: the text.
        events: what was found and not yet taken; texts may be neighbours.
        exhausted: whether the limit was reached.
    """

    def __init__(self, forms: tuple[str, ...], known: Collection[str] | None, limit: int) -> None:
        self.source = Source()
        self.events: list[Event] = []
        self._heads = heads(forms)
        self._known = known
        self._left = limit

    @property
    def exhausted(self) -> bool:
        """Whether the limit was reached: from there on everything is text."""
        return self._left < 0

    def run(self) -> Generator[None, None, None]:
        """Reads until the text ends, pausing for more."""
        source = self.source
        while True:
            head = yield from self._search()
            while head is not None:
                source.at = head.end()
                self._left -= _HEAD
                try:
                    calls = yield from self._calls(head.group())
                except NotACall:
                    self._text(source.raw())
                    source.mark()
                    break
                self.events += calls
                source.mark()
                head = yield from self._after()
            if source.ended and source.at == len(source.text):
                return

    def _search(self) -> Values:
        """Emits text up to the next beginning; returns it, or None at the end of all text."""
        source, patterns = self.source, self._heads
        while True:
            text, at = source.text, source.at
            found = None if self.exhausted else patterns.head.search(text, at)
            keep = len(text)
            if found is not None:
                keep = found.start()
            elif not (source.ended or self.exhausted):
                cut = patterns.cut_head.search(text, max(at, keep - LONGEST))
                keep = keep if cut is None else cut.start()
            self._text(text[at:keep])
            source.at = keep
            source.mark()
            if found is not None or source.ended:
                return found
            yield

    def _after(self) -> Values:
        """Right behind calls: drops a closing marker; returns a further beginning, or None."""
        source, patterns = self.source, self._heads
        while not self.exhausted:
            text, at = source.text, source.at
            end = patterns.end.match(text, at)
            if end is not None:
                source.at = end.end()
                source.mark()
                return None
            found = patterns.next.match(text, at)
            if found is not None:
                return found
            cut = patterns.cut_next.match(text, at) or patterns.cut_end.match(text, at)
            if source.ended or cut is None:
                return None
            yield
        return None

    def _text(self, text: str) -> None:
        if text:
            self.events.append(text)

    # --- the forms --------------------------------------------------------------------------------

    def _calls(self, head: str) -> Generator[None, None, list[ToolCall]]:
        """The calls that begin with ``head``, which has been read."""
        if head[-1] == "(":
            name = head[head.rindex("[") + 1 : -1].strip()
            return (yield from self._pythonic(name))
        if head[-1] == ">":
            name = head[head.rindex("=") + 1 : -1]
            return [(yield from self._function(name))]
        self.source.at -= 1  # the quote of the first key
        bare = head.removeprefix(PYTHON_START)
        if "[" in bare:
            # Arguments count as depth 0, wherever they are.
            first = yield from self._dictionary(0)
            values = [first, *(yield from self._items("]", -1))]
        else:
            values = [(yield from self._dictionary(0))]
        return [self._described(value) for value in values]

    def _pythonic(self, name: str) -> Generator[None, None, list[ToolCall]]:
        """``a=1), g(b=2)]`` behind ``[f(``."""
        calls = []
        while True:
            self._check(name)
            calls.append(_call(name, (yield from self._keywords())))
            if (yield from self._take(",]")) == "]":
                return calls
            yield from self._symbol()
            name = yield from self.source.word()
            yield from self._take("(")

    def _keywords(self) -> Generator[None, None, dict[str, Any]]:
        """``a=1, **{"b c": 2})`` behind the opening parenthesis."""
        found: dict[str, Any] = {}
        while (yield from self._symbol()) != ")":
            name = yield from self.source.word()
            if name == "**":
                yield from self._take("{")
                more = yield from self._dictionary(1)
            elif name.isidentifier():
                yield from self._take("=")
                more = {name: (yield from self._value(1))}
            else:
                raise NotACall
            if not found.keys().isdisjoint(more):
                raise NotACall
            found.update(more)
            if (yield from self._symbol()) == ")":
                break
            yield from self._take(",")
        self.source.at += 1
        return found

    def _function(self, name: str) -> Generator[None, None, ToolCall]:
        """``{...}</function>`` behind ``<function=f>``."""
        self._check(name)
        yield from self._take("{")
        arguments = yield from self._dictionary(1)
        yield from self._symbol()
        if not (yield from self.source.literal("</function>")):
            raise NotACall
        return _call(name, arguments)

    def _described(self, value: Any) -> ToolCall:
        """A call from an object with "name" and "parameters" or "arguments"."""
        if not isinstance(value, dict) or not value.keys() <= _DESCRIPTION:
            raise NotACall
        name = value.get("name")
        found = [value[key] for key in ("parameters", "arguments") if key in value]
        if not isinstance(name, str) or len(found) != 1 or not isinstance(found[0], dict):
            raise NotACall
        if value.get("type", "function") != "function":
            raise NotACall
        self._check(name)
        return _call(name, found[0])

    def _check(self, name: str) -> None:
        if self._known is not None and name not in self._known:
            raise NotACall

    # --- values -----------------------------------------------------------------------------------

    def _symbol(self) -> Generator[None, None, str]:
        """The next character that is no whitespace, unread."""
        self._left -= 1
        if self._left < 0:
            raise NotACall
        source = self.source
        if source.at < len(source.text):
            character = source.text[source.at]
            if character not in " \t\r\n":
                return character
        return (yield from source.symbol())

    def _take(self, expected: str) -> Generator[None, None, str]:
        """Reads one of the characters ``expected``."""
        character = yield from self._symbol()
        if not character or character not in expected:
            raise NotACall
        self.source.at += 1
        return character

    def _value(self, depth: int) -> Values:
        character = yield from self._symbol()
        if character and character in "\"'":
            return (yield from self._string())
        if character == "[":
            self.source.at += 1
            self._deeper(depth)
            return (yield from self._list(depth + 1))
        if character == "{":
            self.source.at += 1
            self._deeper(depth)
            return (yield from self._dictionary(depth + 1))
        return _plain((yield from self.source.word()))

    def _deeper(self, depth: int) -> None:
        if depth >= MAX_DEPTH:
            raise NotACall

    def _list(self, depth: int) -> Generator[None, None, list[Any]]:
        """Behind the opening bracket."""
        if (yield from self._symbol()) == "]":
            self.source.at += 1
            return []
        first = yield from self._value(depth)
        return [first, *(yield from self._items("]", depth))]

    def _items(self, closing: str, depth: int) -> Generator[None, None, list[Any]]:
        """``, 2, 3]`` behind the first item; a comma before the bracket is fine, as in Python."""
        found: list[Any] = []
        while (yield from self._take("," + closing)) == ",":
            if (yield from self._symbol()) == closing:
                self.source.at += 1
                break
            found.append((yield from self._value(depth)))
        return found

    def _dictionary(self, depth: int) -> Generator[None, None, dict[str, Any]]:
        """Behind the opening brace; of a key that comes twice, the last value counts."""
        found: dict[str, Any] = {}
        while (character := (yield from self._symbol())) != "}":
            if not character or character not in "\"'":
                raise NotACall
            key = yield from self._string()
            yield from self._take(":")
            found[key] = yield from self._value(depth)
            if (yield from self._symbol()) == "}":
                break
            yield from self._take(",")
        self.source.at += 1
        return found

    def _string(self) -> Generator[None, None, str]:
        found = yield from self.source.quoted()
        if found is None:
            raise NotACall
        raw, delimiter = found
        text = raw
        if "\\" in raw:
            text = self._unescaped(raw, delimiter)
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:  # half of a pair of surrogates
                raise NotACall from None
        return text

    def _unescaped(self, raw: str, delimiter: str) -> str:
        """Escapes of JSON and of Python; an unknown one stays as it is, as in Python."""
        if delimiter == '"':
            try:
                decoded: str = json.loads(f'"{raw}"', strict=False)
                return decoded
            except ValueError:
                pass  # escapes that JSON does not know
        self._left -= raw.count("\\")
        if self._left < 0:
            raise NotACall
        text = _ESCAPE.sub(_escaped, raw)
        if not text.isascii():
            # Two escapes may spell one character beyond the first 65,536.
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return text


def _escaped(match: re.Match[str]) -> str:
    code = match[1]
    if len(code) > 1 and code[0] in "xuU":
        number = int(code[1:], 16)
    elif code[0] in "01234567":
        number = int(code, 8)
    elif code in "xuU":
        raise NotACall  # too few digits
    else:
        return _ESCAPES.get(code, match[0])
    if number > 0x10FFFF:
        raise NotACall
    return chr(number)


def _plain(word: str) -> Any:
    """A constant or a number."""
    if word in _CONSTANTS:
        return _CONSTANTS[word]
    if _INTEGER.match(word):
        return int(word)
    if _FLOAT.match(word):
        number = float(word)
        if math.isfinite(number):
            return number
    raise NotACall


def _call(name: str, arguments: dict[str, Any]) -> ToolCall:
    try:
        return ToolCall(name, arguments)
    except ChatError:  # a name with other characters, read from JSON; a number too long
        raise NotACall from None
