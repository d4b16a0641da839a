"""The demo's questions: what is called right, judged on models that say what they are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llama4_core.chat.messages import Message, ToolCall
from llama4_core.demo import questions
from llama4_core.demo.picture import THINGS
from llama4_core.errors import ModalityError
from llama4_core.testing.chat_strategies import ByteTokenizer


class Told:
    """Answers by the beginning of a question, or by what it is told for everything."""

    def __init__(self, says: Any) -> None:
        self.says = says
        self.heard: list[Any] = []
        self.tokenizer = ByteTokenizer()
        self.vision = self

    def chat(self, messages: Any, images: Any = (), tools: Any = (), **settings: Any) -> Any:
        self.heard.append(messages)
        text = messages if isinstance(messages, str) else messages[-1].text
        said = self.says(text)
        message = said if isinstance(said, Message) else Message("assistant", said)
        tokens = self.tokenizer.encode(text)
        generation = type("Generation", (), {"prompt_tokens": tokens})
        return type("Reply", (), {"message": message, "generation": generation})

    def generate(self, prompt: str, **settings: Any) -> Any:
        return type("Generation", (), {"text": "x"})

    def annotate(self, image: Any, text: str, path: Path) -> list[dict[str, Any]]:
        path.write_bytes(image.source)
        numbers = text.partition("<box>")[2].partition("</box>")[0]
        return [{"box": [int(one) for one in numbers.split(",")]}] if numbers else []


def right(question: str) -> str:
    """What a model says that sees the picture."""
    known = {
        "What colour": "blue",
        "What shape": "circle",
        "Where": "right",
        "How many": "3",
        "Is there": "yes",
    }
    box = ",".join(str(round(edge)) for edge in THINGS[0].box)
    found = [said for start, said in known.items() if question.startswith(start)]
    return found[0] if found else f"<ref>red circle</ref><box>{box}</box>"


def test_a_model_that_sees_is_right_and_one_that_does_not_is_wrong(tmp_path: Path) -> None:
    """Each of the six, and the pictures are written."""
    seeing = list(questions.about_a_picture(Told(right), tmp_path))
    assert [one.right for one in seeing] == [True] * 6
    blind = list(questions.about_a_picture(Told(lambda question: "seven"), tmp_path))
    assert [one.right for one in blind] == [False] * 6
    assert (tmp_path / "picture.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "box.png").read_bytes()[:4] == b"\x89PNG"


def test_a_box_beside_the_thing_is_wrong(tmp_path: Path) -> None:
    """A shift of half its width shares a third."""
    x0, y0, x1, y1 = THINGS[0].box
    shifted = [round(x0 + (x1 - x0) / 2), round(y0), round(x1 + (x1 - x0) / 2), round(y1)]
    said = f"<box>{','.join(map(str, shifted))}</box>"
    *_, box = questions.about_a_picture(Told(lambda question: said), tmp_path)
    assert box.right is False
    assert "shares 33%" in box.note


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """One line, before anything is asked."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ModalityError, match="no picture can be written there"):
        next(questions.about_a_picture(Told(right), tmp_path / "file"))


def test_the_long_text_holds_every_key_once_and_is_as_long_as_it_says() -> None:
    """In order, apart from each other; the question at the end."""
    model = Told(lambda text: "0375")
    answer = questions.about_a_long_text(model, 3000)
    assert answer.right is True
    (text,) = model.heard
    places = [
        text.index(f"The key of the {name} is {key}.") for name, key in questions.KEYS.items()
    ]
    assert places == sorted(places)
    assert text.endswith("What is the key of the lamp?")
    # Beyond the length by a line, four facts and a question, each at most 120 characters.
    assert 3000 <= len(model.tokenizer.encode(text)) < 3000 + 6 * 120


@pytest.mark.parametrize(
    ("said", "is_right"),
    [
        ("The key of the lamp is 0375.", True),
        ("4821", False),
        ("037", False),
        ("4821 0375 9164 2658", False),
        ("", False),
    ],
)
def test_a_key_is_right_alone_or_in_a_sentence(said: str, is_right: bool) -> None:
    """But not as one of several."""
    answer = questions.about_a_long_text(Told(lambda text: said), 500)
    assert answer.right is is_right
    assert ("right is '0375'" in answer.note) is not is_right


def test_a_call_is_right_only_as_a_call() -> None:
    """Its arguments count; the result is asked about only behind a call."""
    call = ToolCall("get_weather", {"city": "Lima"})

    def says(text: str) -> Any:
        if text.startswith("{"):
            return "It is sunny in Lima, 21 degrees."
        return Message("assistant", "", [call])

    assert [one.right for one in questions.with_tools(Told(says))] == [True, True]
    assert [one.right for one in questions.with_tools(Told(lambda text: "[x()]"))] == [False]
    call = ToolCall("get_weather", {"city": "Oslo"})
    assert [one.right for one in questions.with_tools(Told(says))] == [False, True]
