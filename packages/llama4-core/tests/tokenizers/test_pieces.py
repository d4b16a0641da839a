"""Cutting long texts, against a loop over characters that follows the rule to the letter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.tokenizers.pieces import RUN, WINDOW, pieces

TEXT = st.lists(
    st.tuples(st.sampled_from(["a", " ", "\n", "\u2003", "é", "\x1c", "\u200b"]), st.integers(1, 9))
).map(lambda runs: "".join(character * count for character, count in runs))


def by_character(text, window, run):
    found = []
    for start in range(0, len(text), window):
        part = length = before = None
        for character in text[start : start + window]:
            space = character.isspace()
            if length is None or space != before:
                length = 0
            if part is None or length == run:
                part = ""
                found.append(part)
                length = 0
            found[-1] += character
            length += 1
            before = space
    return found


@given(text=TEXT, window=st.integers(1, 30), run=st.integers(1, 7))
def test_borders(text, window, run):
    got = list(pieces(text, window=window, run=run))
    assert got == by_character(text, window, run)
    assert "".join(got) == text


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_borders_of_the_published_tokenizer(extra):
    assert [len(p) for p in pieces("a" * (RUN + extra))] == (
        [RUN, 1] if extra > 0 else [RUN + extra]
    )
    text = ("ab " * WINDOW)[: WINDOW + extra]
    assert [len(p) for p in pieces(text)] == ([WINDOW, 1] if extra > 0 else [WINDOW + extra])
    assert list(pieces("")) == []


def test_runs_are_counted_from_where_they_begin():
    text = "b " * 10 + " " * RUN + "c" * RUN
    assert [len(p) for p in pieces(text)] == [19 + RUN, 1 + RUN]
