"""From a row of a table or an object of a JSON line to a record."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from llama4_core.chat.messages import Image, Message, Part, Text, Video
from llama4_core.chat.openai import from_openai, functions
from llama4_core.errors import ChatError
from llama4_core.specs.suggest import nearest
from llama4_train.errors import DataError
from llama4_train.protocols import Piece, Record

Row = Mapping[str, Any]
ReadRow = Callable[[Row, str, Path | None], Record]
"""Makes a record of a row; also takes what to call it in errors, and the folder that paths of
pictures are relative to (None for the current one)."""


@dataclass(frozen=True)
class TextRow:
    """Rows that hold a text; the loss is on all of it.

    Attributes:
        field: that holds it.
    """

    field: str = "text"

    def __call__(self, row: Row, origin: str, folder: Path | None) -> Record:
        """The record of a row.

        Raises:
            DataError: the field is missing, empty, or no text.
        """
        return Record(pieces=(Piece(Text(_text(row, self.field, origin))),), origin=origin)


@dataclass(frozen=True)
class ChatRow:
    """Rows that hold a conversation; the loss is on what the assistant says.

    Attributes:
        messages: field of the messages, as in OpenAI's API.
        tools: field of the tools on offer, as there or as their JSON; may be missing.
    """

    messages: str = "messages"
    tools: str = "tools"

    def __call__(self, row: Row, origin: str, folder: Path | None) -> Record:
        """The record of a row.

        Raises:
            DataError: a message or a tool is malformed, or the assistant says nothing.
        """
        tools = row.get(self.tools) or ()
        given = _field(row, self.messages, origin)
        if not isinstance(given, list | tuple):
            raise DataError(
                f"{origin}: {self.messages!r} is a {type(given).__name__}; expected a list of "
                "messages such as {'role': 'user', 'content': 'Hello'}"
            )
        try:
            messages = from_openai(given)
            if isinstance(tools, str):
                tools = json.loads(tools)
            offered = tuple(functions(tools))
        except (ChatError, ValueError, RecursionError, TypeError) as error:
            raise DataError(f"{origin}: {error}") from error
        if not any(message.role == "assistant" for message in messages):
            raise DataError(f"{origin}: no message is the assistant's; there is nothing to learn")
        placed = tuple(_placed(message, origin, folder) for message in messages)
        return Record(messages=placed, tools=offered, origin=origin)


@dataclass(frozen=True)
class PictureRow:
    """Rows that hold one or several pictures or a film, and a caption or questions.

    A caption follows the pictures, and the loss is on it. A question with its answer, or several in
    a list, become a conversation that begins with the pictures.

    Attributes:
        image: field of a picture (a path, bytes, a ``data:`` URL), or of a list of them.
        video: field of a film.
        text: field of the caption.
        question, answer: fields of a question and its answer.
        questions: field of a list of objects with ``question`` and ``answer``.
    """

    image: str = "image"
    video: str = "video"
    text: str = "text"
    question: str = "question"
    answer: str = "answer"
    questions: str = "questions"

    def __call__(self, row: Row, origin: str, folder: Path | None) -> Record:
        """The record of a row.

        Raises:
            DataError: there is no picture or no file of that name, or not one of caption, question
                and questions.
        """
        inputs = self._inputs(row, origin, folder)
        named = [name for name in (self.text, self.question, self.questions) if row.get(name)]
        if len(named) != 1:
            raise DataError(
                f"{origin}: has {' and '.join(named) or 'no words'} beside the picture; expected "
                f"one of {self.text!r}, {self.question!r} with {self.answer!r}, or "
                f"{self.questions!r}"
            )
        if named == [self.text]:
            pieces = [Piece(part, 0.0) for part in inputs]
            text = Text(_text(row, self.text, origin))
            return Record(pieces=(*pieces, Piece(text)), origin=origin)
        asked = row[self.questions] if named == [self.questions] else [row]
        if not isinstance(asked, Sequence) or isinstance(asked, str):
            raise DataError(
                f"{origin}: {self.questions!r} is a {type(asked).__name__}; expected a list of "
                f"objects with {self.question!r} and {self.answer!r}"
            )
        messages: list[Message] = []
        for one in asked:
            if not isinstance(one, Mapping):
                raise DataError(
                    f"{origin}: one of the questions is {one!r:.80}; expected an object"
                )
            before = () if messages else inputs
            messages.append(Message("user", (*before, _text(one, self.question, origin))))
            messages.append(Message("assistant", _text(one, self.answer, origin)))
        return Record(messages=tuple(messages), origin=origin)

    def _inputs(self, row: Row, origin: str, folder: Path | None) -> list[Part]:
        pictures = row.get(self.image)
        if not isinstance(pictures, list | tuple):
            pictures = [] if pictures is None else [pictures]
        films = [] if row.get(self.video) is None else [row[self.video]]
        found: list[Part] = [Image(_source(one, origin, folder)) for one in pictures]
        found += [Video(_source(one, origin, folder)) for one in films]
        if not found:
            raise DataError(
                f"{origin}: has no {self.image!r} and no {self.video!r}{nearest(self.image, row)}; "
                "expected the path of a picture or a film"
            )
        return found


READERS: dict[str, Callable[..., ReadRow]] = {
    "text": TextRow,
    "chat": ChatRow,
    "image-text": PictureRow,
}
"""What the rows of a table may hold."""


def row_reader(rows: str, columns: Mapping[str, str]) -> ReadRow:
    """How to read rows.

    Args:
        rows: one of :data:`READERS`.
        columns: names of fields, where they are not the usual ones: ``{"field": "content"}``.

    Raises:
        DataError: there is no such kind of rows, or no such field of it.
    """
    if rows not in READERS:
        raise DataError(
            f"rows are {rows!r:.80}{nearest(rows, READERS)}; expected one of {', '.join(READERS)}"
        )
    target: Any = READERS[rows]
    known = [field.name for field in fields(target)]
    if not isinstance(columns, Mapping):
        raise DataError(f"columns are {columns!r:.80}; expected a table of names")
    for name, column in columns.items():
        if name not in known:
            raise DataError(
                f"columns name {name!r:.80}{nearest(name, known)}; rows of {rows!r} have "
                f"{', '.join(known)}"
            )
        if not isinstance(column, str) or not column:
            raise DataError(f"the column of {name!r} is {column!r:.80}; expected its name")
    found: ReadRow = target(**columns)
    return found


def _field(row: Row, name: str, origin: str) -> Any:
    if name in row and row[name] is None:
        raise DataError(f"{origin}: {name!r} is null; expected a value")
    if name not in row:
        raise DataError(
            f"{origin}: has no {name!r}{nearest(name, row)}; it has "
            f"{', '.join(map(repr, list(row)[:8])) or 'nothing'}"
        )
    return row[name]


def _text(row: Row, name: str, origin: str) -> str:
    text = _field(row, name, origin)
    if not isinstance(text, str):
        raise DataError(f"{origin}: {name!r} is a {type(text).__name__}; expected a text")
    if not text:
        raise DataError(f"{origin}: {name!r} is empty; expected a text")
    return text


def _placed(message: Message, origin: str, folder: Path | None) -> Message:
    """The message with the paths of pictures seen from here."""
    if not message.inputs:
        return message
    content: list[Part] = []
    for part in message.content:
        if isinstance(part, Image):
            part = Image(_source(part.source, origin, folder))
        elif isinstance(part, Video):
            part = Video(_source(part.source, origin, folder), part.frames, part.fps)
        content.append(part)
    return Message(message.role, content, message.tool_calls, message.call_id)


def _source(source: Any, origin: str, folder: Path | None) -> Any:
    """A picture or a film as it can be opened from here."""
    if isinstance(source, Mapping):
        # As tables keep pictures: the bytes of the file, or its path.
        source = source.get("bytes") or source.get("path")
    if source is None or source == "":
        raise DataError(f"{origin}: a picture is not given; expected its path")
    if not isinstance(source, str) or source[:5].lower() == "data:":
        return source
    path = source if folder is None else folder / source
    try:
        there = Path(path).is_file()
    except (OSError, ValueError) as error:
        raise DataError(f"{origin}: {source!r:.80} is no path ({error})") from error
    if not there:
        raise DataError(f"{origin}: there is no file {path}; expected a picture or a film there")
    return str(path)
