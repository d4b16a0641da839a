"""What the demo asks a trained model, and what is right.

The words are those that ``llama4-tiny`` was trained on: a model of a few million weights knows its
own wordings only.
"""

from __future__ import annotations

import json
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama4_core.chat.messages import Image, Message
from llama4_core.demo.picture import THINGS, overlap, png
from llama4_core.errors import GenerationError, ModalityError

KEYS = {"fox": "4821", "lamp": "0375", "river": "9164", "tower": "2658"}
"""What the long text says somewhere."""

LENGTH = 4096
"""Tokens of the long text: 16 times those of the texts that ``llama4-tiny`` learnt keys from."""

ENOUGH = 0.5
"""Intersection over union above which a box counts as found, as since Pascal VOC (2007)."""

_SOURCE = "argparse.py"  # of Python's library: a long text that is on every machine

_CITY, _WEATHER = "Lima", {"sky": "sunny", "degrees": 21}
TOOLS: tuple[dict[str, Any], ...] = tuple(
    {
        "name": name,
        "description": description,
        "parameters": {
            "type": "object",
            "properties": {argument: {"type": kind}},
            "required": [argument],
        },
    }
    for name, description, argument, kind in (
        ("get_weather", "The weather in a city now.", "city", "string"),
        ("set_timer", "Rings after some minutes.", "minutes", "integer"),
        ("get_time", "The time in a city now.", "city", "string"),
    )
)


@dataclass(frozen=True)
class Answer:
    """What a model said to a question.

    Attributes:
        question: as it was asked, or what it is about.
        said: by the model.
        right: whether it is so; None where nobody can say.
        note: what else there is to say, such as what would have been right.
    """

    question: str
    said: str
    right: bool | None = None
    note: str = ""


def about_a_picture(model: Any, folder: Path) -> Iterator[Answer]:
    """Draws a picture, asks about it, and draws the box that the model says into a larger copy.

    Args:
        model: with eyes and a tokenizer.
        folder: where ``picture.png`` and ``box.png`` go.

    Raises:
        ModalityError: the model reads no pictures, or the folder cannot be written.
    """
    picture = folder / "picture.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(png())
    except OSError as error:
        raise ModalityError(
            f"{folder}: no picture can be written there ({error.strerror or error}); choose another"
        ) from error
    circle, star, _ = THINGS
    for question, right in (
        (f"What colour is the {star.shape}?", star.colour),
        (f"What shape is the {circle.colour} object?", circle.shape),
        (f"Where is the {star.name}?", star.cell),
        ("How many objects are there?", str(len(THINGS))),
        (f"Is there a {circle.name}?", "yes"),
    ):
        yield _exact(question, model.chat(question, [picture], max_tokens=8), right)
    question = f"Draw a box around the {circle.name}."
    reply = model.chat(question, [picture], max_tokens=48).message.text
    target = folder / "box.png"
    boxes = model.vision.annotate(Image(png(scale=6)), reply, target)
    shared = overlap(boxes[0]["box"], circle.box) if boxes else 0.0
    note = f"shares {shared:.0%} with the circle; drawn in {target}"
    yield Answer(question, reply, shared > ENOUGH, note if boxes else "it says no box")


def about_a_long_text(model: Any, length: int = LENGTH) -> Answer:
    """Asks for one of four keys that stand somewhere in a text of Python's own sources.

    Args:
        model: with a tokenizer.
        length: of the text in tokens, about.

    Raises:
        GenerationError: Python's library has no sources here.
    """
    facts = [f"The key of the {name} is {key}.\n" for name, key in KEYS.items()]
    lines = _lines(model.tokenizer, length)
    # From the front to the back, so that the last one does not move the ones before.
    for number, fact in reversed(list(enumerate(facts))):
        lines.insert((2 * number + 1) * len(lines) // (2 * len(facts)), fact)
    name = list(KEYS)[1]
    asked = f"What is the key of the {name}?"
    reply = model.chat("".join(lines) + asked, max_tokens=32, prefill_chunk=1024)
    tokens = len(reply.generation.prompt_tokens)
    said = reply.message.text.strip()
    # Alone or in a sentence, but no list of keys.
    right = [key for key in KEYS.values() if key in said] == [KEYS[name]]
    where = f"behind {tokens:,} tokens with {len(KEYS)} keys in them"
    return Answer(f"{asked} ({where})", said, right, "" if right else f"right is {KEYS[name]!r}")


def in_words(model: Any) -> Iterator[Answer]:
    """Text that goes on, a sentence in another language, a sum."""
    start = "    def __init__(self, "
    yield Answer(repr(start), repr(model.generate(start, max_tokens=24).text))
    for question, right in (
        ("Complete: The black cat sleeps. = Le chat ...", "noir dort."),
        ("Translate to Spanish: The cat eats.", "El gato come."),
        ("12 + 30 =", "42"),
    ):
        yield _exact(question, model.chat(question, max_tokens=24), right)


def with_tools(model: Any) -> Iterator[Answer]:
    """A request, the call that the model makes of it, and what it says of the result."""
    asked = Message("user", f"What is the weather in {_CITY}?")
    reply = model.chat([asked], tools=TOOLS, max_tokens=48).message
    calls = [f"{call.name}({json.dumps(dict(call.arguments))})" for call in reply.tool_calls]
    right = f'get_weather({{"city": "{_CITY}"}})'
    found = calls == [right]
    yield Answer(
        asked.text, ", ".join(calls) or repr(reply.text), found, "" if found else f"not {right}"
    )
    if calls:
        result = Message("ipython", json.dumps(_WEATHER))
        said = model.chat([asked, reply, result], tools=TOOLS, max_tokens=32)
        right = f"It is {_WEATHER['sky']} in {_CITY}, {_WEATHER['degrees']} degrees."
        yield _exact(result.text, said, right)


def _exact(question: str, reply: Any, right: str) -> Answer:
    said = reply.message.text.strip()
    return Answer(question, said, said == right, "" if said == right else f"right is {right!r}")


def _lines(tokenizer: Any, length: int) -> list[str]:
    """So many tokens of source text, by lines that are neither empty nor long."""
    file = Path(sysconfig.get_paths()["stdlib"]) / _SOURCE
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise GenerationError(
            f"{file} cannot be read ({error.strerror}), which the long text is made of; install "
            "Python with the sources of its library"
        ) from error
    found: list[str] = []
    used = 0
    for line in text.splitlines():
        if not line.strip() or len(line) > 120:
            continue
        found.append(line.rstrip() + "\n")
        used += len(tokenizer.encode(found[-1], bos=False))
        if used >= length:
            break
    return found
