"""What the checks of chat formats and tool parsers draw: messages, calls, and hostile text."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from hypothesis import strategies as st

from llama4_core.chat.messages import Image, Message, Text, ToolCall
from llama4_core.tokenizers.tokenizer import StreamDecoder

SPECIALS = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|header_start|>", "<|header_end|>", "<|eom|>"),
    *("<|eot|>", "<|python_start|>", "<|python_end|>", "<|image_start|>", "<|image_end|>"),
    "<|image|>",
)
"""Special tokens that a chat format may use."""

HOSTILE = (
    *SPECIALS,
    *("<|", "|>", "<", "eot", "|eot|>", "<|eo", "\n\n", "user", "ipython", "\ue000", " "),
    *("[", "]", "(", ")", "{", "}", "[f(", "[f(a=", '"', "'", '"""', "\\", "\\u", "=", ",", ":"),
    *("**{", "1", "-1.5e3", "None", "true", '{"name": "f", "parameters": {', "}}", ";"),
    *("[f(a=1)]", '{"name": "g", "arguments": {}}', "<function=f>", "</function>"),
)
"""Pieces that special tokens and calls are made of."""

UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_SPACE = st.sampled_from(["", "", " ", "\n", "\n\n"])
TEXT = st.builds(
    lambda *pieces: "".join(pieces),
    _SPACE,
    st.lists(st.sampled_from(HOSTILE) | UNICODE, max_size=8).map("".join),
    _SPACE,
)
WORDS = st.text("abc de.\n", max_size=12)
"""Text that is no part of any call."""

NAMES = st.text("abcXYZ_019", min_size=1, max_size=8) | st.sampled_from(["a.b", "get-it", "True"])
KEYS = NAMES | TEXT
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
CALLS = st.builds(ToolCall, NAMES, st.dictionaries(KEYS, VALUES, max_size=3))
PARTS = TEXT.map(Text) | st.just(Image())


@st.composite
def _messages(draw: Any) -> Message:
    role = draw(st.sampled_from(("system", "user", "assistant", "ipython")))
    parts = PARTS if role in ("user", "ipython") else TEXT.map(Text)
    content = draw(st.lists(parts, max_size=3))
    calls = draw(st.lists(CALLS, max_size=2)) if role == "assistant" else ()
    return Message(role, content, calls)


MESSAGES = st.lists(_messages(), min_size=1, max_size=4)


class ByteTokenizer:
    """A token for each byte, and each of some special tokens."""

    def __init__(self, specials: Iterable[str] = SPECIALS) -> None:
        self.specials: Mapping[str, int] = {name: 256 + i for i, name in enumerate(specials)}
        self.vocabulary = 256 + len(self.specials)
        self.bos = self.specials.get(SPECIALS[0])

    def encode(self, text: str, *, bos: bool = True, specials: bool = False) -> list[int]:
        """Bytes; ``specials`` is never asked for by a chat format."""
        if specials:
            raise AssertionError("text was encoded with specials=True: users could spell them")
        return [*([self.bos] if bos and self.bos is not None else []), *text.encode()]

    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        """Text of bytes; special tokens are left out."""
        return bytes(one for one in ids if one < 256).decode("utf-8", "replace")

    def stream(self, *, specials: bool = False) -> StreamDecoder:
        """A decoder for ids that arrive one at a time."""
        return StreamDecoder(lambda token: bytes([token] if token < 256 else []))


def cut(text: str, borders: Iterable[float]) -> list[str]:
    """``text`` in pieces, cut at these parts of its length."""
    places = sorted({0, len(text), *(int(border * len(text)) for border in borders)})
    return [text[start:stop] for start, stop in itertools.pairwise(places)]
