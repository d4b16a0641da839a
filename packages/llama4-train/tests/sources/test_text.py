"""Files of text: where documents end, pieces of long ones, what is wrong with a file."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_train.errors import DataError
from llama4_train.sources.index import STRIDE, Index, documents
from llama4_train.sources.text import Text

TEXTS = st.text(st.sampled_from("ab é日🦙\n\n\r "), max_size=200)


def found(tmp_path_factory, text, **settings):
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_bytes(text.encode())
    source = Text(str(path), **settings)
    return [record.pieces[0].part.text for record in source], source


@given(text=TEXTS.filter(str.strip), longest=st.integers(64, 90))
def test_pieces_of_a_file_are_the_file(tmp_path_factory, text, longest):
    # Pieces of nothing but white space are left out, so every line gets a letter.
    text = text.replace("\n", "x\n") + "x"
    pieces, _ = found(tmp_path_factory, text, longest=longest)
    assert "".join(pieces) == text
    assert all(len(piece.encode()) <= longest for piece in pieces)
    for piece, after in pairwise(pieces):
        # A border inside of a line only where the line is too long for one piece.
        assert piece.endswith("\n") or "\n" not in piece
        line = after.partition("\n")[0]
        assert len((piece + line).encode()) + 1 > longest - 3


@pytest.mark.parametrize("letter", ["a", "é", "日", "🦙"])
@pytest.mark.parametrize("before", range(4))
def test_no_border_is_within_a_character(tmp_path_factory, letter, before):
    text = "x" * before + letter * 100
    pieces, _ = found(tmp_path_factory, text, longest=64)
    assert "".join(pieces) == text
    # As much in each as there is room for.
    assert all(len(piece.encode()) > 64 - len(letter.encode()) for piece in pieces[:-1])


@given(text=TEXTS.filter(str.strip))
def test_paragraphs_are_what_blank_lines_part(tmp_path_factory, text):
    lines = text.replace("\r", "").split("\n")
    expected, begun = [], []
    for line in [*lines, ""]:
        if line.strip():
            begun.append(line)
        elif begun:
            expected.append("\n".join(begun))
            begun = []
    got, _ = found(tmp_path_factory, "\n".join(lines), until="blank-line")
    assert got == expected


@given(text=TEXTS.filter(str.strip))
def test_lines_are_lines(tmp_path_factory, text):
    expected = [line for line in text.split("\n") if line.strip()]
    got, _ = found(tmp_path_factory, text, until="line")
    assert got == [line.rstrip("\r") for line in expected]


@given(
    count=st.integers(1, 3 * STRIDE + 2),
    longest=st.none() | st.integers(64, 70),
    until=st.sampled_from(["file", "blank-line", "line"]),
)
def test_any_record_is_found_from_the_index(tmp_path_factory, count, longest, until):
    path = tmp_path_factory.mktemp("index") / "a.txt"
    text = "".join(f"é{n} " * (n * 7 % 30 + 1) + "\n" * (n % 3 + 1) for n in range(count))
    path.write_bytes(text.encode())
    split = documents(until, longest)
    with path.open("rb") as file:
        whole = list(split(file, 1))
    index = Index(path, split)
    assert [index[number] for number in range(len(index))] == whole
    for record in whole:
        lines = text.encode()[: record.offset].count(b"\n") + 1
        assert record.line == lines
        assert text.encode()[record.offset :].startswith(record.content)


def test_a_glob_names_files_in_order(tmp_path):
    for name in ("b.txt", "a.txt", "c.md"):
        (tmp_path / name).write_text(name)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "z.txt").write_text("z")
    (tmp_path / "empty.txt").write_text("")
    texts = [record.pieces[0].part.text for record in Text(str(tmp_path / "**" / "*.txt"))]
    assert texts == ["a.txt", "b.txt", "z"]
    both = Text([str(tmp_path / "c.md"), str(tmp_path / "*.txt"), str(tmp_path / "a.txt")])
    assert [record.pieces[0].part.text for record in both] == ["c.md", "a.txt", "b.txt"]


def test_a_mark_at_the_start_is_no_text(tmp_path_factory):
    assert found(tmp_path_factory, "\ufeffhello")[0] == ["hello"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"files": "{}/no.txt"}, "no.txt does not exist"),
        ({"files": "{}/*.md"}, "no file that is not empty matches"),
        ({"files": "{}"}, "is a folder"),
        ({"files": "{}/empty.txt"}, "empty.txt is empty"),
        ({"files": "{}/blank.txt"}, "nothing but white space"),
        ({"files": []}, "files are"),
        ({"files": [3]}, "one of the files is 3"),
        ({"files": 3}, "files are 3"),
        ({"files": "a\0b"}, "one of the files"),
        ({"until": "blankline"}, "did you mean 'blank-line'"),
        ({"longest": 3}, "longest is 3"),
        ({"longest": "x"}, "longest is 'x'"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path, settings, said):
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "blank.txt").write_text(" \n\n ")
    settings = {"files": str(tmp_path / "a.txt"), **settings}
    if isinstance(settings["files"], str):
        settings["files"] = settings["files"].format(tmp_path)
    with pytest.raises(DataError, match=said.replace("(", r"\(")) as caught:
        Text(**settings)
    assert "\n" not in str(caught.value)


def test_a_document_larger_than_memory_is_refused(tmp_path, monkeypatch):
    import llama4_train.sources.index as index

    monkeypatch.setattr(index, "LONGEST", 100)
    (tmp_path / "a.txt").write_text("one\n\n" + "long line\n" * 30)
    with pytest.raises(DataError, match=r"a.txt, line 1 begins a document of more than"):
        Text(str(tmp_path / "a.txt"))
    assert len(list(Text(str(tmp_path / "a.txt"), longest=80))) == 4


def test_changed_files_refuse_a_stored_state(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a\nb\nc\n")
    state = Text(str(path), until="line").state()
    path.write_text("a\nb\nd\n")
    with pytest.raises(DataError, match="data"):
        Text(str(path), until="line").restore(state)


def test_a_file_that_shrinks_is_an_error(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a\nb\nc\n")
    source = Text(str(path), until="line")
    path.write_text("a\n")
    next(source)
    with pytest.raises(DataError, match="fewer records than when it was opened"):
        next(source)
