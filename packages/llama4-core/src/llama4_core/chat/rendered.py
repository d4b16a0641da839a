"""A conversation written down: special tokens, ordinary text, places of images, kept apart.

Nothing is ever one string in which a user's text could spell a special token.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from llama4_core.chat.messages import Image, Input, Video
from llama4_core.errors import ChatError
from llama4_core.tokenizers.tokenizer import Tokenizer

IMAGE_START = "<|image_start|>"
IMAGE = "<|image|>"
IMAGE_END = "<|image_end|>"


@dataclass(frozen=True)
class Special:
    """A special token, by its spelling."""

    name: str


Segment = Special | Image | Video | str
Expand = Callable[[Input], Sequence[int]]


@dataclass(frozen=True)
class Rendered:
    """A conversation as a format writes it.

    Attributes:
        segments: special tokens, places of images and films, and ordinary text (strings).
    """

    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        """Everything spelled out, to be looked at; encoding this would let users spell specials."""
        return "".join(map(_spelled, self.segments))

    @property
    def images(self) -> tuple[Image, ...]:
        """The images, in order."""
        return tuple(one for one in self.segments if isinstance(one, Image))

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The images and films, in order."""
        return tuple(one for one in self.segments if isinstance(one, Input))

    @classmethod
    def from_text(cls, text: str, specials: Iterable[str]) -> Rendered:
        """Reads what the program itself wrote, every special spelled in it being meant.

        Args:
            text: trusted text, such as :attr:`text` of a conversation without hostile content.
            specials: spellings to look for.
        """
        pattern = "|".join(re.escape(name) for name in sorted(specials, key=len, reverse=True))
        if not pattern:
            return cls((text,) if text else ())
        pieces = re.split(f"({pattern})", text)
        return cls(_images([Special(p) if i % 2 else p for i, p in enumerate(pieces) if p]))

    @classmethod
    def from_ids(cls, ids: Iterable[int], tokenizer: Tokenizer) -> Rendered:
        """Reads token ids; an image is whatever lies between its start and its end.

        A film was written as images with text between them, and comes back as these.
        """
        names = {number: name for name, number in tokenizer.specials.items()}
        found: list[Segment] = []
        run: list[int] = []
        for token in ids:
            if token not in names:
                run.append(token)
                continue
            if run:
                found.append(tokenizer.decode(run))
            run = []
            found.append(Special(names[token]))
        if run:
            found.append(tokenizer.decode(run))
        return cls(_images(found))


def encode(rendered: Rendered, tokenizer: Tokenizer, *, expand: Expand | None = None) -> list[int]:
    """Token ids of a rendered conversation.

    Each piece of text is encoded for itself as ordinary text: whatever it spells, it yields no
    special id.

    Args:
        rendered: from a chat format.
        tokenizer: whose ``specials`` hold every special token of ``rendered``.
        expand: the ids of an image or a film, start and end included.

    Raises:
        ChatError: the tokenizer lacks a special token; there is an image or a film and no
            ``expand``.
        TokenizerError: a text cannot be encoded.
    """
    ids: list[int] = []
    for segment in rendered.segments:
        if isinstance(segment, str):
            ids += tokenizer.encode(segment, bos=False)
        elif isinstance(segment, Special):
            if segment.name not in tokenizer.specials:
                raise ChatError(
                    f"the tokenizer has no token {segment.name!r}, which the chat format needs; "
                    "use the tokenizer of a Llama 4 model, or the format 'template'"
                )
            ids.append(tokenizer.specials[segment.name])
        elif expand is None:
            raise ChatError(
                f"the conversation holds {_kind(segment)}, and nothing here turns one into "
                "tokens; use a model that sees, pass expand=, or leave it out"
            )
        else:
            ids += expand(segment)
    return ids


def _kind(part: Input) -> str:
    return "an image" if isinstance(part, Image) else "a film"


def _spelled(segment: Segment) -> str:
    if isinstance(segment, str):
        return segment
    if isinstance(segment, Special):
        return segment.name
    return IMAGE_START + IMAGE + IMAGE_END


def _images(segments: list[Segment]) -> tuple[Segment, ...]:
    """Everything from an image's start to its end, as one image; without an end left as it is."""
    start, end = Special(IMAGE_START), Special(IMAGE_END)
    found: list[Segment] = []
    opened: int | None = None
    for segment in segments:
        if segment == end and opened is not None:
            del found[opened:]
            found.append(Image())
            opened = None
            continue
        if segment == start:
            opened = len(found)
        found.append(segment)
    return tuple(found)
