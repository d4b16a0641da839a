"""JSON lines: texts, conversations, pictures with words; and what is wrong with a line."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.chat.messages import Image, Message, Text, ToolCall, Video
from llama4_train.errors import DataError
from llama4_train.protocols import Piece
from llama4_train.sources.jsonl import ChatJsonl, ImageTextJsonl, Jsonl

ANY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


def written(folder, *rows):
    path = folder / "data.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


@given(texts=st.lists(ANY, min_size=1, max_size=20), plain=st.booleans(), ends=st.booleans())
def test_any_text_comes_back(tmp_path_factory, texts, plain, ends):
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    rows = [json.dumps({"text": text}, ensure_ascii=plain) for text in texts]
    # Line ends of Windows, and blank lines between.
    path.write_bytes(("\r\n\n" if ends else "\n").join(rows).encode())
    records = list(Jsonl(str(path)))
    assert [record.pieces for record in records] == [(Piece(Text(text)),) for text in texts]
    step = 2 if ends else 1
    assert [record.origin for record in records] == [
        f"{path}, line {1 + step * number}" for number in range(len(texts))
    ]


def test_conversations_hold_tools_calls_and_pictures(tmp_path):
    (tmp_path / "a.png").write_bytes(b"not looked at")
    tool = {"name": "now", "description": "the time", "parameters": {"type": "object"}}
    call = {"type": "function", "function": {"name": "now", "arguments": '{"zone": "UTC"}'}}
    row = {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "When was"},
                    {"type": "image_url", "image_url": {"url": "a.png"}},
                ],
            },
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "12:00"},
            {"role": "assistant", "content": "At noon."},
        ],
        "tools": [{"type": "function", "function": tool}],
    }
    packed = {"m": row["messages"], "t": json.dumps(row["tools"])}
    first = next(ChatJsonl(written(tmp_path, row)))
    second = next(ChatJsonl(written(tmp_path, packed), messages="m", tools="t"))
    assert first == second
    assert first.messages == (
        Message("user", ["When was", Image(str(tmp_path / "a.png"))]),
        Message("assistant", "", [ToolCall("now", {"zone": "UTC"})]),
        Message("ipython", "12:00"),
        Message("assistant", "At noon."),
    )
    assert first.tools == (tool,)


def test_pictures_come_with_captions_or_questions(tmp_path):
    for name in ("a.png", "b.png", "f.mp4"):
        (tmp_path / name).write_bytes(b"not looked at")
    url = "data:image/png;base64," + base64.b64encode(b"not looked at").decode()
    path = written(
        tmp_path,
        {"image": "a.png", "text": "a caption"},
        {"image": ["a.png", url], "question": "which?", "answer": "both"},
        {"video": "f.mp4", "questions": [{"question": "q", "answer": "a"}] * 2},
    )
    a = Image(str(tmp_path / "a.png"))
    caption, asked, film = ImageTextJsonl(path)
    assert caption.pieces == (Piece(a, 0.0), Piece(Text("a caption")))
    assert asked.messages == (
        Message("user", [a, Image(url), "which?"]),
        Message("assistant", "both"),
    )
    assert film.messages == (
        Message("user", [Video(str(tmp_path / "f.mp4")), "q"]),
        Message("assistant", "a"),
        Message("user", "q"),
        Message("assistant", "a"),
    )


def test_columns_may_have_other_names(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    path = written(tmp_path, {"file": "a.png", "caption": "c"})
    record = next(ImageTextJsonl(path, columns={"image": "file", "text": "caption"}))
    assert record.pieces[1] == Piece(Text("c"))


GOOD = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


@pytest.mark.parametrize(
    ("kind", "line", "said"),
    [
        (Jsonl, "{", "is no valid JSON"),
        (Jsonl, "[1]", "holds a list; expected a JSON object"),
        (Jsonl, '{"text": 3}', "'text' is a int; expected a text"),
        (Jsonl, '{"text": ""}', "'text' is empty"),
        (Jsonl, '{"text": null}', "'text' is null"),
        (Jsonl, '{"txt": "a"}', "has no 'text' (did you mean 'txt'?); it has 'txt'"),
        (Jsonl, "[" * 100_000, "is no valid JSON"),
        (ChatJsonl, "{}", "has no 'messages'"),
        (ChatJsonl, '{"messages": []}', "no message is the assistant's"),
        (ChatJsonl, '{"messages": 3}', "'messages' is a int"),
        (ChatJsonl, '{"messages": [{"role": "me"}]}', "message 0: the role is 'me'"),
        (ChatJsonl, json.dumps({**GOOD, "tools": [{}]}), "tool 0"),
        (ChatJsonl, json.dumps({**GOOD, "tools": "{"}), "Expecting"),
        (ImageTextJsonl, '{"text": "a"}', "has no 'image'"),
        (ImageTextJsonl, '{"image": "no.png", "text": "a"}', "there is no file"),
        (ImageTextJsonl, '{"image": "", "text": "a"}', "a picture is not given"),
        (ImageTextJsonl, '{"image": "a.png"}', "has no words beside the picture"),
        (ImageTextJsonl, '{"image": "a.png", "question": "q"}', "has no 'answer'"),
        (
            ImageTextJsonl,
            '{"image": "a.png", "text": "a", "question": "q", "answer": "a"}',
            "has text and question beside the picture",
        ),
        (ImageTextJsonl, '{"image": "a.png", "questions": [3]}', "one of the questions is 3"),
        (ImageTextJsonl, '{"image": "a.png", "questions": 3}', "is a int; expected a list"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, kind, line, said):
    (tmp_path / "a.png").write_bytes(b"x")
    good = {"text": "a", "image": "a.png", **GOOD}
    source = kind(written(tmp_path, good, "", line, good))
    next(source)
    with pytest.raises(DataError) as caught:
        next(source)
    assert said in str(caught.value)
    assert f"{tmp_path / 'data.jsonl'}, line 3: " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert next(source).origin.endswith("line 4")
    assert list(source) == []


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        (Jsonl, {"field": ""}, "field is ''"),
        (ImageTextJsonl, {"columns": {"picture": "x"}}, "columns name 'picture'"),
        (ImageTextJsonl, {"columns": {"image": 3}}, "the column of 'image' is 3"),
        (ImageTextJsonl, {"columns": "x"}, "columns are 'x'"),
    ],
)
def test_wrong_settings_are_named(tmp_path, kind, settings, said):
    with pytest.raises(DataError, match=said):
        kind(written(tmp_path, {"text": "a"}), **settings)


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    import llama4_train.sources.index as index

    monkeypatch.setattr(index, "LONGEST", 100)
    with pytest.raises(DataError, match=r"data.jsonl, line 2 is longer than"):
        Jsonl(written(tmp_path, {"text": "a"}, {"text": "a" * 200}))
