"""Source text is what stands in the files, cut at lines; a file is in one split only."""

import sysconfig
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_train.errors import DataError
from llama4_train.worlds import library
from llama4_train.worlds.library import Source

FOLDER = Path(sysconfig.get_paths()["stdlib"])


@given(
    index=st.integers(0, 10**9),
    split=st.sampled_from(["train", "held-out"]),
    characters=st.integers(1, 3000),
)
def test_a_piece_is_what_stands_in_the_file_from_that_line_on(index, split, characters):
    sample = Source(split=split, characters=characters).sample(index)
    (piece,) = sample.record.pieces
    path, line = sample.record.origin.rsplit(", line ", 1)
    whole = (FOLDER / path).read_text(encoding="utf-8")
    start = sum(map(len, whole.splitlines(keepends=True)[: int(line) - 1]))
    text = piece.part.text
    if "\f" not in whole and "\x0b" not in whole:  # which also end lines for splitlines
        assert whole[start : start + len(text)] == text
    assert text in whole
    assert 0 < len(text) <= characters
    line_end = whole.find("\n", start) + 1
    cut_short = line_end - start > characters  # a line that is longer than a piece
    assert text.endswith("\n") or start + len(text) == len(whole) or cut_short
    assert piece.weight == 1
    assert sample.questions == ()


def test_files_are_in_one_split_only():
    paths = {
        split: {
            Source(split=split).sample(index).record.origin.rpartition(",")[0]
            for index in range(1500)
        }
        for split in ("train", "held-out")
    }
    assert len(paths["train"]) > 100
    assert len(paths["held-out"]) > 10
    assert not paths["train"] & paths["held-out"]
    assert not any(
        {"site-packages", "test", "tests"} & set(Path(path).parts) for path in paths["train"]
    )


def test_a_sample_asks_nothing_and_says_so():
    with pytest.raises(DataError, match="a sample of 'source' asks nothing"):
        Source().sample(0).prompt


def test_filler_lines_stand_alone():
    for split in ("train", "held-out"):
        for line in library.lines(split):
            assert line.endswith("\n")
            assert line[:-1].rstrip() == line[:-1] != ""


def test_a_python_without_sources_is_named(tmp_path, monkeypatch):
    library._texts.cache_clear()
    monkeypatch.setattr(library.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(DataError, match="holds no sources of Python's library"):
        Source().sample(0)
    library._texts.cache_clear()


def test_the_fingerprint_changes_with_the_sources(tmp_path, monkeypatch):
    prints = set()
    for content in ("a = 1\n", "a = 2\n"):
        for name in range(40):  # enough that both splits have files
            (tmp_path / f"m{name}.py").write_text(content)
        library._texts.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr(library.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
            prints.add(library.fingerprint())
    library._texts.cache_clear()
    assert len(prints) == 2
