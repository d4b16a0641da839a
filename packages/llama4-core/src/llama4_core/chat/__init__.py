"""Conversations: messages, chat formats and the calls of tools; imports without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama4_core.chat.format import ChatFormat, Llama4Format
from llama4_core.chat.messages import Image, Message, Text, ToolCall, Video
from llama4_core.chat.openai import from_openai, to_openai
from llama4_core.chat.rendered import Rendered, Special
from llama4_core.chat.tools import CallParser, ToolParser, read_calls

if TYPE_CHECKING:
    from llama4_core.chat.conversation import Reply, chat
    from llama4_core.chat.template import TemplateFormat

__all__ = [
    "CallParser",
    "ChatFormat",
    "Image",
    "Llama4Format",
    "Message",
    "Rendered",
    "Reply",
    "Special",
    "TemplateFormat",
    "Text",
    "ToolCall",
    "ToolParser",
    "Video",
    "chat",
    "from_openai",
    "read_calls",
    "to_openai",
]

# chat and Reply need torch, TemplateFormat needs jinja2.
_HOMES = {"Reply": "conversation", "chat": "conversation", "TemplateFormat": "template"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
