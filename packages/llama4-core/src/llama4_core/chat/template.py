"""The chat template of a Hugging Face checkpoint, run in a sandbox."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llama4_core.chat.format import EOM, EOT, Llama4Format, Messages, Tools
from llama4_core.chat.messages import Image, Message, Text
from llama4_core.chat.openai import from_openai
from llama4_core.chat.rendered import IMAGE, Expand, Rendered, Segment, Special, encode
from llama4_core.chat.sandbox import compile_template, run_template
from llama4_core.errors import ChatError
from llama4_core.tokenizers.specials import SPECIALS
from llama4_core.tokenizers.tokenizer import Tokenizer

MAX_TEMPLATE = 1 << 20
"""Longest template, in characters."""


class TemplateFormat:
    """A checkpoint's own template instead of the built-in format.

    Read from ``chat_template.jinja``, or ``chat_template`` of ``tokenizer_config.json``. It comes
    with the checkpoint, never from a request. It sees messages as dictionaries whose text cannot
    spell a special token: the first character of every special is followed by a mark that occurs
    nowhere else and is taken out of the rendered text. Special tokens are those that the template
    itself writes. Each image of the messages has to come back as one ``<|image|>``; a film is
    shown to the template as an image, since no template has a place for films.

    Args:
        folder: of the checkpoint.
        source: the template itself, instead of a folder.
        specials: spellings of the special tokens; by default those of the folder's
            ``tokenizer.json``, and without that file those of Llama 4.
        tokens: what templates may ask for by name, such as ``bos_token``; by default from
            ``tokenizer_config.json``.

    Raises:
        ChatError: there is no template, it is damaged, or jinja2 is not installed.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        source: str | None = None,
        specials: Iterable[str] | None = None,
        tokens: Mapping[str, str] | None = None,
    ) -> None:
        settings: dict[str, Any] = {}
        if folder is not None:
            settings = _json(Path(folder) / "tokenizer_config.json")
            source = _source(Path(folder), settings) if source is None else source
            if specials is None:
                specials = _specials(Path(folder) / "tokenizer.json")
        if source is None:
            raise ChatError(
                "the chat format 'template' has no template; expected a folder that holds "
                "chat_template.jinja, or a tokenizer_config.json with a chat_template: load such "
                "a checkpoint, or use the format 'llama4'"
            )
        if len(source) > MAX_TEMPLATE:
            raise ChatError(
                f"the chat template has {len(source)} characters; expected at most {MAX_TEMPLATE}"
            )
        self._template = compile_template(source)
        self._specials = tuple(specials or ())
        self._tokens = dict(_tokens(settings) if tokens is None else tokens)

    @property
    def stops(self) -> tuple[str, ...]:
        """Spellings of the special tokens that may end a reply."""
        eos = self._tokens.get("eos_token")
        known = [name for name in (EOT, EOM) if name in self._specials]
        return tuple(dict.fromkeys([*known, *([eos] if eos else [])]))

    def render(self, messages: Messages, tools: Tools = (), *, generation: bool = True) -> Rendered:
        """Writes a conversation down as the template says.

        Raises:
            ChatError: a message is malformed, the template refuses or fails, takes too long,
                writes too much, or loses an image or a film.
        """
        found = from_openai(messages)
        dictionaries = [_dictionary(message) for message in found]
        mark = _mark([dictionaries, list(tools), self._tokens])
        firsts = "".join(sorted({re.escape(name[0]) for name in self._specials if name}))
        first = re.compile(f"[{firsts}]") if firsts else None
        text = run_template(
            self._template,
            {
                **self._tokens,
                "messages": _marked(dictionaries, first, mark),
                "tools": _marked(list(tools), first, mark) or None,
                "add_generation_prompt": generation,
            },
        )
        segments: list[Segment] = []
        for segment in Rendered.from_text(text, self._specials).segments:
            if isinstance(segment, str):
                segment = segment.replace(mark, "").replace(_escaped(mark), "")
            segments.append(segment)
        return Rendered(_with_inputs(segments, found))

    def encode(
        self, rendered: Rendered, tokenizer: Tokenizer, *, expand: Expand | None = None
    ) -> list[int]:
        """Token ids; see :func:`llama4_core.chat.rendered.encode`."""
        return encode(rendered, tokenizer, expand=expand)

    def parse(self, rendered: Rendered) -> list[Message]:
        """The messages, where the template writes them in Llama 4's format.

        Raises:
            ChatError: it does not.
        """
        return Llama4Format().parse(rendered)


def _with_inputs(segments: list[Segment], messages: Iterable[Message]) -> tuple[Segment, ...]:
    inputs = [part for message in messages for part in message.inputs]
    places = [index for index, segment in enumerate(segments) if segment == Special(IMAGE)]
    if len(places) != len(inputs):
        all_images = all(isinstance(part, Image) for part in inputs)
        raise ChatError(
            f"the chat template wrote {len(places)} of {len(inputs)} "
            f"{'images' if all_images else 'images and films'}; expected each as one "
            f"{IMAGE}: some templates lose images beside tools; use the format 'llama4'"
        )
    for place, part in zip(places, inputs, strict=True):
        segments[place] = part
    return tuple(segments)


def _dictionary(message: Message) -> dict[str, Any]:
    """A message as templates expect it: text as a string, arguments as a dictionary."""
    content: Any = message.text
    if message.inputs:
        content = [
            {"type": "text", "text": part.text} if isinstance(part, Text) else {"type": "image"}
            for part in message.content
        ]
    role = "tool" if message.role == "ipython" else message.role
    found: dict[str, Any] = {"role": role, "content": content}
    if message.call_id:
        found["tool_call_id"] = message.call_id
    if message.tool_calls:
        found["tool_calls"] = [
            {
                "type": "function",
                "function": {"name": call.name, "arguments": dict(call.arguments)},
                **({"id": call.id} if call.id else {}),
            }
            for call in message.tool_calls
        ]
    return found


def _mark(values: Any) -> str:
    """A string that occurs in none of the values: of private use, as short as possible."""
    text = json.dumps(values, ensure_ascii=False)
    mark = "\ue000"
    while mark in text or _escaped(mark) in text:
        mark += "\ue001"
    return mark


def _escaped(mark: str) -> str:
    """The mark where a template asks for JSON in ASCII."""
    return json.dumps(mark)[1:-1]


def _marked(value: Any, first: re.Pattern[str] | None, mark: str) -> Any:
    if first is None:
        return value
    if isinstance(value, str):
        return first.sub(lambda match: match[0] + mark, value)
    if isinstance(value, Mapping):
        return {_marked(k, first, mark): _marked(v, first, mark) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_marked(item, first, mark) for item in value]
    return value


def _source(folder: Path, settings: Mapping[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ChatError(f"{path} cannot be read ({error}); fetch the file again") from error
    found = settings.get("chat_template")
    if isinstance(found, list):
        # Several by name; the one for ordinary chats is called "default".
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default")
    if found is not None and not isinstance(found, str):
        raise ChatError(
            f"chat_template in {folder / 'tokenizer_config.json'} is a {type(found).__name__}; "
            "expected text"
        )
    return found


def _specials(path: Path) -> Iterable[str]:
    if not path.is_file():
        return SPECIALS
    try:
        return [token["content"] for token in _json(path).get("added_tokens", ())]
    except (KeyError, TypeError) as error:
        raise ChatError(
            f"{path} lists added tokens that are none ({type(error).__name__}: {error}); fetch the "
            "file again"
        ) from error


def _tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for key, value in settings.items():
        if key.endswith("_token"):
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str):
                found[key] = value
    return found


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ChatError(f"{path} cannot be read ({error}); fetch the file again") from error
    if not isinstance(content, dict):
        raise ChatError(f"{path} holds a {type(content).__name__}; expected an object")
    return content
