"""Messages and tools in the dictionaries of OpenAI's chat API, and back.

Every key is honoured or refused by name; nothing is dropped silently. What a model never sees (the
id of a call, the ``name`` beside a tool's result) is known as such.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llama4_core.chat.messages import Image, Input, Message, Part, Text, ToolCall, Video
from llama4_core.errors import ChatError

_ROLES = {"developer": "system"}
# Keys that replies of the API carry, to be sent back unchanged; with None they say nothing.
_EMPTY = ("refusal", "audio", "function_call", "annotations", "reasoning_content")
_KEYS = {"role", "content", "tool_calls", "tool_call_id", "name", *_EMPTY}
# OpenAI's own form of an image, its analogue for films that servers have agreed on, and the form of
# Hugging Face's templates for both.
_SOURCES = {"image": ("image", "url", "path"), "video": ("video", "url", "path")}
_HOW = ("frames", "fps")


def from_openai(messages: Iterable[Mapping[str, Any] | Message]) -> list[Message]:
    """Messages from dictionaries; messages among them are taken as they are.

    The role "developer" becomes "system", and "tool" becomes "ipython".

    Raises:
        ChatError: names the message and what is wrong with it.
    """
    if isinstance(messages, Mapping | str):
        raise ChatError(
            f"messages are a {type(messages).__name__}; expected a list of dictionaries such as "
            "{'role': 'user', 'content': 'Hello'}"
        )
    found = []
    for index, message in enumerate(messages):
        if isinstance(message, Message):
            found.append(message)
            continue
        try:
            found.append(_message(message))
        except ChatError as error:
            raise ChatError(f"message {index}: {error}") from error
    return found


def to_openai(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Dictionaries that :func:`from_openai` reads back to equal messages, paths as text.

    Raises:
        ChatError: the source of an image or a film is neither text, a path nor None.
    """
    return [_dictionary(message) for message in messages]


def functions(tools: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The functions of ``tools``: name, description and parameters (a JSON schema) of each.

    Args:
        tools: ``{"type": "function", "function": {...}}``, or the inner dictionaries alone.

    Raises:
        ChatError: a tool is of another kind, has no usable name, or a name comes twice.
    """
    if isinstance(tools, Mapping | str):
        raise ChatError(
            f"tools are a {type(tools).__name__}; expected a list of descriptions such as "
            "{'type': 'function', 'function': {'name': 'now', 'parameters': {...}}}"
        )
    found: dict[str, dict[str, Any]] = {}
    for index, tool in enumerate(tools):
        if not isinstance(tool, Mapping):
            raise ChatError(f"tool {index} is a {type(tool).__name__}; expected a dictionary")
        kind = tool.get("type", "function")
        if kind != "function":
            raise ChatError(f"tool {index} is of type {kind!r:.80}; expected 'function'")
        inner = tool.get("function", tool)
        if not isinstance(inner, Mapping) or "name" not in inner:
            raise ChatError(f"tool {index} has no name; expected a 'function' with a 'name'")
        try:
            ToolCall(inner["name"])
            text = json.dumps({key: inner[key] for key in inner if key != "type"})
        except (ChatError, TypeError, ValueError, RecursionError) as error:
            raise ChatError(f"tool {index} cannot be described as JSON: {error}") from error
        if inner["name"] in found:
            raise ChatError(f"tool {index} is the second one named {inner['name']!r}")
        found[inner["name"]] = json.loads(text)
    return list(found.values())


def _message(source: Any) -> Message:
    if not isinstance(source, Mapping):
        raise ChatError(f"it is a {type(source).__name__}; expected a dictionary")
    for key in source:
        if key not in _KEYS or (key in _EMPTY and source[key]):
            raise ChatError(
                f"its key {key!r:.80} is not supported; expected role, content, tool_calls or "
                "tool_call_id"
            )
    role = source.get("role")
    if not isinstance(role, str):
        raise ChatError(f"its role is {role!r:.80}; expected system, user, assistant or tool")
    calls = source.get("tool_calls") or ()
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise ChatError(f"its tool_calls are a {type(calls).__name__}; expected a list")
    return Message(
        _ROLES.get(role, role),
        _content(source.get("content")),
        [_call(call, index) for index, call in enumerate(calls)],
        source.get("tool_call_id") or "",
    )


def _content(content: Any) -> list[Part]:
    if content is None:
        return []
    if isinstance(content, str):
        return [Text(content)]
    if not isinstance(content, Sequence):
        raise ChatError(
            f"its content is a {type(content).__name__}; expected a string or a list of parts"
        )
    return [_part(part, index) for index, part in enumerate(content)]


def _part(part: Any, index: int) -> Part:
    if isinstance(part, str):
        return Text(part)
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return Text(part["text"])
    if kind in ("image_url", "video_url"):
        rest = dict(part)
        inner = rest.pop(kind, None)
        inner = inner if isinstance(inner, Mapping) else {"url": inner}
        return _input(kind.removesuffix("_url"), {**rest, **inner}, ("url",), index)
    if kind in _SOURCES:
        return _input(kind, part, _SOURCES[kind], index)
    raise ChatError(
        f"part {index} of its content is {part!r:.80}; expected a dictionary of type 'text', "
        "'image_url', 'image', 'video_url' or 'video'"
    )


def _input(kind: str, part: Mapping[str, Any], sources: Sequence[str], index: int) -> Input:
    """An image or a film from the dictionary that says where it is."""
    # An image is always looked at in full, which is what "auto" and "high" ask for.
    how = _HOW if kind == "video" else ("detail",)
    for key in part:
        if key not in ("type", *sources, *how) and part[key] is not None:
            raise ChatError(
                f"part {index} of its content has the key {key!r:.80}, which is not supported; "
                f"expected {', '.join((*sources, *how))}"
            )
    found = [part[key] for key in sources if part.get(key) is not None]
    if len(found) > 1:
        raise ChatError(
            f"part {index} of its content names {len(found)} sources; expected one of "
            f"{', '.join(sources)}"
        )
    source = found[0] if found else None
    if kind == "video":
        return Video(source, *(part.get(key) for key in _HOW))
    if part.get("detail") not in (None, "auto", "high"):
        raise ChatError(
            f"part {index} of its content asks for detail {part['detail']!r:.80}; expected 'auto' "
            "or 'high': images are always looked at in full, make a small one smaller beforehand"
        )
    return Image(source)


def _call(call: Any, index: int) -> ToolCall:
    inner = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(inner, Mapping) or call.get("type", "function") != "function":
        raise ChatError(
            f"tool call {index} is {call!r:.80}; expected "
            "{'type': 'function', 'function': {'name': ..., 'arguments': ...}}"
        )
    arguments = inner.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError) as error:
            raise ChatError(
                f"the arguments of tool call {index} are no valid JSON ({error})"
            ) from error
    return ToolCall(inner.get("name", ""), arguments, call.get("id") or "")


def _dictionary(message: Message) -> dict[str, Any]:
    role = "tool" if message.role == "ipython" else message.role
    found: dict[str, Any] = {"role": role, "content": message.text}
    if message.inputs:
        found["content"] = [_written(part) for part in message.content]
    if message.tool_calls:
        found["tool_calls"] = [
            {
                "id": call.id or f"call_{index}",
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))},
            }
            for index, call in enumerate(message.tool_calls)
        ]
    if message.call_id:
        found["tool_call_id"] = message.call_id
    return found


def _written(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    kind, what = ("image", "an image") if isinstance(part, Image) else ("video", "a film")
    how = {}
    if isinstance(part, Video):
        how = {key: getattr(part, key) for key in _HOW if getattr(part, key) is not None}
    if part.source is None:
        return {"type": kind, **how}
    source = os.fspath(part.source) if isinstance(part.source, os.PathLike) else part.source
    if not isinstance(source, str):
        raise ChatError(
            f"{what} is a {type(source).__name__}; expected a URL or a path, or None, to write it "
            "down: save it to a file and give its path"
        )
    return {"type": f"{kind}_url", f"{kind}_url": {"url": source, **how}}
